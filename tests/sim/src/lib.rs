//! The deterministic simulation: the shards' and the aggregators' own code in one process under virtual time, with links and
//! disks that lose, delay, repeat, reorder, cut and die by seed, and in the end every figure held against a model of what was
//! acknowledged. The same seed gives the same run.

pub mod aggregator;
pub mod disk;
pub mod model;
pub mod random;
pub mod runs;
pub mod shard;
pub mod weather;
pub mod world;
