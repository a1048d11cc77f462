//! A client's keys: made by whoever has the deployment's secret.

use catchment_cells::credential::{Identity, OperatorKey, ReadKey, WriteKey};
use catchment_cells::{ClientId, Secret};
use serde_json::json;

/// The keys of a client, of a generation, as JSON: for its sites, in each mode of identity, for a backfill, and for its readers.
pub(crate) fn of(client: &ClientId, generation: u32, secret: &Secret) -> String {
    let write = |identity, backfill| {
        let client = client.clone();
        WriteKey { client, identity, backfill, ignore_foreign_client: backfill, generation }.mint(secret)
    };
    let keys = json!({
        "write": {
            "daily": write(Identity::Daily, false),
            "device": write(Identity::Device, false),
            "user": write(Identity::User, false),
        },
        "backfill": write(Identity::User, true),
        "read": ReadKey { client: client.clone(), generation }.mint(secret),
    });
    format!("{keys:#}")
}

/// The operator's key.
pub(crate) fn of_operator(secret: &Secret) -> String {
    OperatorKey { generation: 1 }.mint(secret)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_keys_open_what_they_say() {
        let secret = Secret::new(&[3; 32]).unwrap();
        let client = ClientId::new("shop").unwrap();
        let keys: Value = serde_json::from_str(&of(&client, 4, &secret)).unwrap();
        for (identity, expected) in [("daily", Identity::Daily), ("device", Identity::Device), ("user", Identity::User)]
        {
            let key = WriteKey::parse(&secret, keys["write"][identity].as_str().unwrap()).unwrap();
            assert_eq!((key.client, key.identity, key.backfill), (client.clone(), expected, false));
            assert_eq!(key.generation, 4);
        }
        assert!(WriteKey::parse(&secret, keys["backfill"].as_str().unwrap()).unwrap().backfill);
        assert!(OperatorKey::parse(&secret, &of_operator(&secret)).is_ok());
        let read = ReadKey::parse(&secret, keys["read"].as_str().unwrap());
        assert_eq!(read, Ok(ReadKey { client, generation: 4 }));
    }
}
