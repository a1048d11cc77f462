//! What an aggregator decides, without I/O and without a clock: which frames are stored ([`ingest`], [`marks`]) and which are
//! passed on ([`forwarding`]), how long the log keeps them ([`log`]), which cells are open ([`tables`], [`memtable`]), which of their
//! values are told apart ([`dictionary`]), which are in which run ([`runs`]), how they lie there ([`block`]) and which of these are at hand ([`kept`]), how minutes become hours and days ([`rollup`]), of which clock, and for how long ([`tiers`]), how these are cut anew on another one ([`recut`]), what a question asks ([`question`], [`filter`], [`granularity`]) and which are asked together ([`dashboard`]), what else readers say ([`said`]), which
//! cells answer it ([`planner`]) and what they say ([`answer`], [`json`]), who is looked at ([`watched`]), and which events are read back that were not counted
//! ([`letters`]).

pub mod answer;
pub mod block;
pub mod dashboard;
pub mod dictionary;
pub mod filter;
pub mod forwarding;
pub mod granularity;
pub mod ingest;
pub mod json;
pub mod kept;
pub mod letters;
pub mod limits;
pub mod log;
pub mod marks;
pub mod memtable;
pub mod planner;
mod possible;
pub mod question;
pub mod recut;
pub mod rollup;
pub mod runs;
pub mod said;
mod slide;
pub mod tables;
pub mod tiers;
pub mod view;
pub mod watched;

pub use answer::Answer;
pub use log::LogRow;
pub use marks::{Decision, Mark};
pub use memtable::Memtable;
pub use planner::Plan;
pub use question::Question;
pub use said::{Said, Token};
pub use tables::Tables;
pub use tiers::Tiers;
pub use view::View;
pub use watched::Watched;
