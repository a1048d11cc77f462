//! The edge: a Worker that checks keys and places events, and a Durable Object that is a shard.
//!
//! `edge` is the way in: key, size, route, then one hop. `shard` commits requests to its log in groups, applies them to the
//! collector and answers; `storage` is its tables; `shipping` is the way out. What is decided is decided in
//! `catchment-collector`; this crate only acts. Nothing in it panics on any input: a panic would end every
//! request of the isolate.

mod answer;
mod config;
mod edge;
mod shard;
mod shipping;
mod storage;

use worker::{Context, Env, Request, Response, Result, event};

/// One HTTP request.
#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> Result<Response> {
    Ok(edge::handle(request, env).await)
}
