//! What the relay tells Prometheus: one function for each observation.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::StatusCode;
use catchment_cells::ack::Status;
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const POSTS: &str = "catchment_relay_posts_total";
const POST_SECONDS: &str = "catchment_relay_post_duration_seconds";
const RECEIVED_BYTES: &str = "catchment_relay_received_bytes_total";
const FRAMES: &str = "catchment_relay_frames_total";
const QUESTIONS: &str = "catchment_relay_questions_total";
const IN_FLIGHT_BYTES: &str = "catchment_relay_in_flight_bytes";

/// From a warm loopback to the longest wait.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0];
/// The recorder keeps what was observed since, until it is asked or this has passed.
const UPKEEP: Duration = Duration::from_secs(5);

/// A POST was answered.
pub(crate) fn count_post(status: StatusCode, took: Duration) {
    counter!(POSTS, "status" => status.as_u16().to_string()).increment(1);
    histogram!(POST_SECONDS).record(took.as_secs_f64());
}

/// A body was received.
pub(crate) fn count_received(bytes: usize) {
    counter!(RECEIVED_BYTES).increment(bytes as u64);
}

/// A frame was answered. A home that the config doesn't name is not a label: its name comes from outside.
pub(crate) fn count_frame(home: Option<&str>, status: Status) {
    let home = home.unwrap_or("(none)").to_owned();
    counter!(FRAMES, "home" => home, "status" => status.as_str()).increment(1);
}

/// A question about configs was answered, or not.
pub(crate) fn count_question(home: &str, answered: bool) {
    counter!(QUESTIONS, "home" => home.to_owned(), "answered" => answered.to_string()).increment(1);
}

/// Everything so far, as Prometheus reads it.
pub(crate) fn render(in_flight_bytes: usize) -> String {
    gauge!(IN_FLIGHT_BYTES).set(in_flight_bytes as f64);
    recorder().render()
}

/// Keeps the recorder small while nobody asks.
pub(crate) async fn upkeep() -> Infallible {
    loop {
        recorder().run_upkeep();
        tokio::time::sleep(UPKEEP).await;
    }
}

fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(POST_SECONDS.into()), &SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .expect("there are buckets, and this is the one place that installs a recorder, once");
        metrics::describe_counter!(POSTS, "POSTs answered, by HTTP status");
        metrics::describe_histogram!(POST_SECONDS, "from a POST's head to its answer");
        metrics::describe_counter!(RECEIVED_BYTES, "bytes of bodies received");
        metrics::describe_counter!(FRAMES, "frames answered, by home and ack status");
        metrics::describe_counter!(QUESTIONS, "questions about configs, by home and whether it answered");
        metrics::describe_gauge!(IN_FLIGHT_BYTES, "bytes of bodies in work");
        handle
    })
}
