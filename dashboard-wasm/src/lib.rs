//! The dashboard: what a reader asks for, sees and takes along, live.
//!
//! Decided in pure code, which is tested natively: [`model`] takes what happens and says what is to be done; [`range`], [`link`] and
//! [`panel`] say what is asked and shown; [`mod@format`], [`csv`] and [`calendar`] how it is written. The browser is known to `page`
//! alone, which is Wasm's: it passes on what happens, does what is to be done, and paints at most once a frame.

pub mod backoff;
pub mod calendar;
pub mod change;
pub mod connection;
pub mod csv;
pub mod format;
pub mod link;
pub mod model;
pub mod panel;
pub mod range;
pub mod subscriptions;

#[cfg(target_arch = "wasm32")]
mod page;
