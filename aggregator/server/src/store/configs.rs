//! Clients' configs.

use catchment_aggregator_core::Tiers;
use catchment_aggregator_core::planner::Cube;
use catchment_cells::ClientId;
use catchment_cells::codec::{DecodeError, Reader};

use super::{Store, StoreError};

/// The version byte of a row.
const VERSION: u8 = 1;

impl Store {
    /// Every client's config, as its bytes, and the version of its last change.
    pub(crate) fn configs(&self) -> Result<Vec<(ClientId, u32, Vec<u8>)>, StoreError> {
        let read = |key: &[u8], value: &[u8]| {
            let client = str::from_utf8(key).ok().and_then(|text| ClientId::new(text).ok());
            let mut reader = Reader::new(value);
            match reader.u8()? {
                VERSION => {}
                version => return Err(DecodeError::Version(version)),
            }
            let version = reader.u32()?;
            let config = reader.bytes(reader.remaining())?.to_vec();
            Ok((client.ok_or(DecodeError::Malformed("client id"))?, version, config))
        };
        self.configs
            .iter()
            .map(|guard| {
                let (key, value) = guard.into_inner()?;
                read(&key, &value).map_err(|error| StoreError::Row { keyspace: "configs", error })
            })
            .collect()
    }

    /// Writes a client's config, with the cubes that it is the first to have, and its tiers where these are others now: synced when this returns.
    pub(crate) fn put_config(
        &self,
        client: &ClientId,
        version: u32,
        config: &[u8],
        cubes: &[Cube],
        tiers: Option<&Tiers>,
    ) -> Result<(), StoreError> {
        let mut batch = self.synced_batch();
        let row = [&[VERSION], &version.to_le_bytes()[..], config].concat();
        batch.insert(&self.configs, client.as_str(), row);
        for cube in cubes {
            self.put_cube(&mut batch, client, cube);
        }
        if let Some(tiers) = tiers {
            self.add_tiers(&mut batch, client, tiers);
        }
        Ok(batch.commit()?)
    }
}
