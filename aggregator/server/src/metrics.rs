//! What Prometheus may know.

use std::convert::Infallible;
use std::time::Duration;

use catchment_cells::ack::Status;
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use catchment_aggregator_core::LogRow;

/// Bounds of the histograms' buckets, in seconds.
const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts to record; the handle renders what was.
pub(crate) fn install() -> Result<PrometheusHandle, String> {
    PrometheusBuilder::new()
        .set_buckets(SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| error.to_string())
}

/// Sums up what was observed, so that it doesn't grow where nobody asks for it.
pub(crate) async fn upkeep(handle: PrometheusHandle) -> Infallible {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

/// A frame was answered.
pub(crate) fn count_frame(status: Status) {
    counter!("catchment_frames_total", "status" => status.as_str()).increment(1);
}

/// Rows were committed.
pub(crate) fn observe_commit(took: Duration, rows: &[LogRow]) {
    histogram!("catchment_commit_seconds").record(took);
    counter!("catchment_frame_bytes_total").increment(rows.iter().map(|row| row.frame.len() as u64).sum());
}

/// A flush was committed.
pub(crate) fn observe_flush(took: Duration) {
    histogram!("catchment_flush_seconds").record(took);
}

/// A fold removed rows.
pub(crate) fn count_folded(rows: usize) {
    counter!("catchment_folded_rows_total").increment(rows as u64);
}

/// So many clients' configs can't be read.
pub(crate) fn set_unreadable_configs(configs: usize) {
    gauge!("catchment_unreadable_configs").set(configs as f64);
}

/// A flush folded values into `(other)`.
pub(crate) fn count_values_folded(values: usize) {
    counter!("catchment_values_folded_total").increment(values as u64);
}

/// How much is kept, of what questions have read among it.
pub(crate) fn set_bytes(memtable: usize, log: u64, read: usize) {
    gauge!("catchment_memtable_bytes").set(memtable as f64);
    gauge!("catchment_log_bytes").set(log as f64);
    gauge!("catchment_kept_bytes").set(read as f64);
}

/// A question was answered, well or not.
pub(crate) fn observe_question(status: u16, took: Duration) {
    histogram!("catchment_question_seconds").record(took);
    counter!("catchment_questions_total", "status" => status.to_string()).increment(1);
}

/// Central took frames, or refused them.
pub(crate) fn count_forwarded(status: &'static str, frames: usize) {
    counter!("catchment_forwarded_frames_total", "status" => status).increment(frames as u64);
}

/// How long the oldest frame that central hasn't got has waited, in ms.
pub(crate) fn set_forward_lag(lag_ms: i64) {
    gauge!("catchment_forward_lag_seconds").set(lag_ms.max(0) as f64 / 1e3);
}

/// Frames that central refused for good.
pub(crate) fn set_parked(frames: u64, bytes: u64) {
    gauge!("catchment_parked_frames").set(frames as f64);
    gauge!("catchment_parked_bytes").set(bytes as f64);
}

/// So many live views are open, with so many readers in all.
pub(crate) fn set_live(views: usize, readers: usize) {
    gauge!("catchment_live_views").set(views as f64);
    gauge!("catchment_live_readers").set(readers as f64);
}

/// Bytes went to a reader of live views.
pub(crate) fn count_live_bytes(bytes: usize) {
    counter!("catchment_live_sent_bytes_total").increment(bytes as u64);
}
