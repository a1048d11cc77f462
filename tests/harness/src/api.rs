//! Questions to an aggregator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use catchment_cells::merged;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};

use crate::{Failure, Result};

/// How often a count that is waited for is asked.
const POLL: Duration = Duration::from_millis(50);

/// Who is asked, with a client's read key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    key: String,
}

/// `GET /api/v1/metrics`.
#[derive(Debug, Clone)]
pub struct Question(Vec<(&'static str, String)>);

/// What it answers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answer {
    /// By time, then as the question orders groups.
    pub results: Vec<Row>,
    /// Where it came from.
    pub meta: serde_json::Value,
}

/// One bucket, or one group of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Row {
    /// The bucket's start.
    #[serde(deserialize_with = "time")]
    pub time: Timestamp,
    /// The dimension's value; those of several, with U+0001 between them.
    #[serde(default, deserialize_with = "group")]
    pub group: Option<String>,
    /// Metric → value; null where there is nothing to tell.
    pub values: BTreeMap<String, Option<Value>>,
}

/// A value with its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Value {
    /// The best guess.
    pub value: f64,
    /// No less, with the answer's confidence.
    pub lower: f64,
    /// No more.
    pub upper: f64,
    /// Whether it is no guess.
    pub exact: bool,
}

impl Question {
    /// Asks for metrics of the half-open span from `start_ms` to `end_ms`.
    pub fn of(metrics: &[&str], start_ms: i64, end_ms: i64, granularity: &str) -> Question {
        let time = |ms| Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms}"), |time| time.to_string());
        let mut pairs: Vec<_> = metrics.iter().map(|metric| ("metric", metric.to_string())).collect();
        pairs.extend([("start", time(start_ms)), ("end", time(end_ms)), ("granularity", granularity.into())]);
        Question(pairs)
    }

    /// Asks for metrics from the start of a date on the client's clock to before that of another: `2024-01-31`.
    pub fn dates(metrics: &[&str], start: &str, end: &str, granularity: &str) -> Question {
        let mut pairs: Vec<_> = metrics.iter().map(|metric| ("metric", metric.to_string())).collect();
        pairs.extend([("start", start.into()), ("end", end.into()), ("granularity", granularity.into())]);
        Question(pairs)
    }

    /// Asks for metrics of the last minutes, hours or days: `30m`.
    pub fn last(metrics: &[&str], last: &str, granularity: &str) -> Question {
        let mut pairs: Vec<_> = metrics.iter().map(|metric| ("metric", metric.to_string())).collect();
        pairs.extend([("last", last.into()), ("granularity", granularity.into())]);
        Question(pairs)
    }

    /// As it stands in a URL: `a=b&c=d`, percent-encoded.
    pub fn text(&self) -> String {
        query(&self.0)
    }

    /// Adds a parameter.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Question {
        self.0.push((name, value.to_string()));
        self
    }
}

impl Row {
    /// A metric's value.
    pub fn get(&self, metric: &str) -> Option<Value> {
        self.values.get(metric).copied().flatten()
    }

    /// A metric's value as a count; 0 where there is none.
    pub fn count(&self, metric: &str) -> u64 {
        self.get(metric).map_or(0, |value| value.value.round() as u64)
    }
}

impl Api {
    /// Will ask at an URL with a read key.
    pub fn new(url: String, key: String) -> Api {
        Api { http: reqwest::Client::new(), url, key }
    }

    /// Asks; an error says status and body.
    pub async fn ask(&self, question: &Question) -> Result<Answer> {
        let (status, body) = self.raw(question).await?;
        if status != 200 {
            return Err(Failure(format!("the aggregator answers {status}: {body}")));
        }
        serde_json::from_str(&body).map_err(Failure::at("reading an answer"))
    }

    /// Asks, and hands out status and body as they are.
    pub async fn raw(&self, question: &Question) -> Result<(u16, String)> {
        let answer = self.send(self.http.get(self.metrics(question))).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(Failure::at("asking the aggregator"))?))
    }

    /// Asks for the cells that answer: their bytes.
    pub async fn cells(&self, question: &Question) -> Result<bytes::Bytes> {
        let request = self.http.get(self.metrics(question)).header("accept", merged::MEDIA_TYPE);
        let answer = self.send(request).await?;
        let (status, of) = (answer.status().as_u16(), answer.headers().get("content-type").cloned());
        let body = answer.bytes().await.map_err(Failure::at("asking the aggregator"))?;
        if status != 200 || of.is_none_or(|of| of != merged::MEDIA_TYPE) {
            return Err(Failure(format!("the aggregator answers {status}: {}", String::from_utf8_lossy(&body))));
        }
        Ok(body)
    }

    /// Asks several questions at once: `{"questions":[…]}`.
    pub async fn several(&self, questions: &serde_json::Value) -> Result<serde_json::Value> {
        let answer = self.send(self.http.post(format!("{}/api/v1/metrics", self.url)).json(questions)).await?;
        let status = answer.status();
        let body = answer.text().await.map_err(Failure::at("asking the aggregator"))?;
        if !status.is_success() {
            return Err(Failure(format!("the aggregator answers {status}: {body}")));
        }
        serde_json::from_str(&body).map_err(Failure::at("reading answers"))
    }

    fn metrics(&self, question: &Question) -> String {
        format!("{}/api/v1/metrics?{}", self.url, question.text())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let request = request.bearer_auth(&self.key).timeout(Duration::from_secs(30));
        request.send().await.map_err(Failure::at("asking the aggregator"))
    }

    /// A metric that is a count, over a span.
    pub async fn count(&self, metric: &str, (start_ms, end_ms): (i64, i64)) -> Result<u64> {
        let answer = self.ask(&Question::of(&[metric], start_ms, end_ms, "all")).await?;
        Ok(answer.results.first().map_or(0, |row| row.count(metric)))
    }

    /// Asks until a count is what it should be; gives up once it is more, or has not moved for a while.
    pub async fn reaches(&self, metric: &str, span: (i64, i64), expected: u64, patience: Duration) -> Result<()> {
        let mut last = Ok(0);
        let mut moved = Instant::now();
        loop {
            let now = self.count(metric, span).await;
            match &now {
                Ok(count) if *count == expected => return Ok(()),
                Ok(count) if *count > expected => {
                    return Err(Failure(format!("{metric} is {count}, more than {expected}")));
                }
                // Whoever is asked may be down for a while.
                Err(_) => {}
                Ok(count) => {
                    if last.as_ref().ok() != Some(count) {
                        moved = Instant::now();
                    }
                }
            }
            if moved.elapsed() > patience {
                return Err(Failure(format!("{metric} is not {expected} but {now:?} for {patience:?}")));
            }
            last = now;
            tokio::time::sleep(POLL).await;
        }
    }

    /// The URL and the key, for a person to try.
    pub fn credentials(&self) -> (&str, &str) {
        (&self.url, &self.key)
    }
}

/// `a=b&c=d`, percent-encoded.
fn query(pairs: &[(&str, String)]) -> String {
    let encode = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

fn group<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Group {
        One(String),
        Several(Vec<String>),
    }
    let group = Option::<Group>::deserialize(deserializer)?;
    Ok(group.map(|group| match group {
        Group::One(value) => value,
        Group::Several(values) => values.join("\u{1}"),
    }))
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}
