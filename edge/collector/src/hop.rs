//! What the Worker tells the shard of a request besides its body: one header, since each costs.

use catchment_cells::credential::Identity;
use catchment_cells::{ClientId, route::Placement};

use crate::agent::{Agent, Device, named};
use crate::limits::AGENT_NAME_BYTES_MAX;
use crate::request::{Claims, Visitor};

/// The header's name.
pub const HOP_HEADER: &str = "x-catchment-hop";

/// Whose shard, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The shard and its region.
    pub placement: Placement,
    /// What the key says.
    pub claims: Claims,
    /// The key's generation.
    pub generation: u32,
    /// Who sent it.
    pub visitor: Visitor,
}

impl Hop {
    /// The header's value: `region shard level client identity backfill foreign generation visitor country device browser|os|bot`, where only the
    /// names at the end may have blanks.
    pub fn to_header(&self) -> String {
        let identity = match self.claims.identity {
            Identity::Daily => 'a',
            Identity::Device => 'd',
            Identity::User => 'u',
        };
        let country = self.visitor.country.map_or("-".into(), |code| String::from_utf8_lossy(&code).into_owned());
        format!(
            "{} {} {} {} {identity} {} {} {} {:x} {country} {} {}",
            self.placement.region,
            self.placement.shard,
            self.placement.level,
            self.claims.client,
            u8::from(self.claims.backfill),
            u8::from(self.claims.ignore_foreign_client),
            self.generation,
            self.visitor.hash,
            self.visitor.agent.device.map_or(0, |device| device as u8),
            self.visitor.agent.names().collect::<Vec<_>>().join("|"),
        )
    }

    /// Reads the header; `None` if the Worker didn't write it.
    pub fn from_header(text: &str) -> Option<Self> {
        let [region, shard, level, client, identity, backfill, foreign, generation, visitor, country, device, names] =
            text.splitn(12, ' ').collect::<Vec<_>>().try_into().ok()?;
        let [browser, os, bot] = names.split('|').collect::<Vec<_>>().try_into().ok()?;
        if [browser, os, bot].iter().any(|name| name.len() > AGENT_NAME_BYTES_MAX) {
            return None;
        }
        Some(Hop {
            placement: Placement { region: region.into(), shard: shard.into(), level: level.parse().ok()? },
            claims: Claims {
                client: ClientId::new(client).ok()?,
                identity: match identity {
                    "a" => Identity::Daily,
                    "d" => Identity::Device,
                    "u" => Identity::User,
                    _ => return None,
                },
                backfill: backfill == "1",
                ignore_foreign_client: foreign == "1",
            },
            generation: generation.parse().ok()?,
            visitor: Visitor {
                hash: u64::from_str_radix(visitor, 16).ok()?,
                country: country.as_bytes().try_into().ok(),
                agent: Agent {
                    device: device.parse().ok().and_then(Device::numbered),
                    browser: named(browser),
                    os: named(os),
                    bot: named(bot),
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_worker_writes_the_shard_reads() {
        let agent = Agent {
            device: Some(Device::Tablet),
            browser: Some("Samsung Internet".into()),
            os: None,
            bot: Some("2ip bot".into()),
        };
        for (country, agent) in [(None, Agent::default()), (Some(*b"DE"), agent)] {
            let hop = Hop {
                placement: Placement { region: "eu".into(), shard: "eu/slice/shop/7".into(), level: 2 },
                claims: Claims {
                    client: ClientId::new("shop").unwrap(),
                    identity: Identity::Device,
                    backfill: true,
                    ignore_foreign_client: false,
                },
                generation: 7,
                visitor: Visitor { hash: u64::MAX - 5, country, agent },
            };
            assert_eq!(Hop::from_header(&hop.to_header()), Some(hop));
        }
        for text in [
            "",
            "a b c",
            "eu eu/pool/0 0 shop x 0 0 1 0 - 0 ||",
            "eu eu/pool/0 x shop a 0 0 1 0 - 0 ||",
            "eu eu/pool/0 0 shop a 0 0 1 0 - 0 |",
            "eu eu/pool/0 0 shop a 0 0 x 0 - 0 ||",
        ] {
            assert_eq!(Hop::from_header(text), None, "{text}");
        }
    }
}
