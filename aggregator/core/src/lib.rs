//! What an aggregator decides, without I/O and without a clock: which frames are stored ([`marks`]), which cells are
//! open ([`memtable`]), how minutes become hours and days ([`rollup`]), what a question asks ([`question`]), which
//! cells answer it ([`planner`]) and what they say ([`answer`]), and who is looked at ([`watched`]).

pub mod answer;
pub mod limits;
pub mod marks;
pub mod memtable;
pub mod planner;
pub mod question;
pub mod rollup;
pub mod view;
pub mod watched;

pub use answer::Answer;
pub use marks::{Decision, Mark};
pub use memtable::Memtable;
pub use planner::Plan;
pub use question::Question;
pub use view::View;
pub use watched::Watched;
