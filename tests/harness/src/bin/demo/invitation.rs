//! Where everything is, and what can be done with it.

use catchment_harness::Api;
use serde_json::json;

/// The addresses and keys of what runs.
pub(crate) struct Invitation<'a> {
    pub(crate) shop: &'a str,
    pub(crate) edge: &'a str,
    pub(crate) write_key: &'a str,
    pub(crate) api: &'a Api,
    pub(crate) aggregator_pid: Option<u32>,
}

impl Invitation<'_> {
    /// One object.
    pub(crate) fn json(&self) -> serde_json::Value {
        let (aggregator, read_key) = self.api.credentials();
        json!({
            "shop": self.shop,
            "dashboard": self.dashboard(),
            "edge": self.edge,
            "write_key": self.write_key,
            "aggregator": aggregator,
            "read_key": read_key,
        })
    }

    /// For a person.
    pub(crate) fn text(&self) -> String {
        let (aggregator, read_key) = self.api.credentials();
        let Invitation { shop, edge, write_key, .. } = self;
        let forward = |url: &str| {
            url.rsplit_once(':').map(|(_, port)| format!(" -L {port}:127.0.0.1:{port}")).unwrap_or_default()
        };
        let forwards: String = [*shop, aggregator, *edge].map(forward).concat();
        let kill = self.aggregator_pid.map(|pid| {
            format!(
                "\n  · Kill what the dashboard talks to; it comes back by itself, with every event:\n\n      kill -9 {pid}\n"
            )
        });
        format!(
            "\n  shop       {shop}/\n  dashboard  {}\n\
             \nOpen both, side by side. Nothing leaves this machine.\n\
             \n  · Click around in the shop and buy something: the dashboard shows it before you look up.\n\
             \n  · Take the dashboard's tab offline (developer tools, Network) and back: it resumes where it was.\n{}\
             \n  · Send an event yourself, and ask:\n\
             \n      curl '{edge}/v1/events?k={write_key}' -d '{{\"event_id\":\"mine-1\",\"event_type\":\"page_view\",\"user_id\":\"me\",\"timestamp\":'$(date +%s)',\"page\":\"/hello\"}}'\n\
             \n      curl -H 'Authorization: Bearer {read_key}' '{aggregator}/api/v1/metrics?metric=page_views&metric=users&last=30m&granularity=1m'\n\
             \n  · No browser here? On a machine that has one, before you open the same addresses there:\n\
             \n      ssh{forwards} THIS-MACHINE\n\n",
            self.dashboard(),
            kill.unwrap_or_default(),
        )
    }

    fn dashboard(&self) -> String {
        let (aggregator, read_key) = self.api.credentials();
        format!("{aggregator}/#key={read_key}")
    }
}
