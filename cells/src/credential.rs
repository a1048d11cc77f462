//! Write keys and read keys: text that a page or a program carries, and that one secret can check.
//! The grammar is in docs/FORMATS.md.

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;
use thiserror::Error;

use crate::client::ClientId;
use crate::secret::{Secret, equal_in_constant_time, hmac_sha256};

const MAC_BYTES: usize = 15;

/// RFC 4648 base32 in lower case, without padding.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding().expect("32 different symbols are an encoding")
});

/// Whom uniques count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Address, agent and the event's own UTC day: nothing is stored in the browser.
    Daily,
    /// The event's device, else its session, else as `Daily`.
    Device,
    /// The event's user, else as `Device`.
    User,
}

/// What a write key says. Public: it stands in a page's source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WriteKey {
    /// Whose events it lets in.
    pub client: ClientId,
    /// Whom uniques count.
    pub identity: Identity,
    /// Lets any past time in.
    pub backfill: bool,
    /// Passes over a body's foreign client id instead of rejecting the event.
    pub ignore_foreign_client: bool,
    /// To tell keys apart that were made one after the other: the client's config says from which one on they are good.
    pub generation: u32,
}

/// What a read key says. Secret: who has it reads the client's figures.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReadKey {
    /// Whose figures it opens.
    pub client: ClientId,
    /// To tell keys apart that were made one after the other: the client's config says from which one on they are good.
    pub generation: u32,
}

/// What an operator's key says. Secret: who has it sets every client's config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperatorKey {
    /// To tell keys apart that were made one after the other; nothing revokes by it yet.
    pub generation: u32,
}

/// Why a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// The text is no key.
    #[error("the key is malformed")]
    Malformed,
    /// The text is a key that the secret did not make.
    #[error("the key is unknown")]
    Forged,
}

impl WriteKey {
    /// The key's text.
    pub fn mint(&self, secret: &Secret) -> String {
        sign(secret, "write-key", format!("wk_{}_{}.{}", self.client, self.flags(), self.generation))
    }

    /// Reads a key and checks its MAC.
    pub fn parse(secret: &Secret, text: &str) -> Result<Self, CredentialError> {
        let (client, claims) = split(text, "wk_")?;
        let (flags, generation) = claims.split_once('.').ok_or(CredentialError::Malformed)?;
        let has = |flag| flags.contains(flag);
        let key = WriteKey {
            client,
            identity: match (has('a'), has('d'), has('u')) {
                (true, false, false) => Identity::Daily,
                (false, true, false) => Identity::Device,
                (false, false, true) => Identity::User,
                _ => return Err(CredentialError::Malformed),
            },
            backfill: has('b'),
            ignore_foreign_client: has('f'),
            generation: parse_generation(generation)?,
        };
        if key.flags() != flags {
            return Err(CredentialError::Malformed);
        }
        check(secret, "write-key", text)?;
        Ok(key)
    }

    fn flags(&self) -> String {
        let mut flags = String::new();
        for (flag, set) in [
            ('a', self.identity == Identity::Daily),
            ('b', self.backfill),
            ('d', self.identity == Identity::Device),
            ('f', self.ignore_foreign_client),
            ('u', self.identity == Identity::User),
        ] {
            if set {
                flags.push(flag);
            }
        }
        flags
    }
}

impl ReadKey {
    /// The key's text.
    pub fn mint(&self, secret: &Secret) -> String {
        sign(secret, "read-key", format!("rk_{}_{}", self.client, self.generation))
    }

    /// Reads a key and checks its MAC.
    pub fn parse(secret: &Secret, text: &str) -> Result<Self, CredentialError> {
        let (client, generation) = split(text, "rk_")?;
        let key = ReadKey { client, generation: parse_generation(generation)? };
        check(secret, "read-key", text)?;
        Ok(key)
    }
}

impl OperatorKey {
    /// The key's text.
    pub fn mint(&self, secret: &Secret) -> String {
        sign(secret, "operator-key", format!("ok_{}", self.generation))
    }

    /// Reads a key and checks its MAC.
    pub fn parse(secret: &Secret, text: &str) -> Result<Self, CredentialError> {
        let (generation, _) =
            text.strip_prefix("ok_").and_then(|rest| rest.split_once('_')).ok_or(CredentialError::Malformed)?;
        let key = OperatorKey { generation: parse_generation(generation)? };
        check(secret, "operator-key", text)?;
        Ok(key)
    }
}

/// Client and claims of `<prefix><client>_<claims>_<mac>`.
fn split<'a>(text: &'a str, prefix: &str) -> Result<(ClientId, &'a str), CredentialError> {
    let body = text.strip_prefix(prefix).and_then(|rest| rest.rsplit_once('_')).ok_or(CredentialError::Malformed)?.0;
    let (client, claims) = body.rsplit_once('_').ok_or(CredentialError::Malformed)?;
    Ok((ClientId::new(client).map_err(|_| CredentialError::Malformed)?, claims))
}

/// A decimal u32 in its one spelling, so that a key has one spelling too.
fn parse_generation(text: &str) -> Result<u32, CredentialError> {
    let generation: u32 = text.parse().map_err(|_| CredentialError::Malformed)?;
    if generation.to_string() == text { Ok(generation) } else { Err(CredentialError::Malformed) }
}

fn sign(secret: &Secret, label: &str, body: String) -> String {
    let mac = mac(secret, label, &body);
    format!("{body}_{}", BASE32.encode(&mac))
}

fn check(secret: &Secret, label: &str, text: &str) -> Result<(), CredentialError> {
    let (body, claimed) = text.rsplit_once('_').ok_or(CredentialError::Malformed)?;
    let claimed = BASE32.decode(claimed.as_bytes()).map_err(|_| CredentialError::Malformed)?;
    if equal_in_constant_time(&claimed, &mac(secret, label, body)) { Ok(()) } else { Err(CredentialError::Forged) }
}

fn mac(secret: &Secret, label: &str, body: &str) -> [u8; MAC_BYTES] {
    let full = hmac_sha256(&secret.derive(label, b""), &[body.as_bytes()]);
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&full[..MAC_BYTES]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(&[7; 32]).unwrap()
    }

    #[test]
    fn keys_round_trip_and_one_changed_character_is_refused() {
        for (identity, backfill, ignore_foreign_client, flags) in [
            (Identity::Daily, false, false, "a"),
            (Identity::Device, false, true, "df"),
            (Identity::User, true, true, "bfu"),
        ] {
            let client = ClientId::new("shop_1-A").unwrap();
            let key = WriteKey { client, identity, backfill, ignore_foreign_client, generation: 3 };
            let text = key.mint(&secret());
            assert!(text.starts_with(&format!("wk_shop_1-A_{flags}.3_")), "{text}");
            assert_eq!(WriteKey::parse(&secret(), &text), Ok(key));
            for i in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[i] = if changed[i] == b'x' { b'y' } else { b'x' };
                assert!(WriteKey::parse(&secret(), str::from_utf8(&changed).unwrap()).is_err(), "{i}");
            }
            assert!(ReadKey::parse(&secret(), &text).is_err());
        }
        let key = ReadKey { client: ClientId::new("a").unwrap(), generation: 0 };
        assert_eq!(ReadKey::parse(&secret(), &key.mint(&secret())), Ok(key.clone()));
        let operator = OperatorKey { generation: 4 };
        assert_eq!(OperatorKey::parse(&secret(), &operator.mint(&secret())), Ok(operator));
        assert!(OperatorKey::parse(&secret(), &key.mint(&secret())).is_err());
        assert!(ReadKey::parse(&secret(), &operator.mint(&secret())).is_err());
        assert_eq!(ReadKey::parse(&Secret::new(&[8; 32]).unwrap(), &key.mint(&secret())), Err(CredentialError::Forged));
    }

    #[test]
    fn what_is_no_key_is_malformed() {
        for text in [
            "",
            "wk_",
            "wk_a",
            "wk_a_u.1",
            "wk_a_.1_aaaa",
            "wk_a_ub.1_aaaa",
            "wk_a_u.01_aaaa",
            "wk_a_ad.1_aaaa",
            "rk_a_1_é",
        ] {
            assert_eq!(WriteKey::parse(&secret(), text), Err(CredentialError::Malformed), "{text}");
        }
    }
}
