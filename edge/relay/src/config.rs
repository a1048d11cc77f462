//! What an operator sets, in one TOML file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use catchment_cells::route::is_region;
use catchment_cells::secret::equal_in_constant_time;
use catchment_link::{ClientTls, Tls, check_address};
use serde::Deserialize;
use thiserror::Error;

/// A relay's config, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where HTTP is served, `host:port`. By default `127.0.0.1:7001`: whoever opens it to the world puts TLS before it.
    pub listen: String,
    /// What a shard shows to be let in.
    pub token: Token,
    /// The relay's side of the link.
    pub tls: ClientTls,
    /// The link address, `host:port`, of each region's aggregator.
    pub homes: BTreeMap<String, String>,
}

/// A bearer token.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

/// Everything that is wrong with a config, a sentence each.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    listen: String,
    token: Option<String>,
    token_file: Option<PathBuf>,
    tls: Option<Tls>,
    homes: BTreeMap<String, String>,
}

impl Default for File {
    fn default() -> Self {
        let listen = "127.0.0.1:7001".into();
        File { listen, token: None, token_file: None, tls: None, homes: BTreeMap::new() }
    }
}

impl Config {
    /// Reads a config and the files that it names; relative paths are taken from the config's folder.
    pub fn load(path: &Path) -> Result<Config, Mistakes> {
        let one = |mistake: String| Mistakes(vec![format!("{}: {mistake}", path.display())]);
        let text = std::fs::read_to_string(path).map_err(|error| one(error.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            one(format!("line {line}: {}", error.message()))
        })?;
        file.check(path.parent().unwrap_or(Path::new("")))
    }
}

impl File {
    fn check(self, folder: &Path) -> Result<Config, Mistakes> {
        let mut mistakes = Vec::new();
        let token = self.token(folder).map_err(|mistake| mistakes.push(mistake));
        let tls = self.tls(folder).map_err(|mistake| mistakes.push(mistake));
        if self.homes.is_empty() {
            mistakes.push("homes is empty: name at least one region and its aggregator's address".into());
        }
        for (home, address) in &self.homes {
            if !is_region(home) {
                mistakes.push(format!("homes.{home}: a region's name is 1 to 32 characters of A-Z a-z 0-9 _ -"));
            }
            if let Err(error) = check_address(address) {
                mistakes.push(format!("homes.{home}: {error}"));
            }
        }
        match (token, tls) {
            (Ok(token), Ok(tls)) if mistakes.is_empty() => {
                Ok(Config { listen: self.listen, token, tls, homes: self.homes })
            }
            _ => Err(Mistakes(mistakes)),
        }
    }

    fn tls(&self, folder: &Path) -> Result<ClientTls, String> {
        let tls = self.tls.as_ref().ok_or("tls is missing: ca, cert and key are needed")?;
        tls.in_folder(folder).client().map_err(|error| format!("tls: {error}"))
    }

    fn token(&self, folder: &Path) -> Result<Token, String> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), None) => token.clone(),
            (None, Some(file)) => {
                let path = folder.join(file);
                std::fs::read_to_string(&path).map_err(|error| format!("token_file: {}: {error}", path.display()))?
            }
            _ => return Err("one of token and token_file is needed".into()),
        };
        Token::new(text.trim_end())
            .ok_or_else(|| "the token is empty or has other than visible ASCII characters".into())
    }
}

impl Token {
    /// Takes one or more visible ASCII characters, which are what fits a header.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Token(text.as_bytes().into()))
    }

    /// Compares in a time that tells nothing of where the two differ.
    pub fn matches(&self, claimed: &[u8]) -> bool {
        equal_in_constant_time(&self.0, claimed)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_itself_alone() {
        let token = Token::new("secret").unwrap();
        assert!(token.matches(b"secret"));
        for other in [&b""[..], b"secre", b"secret ", b"Secret", b"secreT"] {
            assert!(!token.matches(other));
        }
        assert!(Token::new("").is_none() && Token::new("a b").is_none() && Token::new("é").is_none());
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn every_mistake_is_named() {
        let check = |text: &str| toml::from_str::<File>(text).unwrap().check(Path::new("/nowhere")).unwrap_err().0;
        assert_eq!(
            check(""),
            [
                "one of token and token_file is needed",
                "tls is missing: ca, cert and key are needed",
                "homes is empty: name at least one region and its aggregator's address",
            ]
        );
        let mistakes = check(
            "token_file = 't'\n tls = { ca = 'ca.pem', cert = 'c.pem', key = 'k.pem' }\n homes = { '' = 'a:1', eu = 'a' }",
        );
        let parts = ["/nowhere/t", "/nowhere/ca.pem", "1 to 32 characters", "homes.eu: \"a\" is not an address"];
        assert_eq!(mistakes.len(), parts.len(), "{mistakes:?}");
        for (mistake, part) in mistakes.iter().zip(parts) {
            assert!(mistake.contains(part), "{mistake}");
        }
    }
}
