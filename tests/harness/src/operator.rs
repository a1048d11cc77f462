//! Whoever sets clients' configs.

use std::time::Duration;

use catchment_cells::ClientId;
use serde_json::Value;

use crate::{Failure, Result};

/// An operator, with the deployment's key.
#[derive(Debug, Clone)]
pub struct Operator {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Operator {
    /// Will ask at an URL with an operator's key.
    pub fn new(url: String, key: String) -> Operator {
        Operator { http: reqwest::Client::new(), url, key }
    }

    /// Another key.
    pub fn with_key(mut self, key: &str) -> Operator {
        self.key = key.into();
        self
    }

    /// Sets a client's config, and answers its version.
    pub async fn set(&self, client: &ClientId, config: &Value) -> Result<u64> {
        let (status, body) = self.put(client, config, None).await?;
        let version = if status == 200 { body["version"].as_u64() } else { None };
        version.ok_or_else(|| Failure(format!("the aggregator answers {status}: {body}")))
    }

    /// Sets a client's config if it has a version, and hands out status and body as they are.
    pub async fn put(&self, client: &ClientId, config: &Value, if_match: Option<&str>) -> Result<(u16, Value)> {
        let mut request = self.http.put(self.address(client)).json(config);
        if let Some(tag) = if_match {
            request = request.header("if-match", tag);
        }
        self.send(request).await
    }

    /// A client's config.
    pub async fn get(&self, client: &ClientId) -> Result<(u16, Value)> {
        self.send(self.http.get(self.address(client))).await
    }

    /// What shards of a client saw that its schemas don't know.
    pub async fn schema_changes(&self, client: &ClientId) -> Result<(u16, Value)> {
        self.send(self.http.get(format!("{}/api/v1/clients/{client}/schema-changes", self.url))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(u16, Value)> {
        let asking = async {
            let answer = request.bearer_auth(&self.key).timeout(Duration::from_secs(30)).send().await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.json().await?))
        };
        asking.await.map_err(Failure::at("asking as an operator"))
    }

    fn address(&self, client: &ClientId) -> String {
        format!("{}/api/v1/clients/{client}/config", self.url)
    }
}
