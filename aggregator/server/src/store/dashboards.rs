//! Clients' dashboards.

use catchment_aggregator_core::dashboard::Dashboard;
use catchment_cells::ClientId;
use catchment_cells::codec::DecodeError;

use super::{Store, StoreError};

/// The version byte of a row.
const VERSION: u8 = 1;

impl Store {
    /// A client's dashboard of this name.
    pub(crate) fn dashboard(&self, client: &ClientId, id: &str) -> Result<Option<Dashboard>, StoreError> {
        let Some(row) = self.dashboards.get(key(client, id))? else { return Ok(None) };
        let read = match row.split_first() {
            Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|_| DecodeError::Malformed("dashboard")),
            Some((version, _)) => Err(DecodeError::Version(*version)),
            None => Err(DecodeError::Malformed("empty")),
        };
        read.map(Some).map_err(|error| StoreError::Row { keyspace: "dashboards", error })
    }

    /// The names of a client's dashboards, ascending.
    pub(crate) fn dashboard_ids(&self, client: &ClientId) -> Result<Vec<String>, StoreError> {
        let prefix = key(client, "");
        self.dashboards
            .prefix(&prefix)
            .map(|row| Ok(String::from_utf8_lossy(&row.key()?[prefix.len()..]).into_owned()))
            .collect()
    }

    /// Writes a client's dashboard, or removes it: synced when this returns.
    pub(crate) fn set_dashboard(
        &self,
        client: &ClientId,
        id: &str,
        dashboard: Option<&Dashboard>,
    ) -> Result<(), StoreError> {
        let mut batch = self.synced_batch();
        match dashboard {
            None => batch.remove(&self.dashboards, key(client, id)),
            Some(dashboard) => {
                // Names and JSON that was read: it can be written.
                let json = serde_json::to_vec(dashboard).unwrap_or_default();
                batch.insert(&self.dashboards, key(client, id), [&[VERSION], &json[..]].concat());
            }
        }
        Ok(batch.commit()?)
    }
}

/// `client ‖ 0x00 ‖ name`.
fn key(client: &ClientId, id: &str) -> Vec<u8> {
    [client.as_str(), id].join("\0").into()
}
