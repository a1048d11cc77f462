//! The country of a visitor: by what a proxy or a platform says, or by a file of addresses.

use std::fmt;
use std::net::IpAddr;

use maxminddb::{MaxMindDbError, Reader, path};

/// A country, by ISO 3166-1 alpha-2, in capitals.
pub type Country = [u8; 2];

/// Reads a country's code as platforms and proxies say it; `XX` and `ZZ` are no country, nor is `T1`, the Tor network.
pub fn country(code: &str) -> Option<Country> {
    let code: Country = code.trim().as_bytes().try_into().ok()?;
    let code = code.map(|byte| byte.to_ascii_uppercase());
    (code.iter().all(u8::is_ascii_uppercase) && code != *b"XX" && code != *b"ZZ").then_some(code)
}

/// Countries by address: a file in the MaxMind DB format, such as GeoLite2 Country or DB-IP's Country Lite.
pub struct Countries(Reader<Vec<u8>>);

impl Countries {
    /// Opens a file, given as its bytes.
    pub fn open(file: Vec<u8>) -> Result<Self, MaxMindDbError> {
        Reader::from_source(file).map(Countries)
    }

    /// The country that an address is in, if the file is sound and knows.
    pub fn of(&self, address: &str) -> Option<Country> {
        let found = self.0.lookup(address.trim().parse::<IpAddr>().ok()?).ok()?;
        let in_full = found.decode_path::<&str>(&path!["country", "iso_code"]).ok().flatten();
        country(in_full.or_else(|| found.decode_path(&path!["country_code"]).ok().flatten())?)
    }
}

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Countries").field(&self.0.metadata().database_type).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &[u8] = include_bytes!("../data/test/GeoIP2-Country-Test.mmdb");

    #[test]
    fn codes_are_taken_as_platforms_say_them() {
        for (code, expected) in [
            ("DE", Some(*b"DE")),
            (" us", Some(*b"US")),
            ("XX", None),
            ("ZZ", None),
            ("T1", None),
            ("", None),
            ("D", None),
            ("DEU", None),
            ("é", None),
        ] {
            assert_eq!(country(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_file_tells_the_countries_of_addresses() {
        let countries = Countries::open(FILE.to_vec()).unwrap();
        for (address, expected) in [
            ("89.160.20.112", Some(*b"SE")),
            ("2.125.160.216", Some(*b"GB")),
            ("216.160.83.56", Some(*b"US")),
            ("2001:218::1", Some(*b"JP")),
            ("::ffff:89.160.20.112", Some(*b"SE")),
            ("127.0.0.1", None),
            ("", None),
            ("89.160.20", None),
            ("unknown", None),
        ] {
            assert_eq!(countries.of(address), expected, "{address:?}");
        }
    }

    proptest! {
        #[test]
        fn a_file_that_is_broken_is_refused_or_knows_less(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
            length in any::<prop::sample::Index>(),
            cut in any::<bool>(),
            addresses in prop::collection::vec(any::<std::net::Ipv6Addr>(), 8),
        ) {
            let mut file = FILE.to_vec();
            for (at, byte) in changes {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if cut {
                file.truncate(length.index(file.len()));
            }
            if let Ok(countries) = Countries::open(file) {
                for address in addresses.iter().map(ToString::to_string).chain(["89.160.20.112".into(), "2001:218::1".into()]) {
                    countries.of(&address);
                }
            }
        }
    }
}
