//! What `cargo xtask demo` runs, as a stranger does: a file of any quality in, one object out.

#![cfg(test)]

use std::process::Command;

use catchment_harness::{Exact, Trace, paths};
use serde_json::{Value, json};

#[test]
fn a_file_with_mistakes_is_counted_and_its_mistakes_are_named() {
    let trace = Trace::open(&paths::bundled_trace()).unwrap().every(50);
    let exact = Exact::of(&trace.lines);
    let mut file = b"\xef\xbb\xbf{\"event_id\":\r\n\r\n".to_vec();
    for line in &trace.lines {
        file.extend_from_slice(&line.text);
        file.extend_from_slice(b"\r\n");
    }
    // A known id in other words, an event without a time, no UTF-8, and a line that no request carries.
    let repeated = r#"{"eventId":"nasa-0000000","eventType":"other","timestamp":1}"#.to_owned();
    let huge = format!(r#"{{"event_id":"huge","event_type":"t","timestamp":1,"page":"{}"}}"#, "x".repeat(1_100_000));
    for line in [&repeated, r#"{"event_id":"timeless","event_type":"t"}"#, &huge] {
        file.extend_from_slice(line.as_bytes());
        file.push(b'\n');
    }
    file.extend_from_slice(b"\xff\xff\n");
    let path = std::env::temp_dir().join(format!("catchment-demo-{}.ndjson", std::process::id()));
    std::fs::write(&path, file).unwrap();

    let mut demo = Command::new(paths::program("demo").unwrap());
    let output = demo.args(["--once", "--json", "--regions", "2", "--central"]).arg(&path).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["events"], &report["duplicates"]), (&json!(exact.events), &json!(1)));
    let rejected = json!({"malformed": 1, "missing_timestamp": 1, "not_utf8": 1, "too_large": 1});
    assert_eq!(report["rejected"], rejected);
    assert_eq!((&report["measure"], &report["differences"]), (&json!("bytes"), &json!([])));
    for (name, buckets) in
        [("per_minute", exact.per_minute.len()), ("per_hour", exact.per_hour.len()), ("per_day", exact.per_day.len())]
    {
        let rows = report[name].as_array().unwrap();
        assert_eq!(rows.len(), buckets, "{name}");
        assert!(rows.iter().all(|row| row.as_array().unwrap().len() == 5), "{name}");
    }
    for figure in ["raw_bytes", "raw_gzip_bytes", "shipped_bytes", "events_per_s"] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}");
    }
    for (object, names) in [
        ("users", &["value", "lower", "upper"][..]),
        ("quantiles", &["0.5", "0.95", "0.99"]),
        ("visible_ms", &["p50", "p99"]),
    ] {
        assert!(names.iter().all(|name| report[object][name].is_number()), "{object}: {}", report[object]);
    }
    assert_eq!(report["top_pages"].as_array().unwrap().len(), 10);
}
