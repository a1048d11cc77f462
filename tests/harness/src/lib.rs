//! Starts, drives and stops the real processes: workerd with the Worker, relays, aggregators.
//!
//! [`Cluster`] is a deployment on free loopback ports in a folder of its own; [`Proxy`] stands between two of its parts and
//! withholds what passes; [`Trace`] is a file of events and [`Sender`] replays it; [`Exact`] counts the same events without
//! any of the machinery, and [`Api`] asks the machinery. Nothing here replaces a part that can be run.

mod api;
mod certificates;
mod cluster;
mod event;
mod exact;
mod failure;
pub mod figures;
mod hand;
pub mod live;
mod operator;
pub mod paths;
mod process;
mod proxy;
mod random;
mod replay;
mod shop;
mod trace;
mod visible;

pub use api::{Answer, Api, Question, Row, Value};
pub use cluster::{Builder, Cluster, Region};
pub use event::Event;
pub use exact::{Bucket, Exact};
pub use failure::{Failure, Result};
pub use hand::Hand;
pub use live::{Ended, Live};
pub use operator::Operator;
pub use process::Process;
pub use proxy::{Fault, Proxy};
pub use random::Random;
pub use replay::{Connection, Outcome, Rejected, Sender};
pub use shop::Shop;
pub use trace::{Line, Trace};
pub use visible::{Counted, Visible, Watcher};
