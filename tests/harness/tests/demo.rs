//! What `cargo xtask demo` runs, as a stranger does: a file of any quality in, one object out.

#![cfg(test)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use catchment_harness::{Api, Exact, Trace, paths};
use jiff::Timestamp;
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

const PATIENCE: Duration = Duration::from_secs(60);

/// The demo as it runs for a visitor; asked to end when dropped.
struct Demo(Child);

impl Demo {
    fn start() -> Demo {
        let mut demo = Command::new(paths::program("demo").unwrap());
        demo.args(["--json", "--speed", "60"]).stdout(Stdio::piped()).stderr(Stdio::null());
        Demo(demo.spawn().unwrap())
    }

    /// The processes that it has started, from whichever of its threads.
    fn children(&self) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let of = |task: PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
        let children: Vec<String> = tasks.map(|task| of(task.unwrap().path())).collect();
        children.iter().flat_map(|list| list.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
    }

    /// Where its cluster is, while there is one.
    fn folder(&self) -> Option<PathBuf> {
        let prefix = format!("catchment-{}-", self.0.id());
        let mut entries = fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().path());
        entries.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix))
    }

    /// Ends by a signal: with 0, and nothing stays.
    fn ends_cleanly(mut self, by: &str) {
        let children = self.children();
        assert!(!children.is_empty() && self.folder().is_some());
        signal(by, self.0.id());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.0.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the demo runs on"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!((status.code(), self.folder()), (Some(0), None));
        assert!(children.iter().all(|child| !PathBuf::from(format!("/proc/{child}")).exists()), "{children:?}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            signal("-TERM", self.0.id());
            self.0.wait().ok();
        }
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_visitor_finds_a_shop_and_a_dashboard_that_count() {
    let mut demo = Demo::start();
    let mut line = String::new();
    BufReader::new(demo.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let says: Value = serde_json::from_str(&line).unwrap();
    let text = |name: &str| says[name].as_str().unwrap().to_owned();
    let get = async |url: String| {
        let answer = reqwest::get(&url).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{url}");
        answer.text().await.unwrap()
    };
    let (edge, key) = (text("edge"), text("write_key"));
    let shop = get(text("shop")).await;
    assert!(shop.contains(&format!("{edge}/catchment.js")) && shop.contains(&key), "{shop}");
    assert!(get(format!("{edge}/catchment.js")).await.contains("v1/events"));
    assert!(text("dashboard").ends_with(&format!("/#key={}", text("read_key"))));
    assert!(get(text("dashboard")).await.contains("<script"));

    // History, traffic, and what the visitor does.
    let api = Api::new(text("aggregator"), text("read_key"));
    let now = Timestamp::now().as_millisecond();
    let (day, soon) = (86_400_000, now / 60_000 * 60_000 + 600_000);
    let history = (now / 60_000 * 60_000 - 14 * day, soon);
    let first = api.count("events", history).await.unwrap();
    assert!(first > 100_000, "{first}");
    let event = json!({"event_id": "mine", "event_type": "mine", "timestamp": now, "page": "/mine"});
    let sent = reqwest::Client::new().post(format!("{edge}/v1/events?k={key}")).json(&event).send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 202);
    api.reaches("count:mine", history, 1, PATIENCE).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while api.count("events", history).await.unwrap() < first + 20 {
        assert!(Instant::now() < deadline, "nothing is played");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // What is killed comes back, and still knows.
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let aggregator = |pid: u32| name(pid).starts_with("catchment-aggr");
    let killed = demo.children().into_iter().find(|pid| aggregator(*pid)).unwrap();
    signal("-KILL", killed);
    api.reaches("count:mine", history, 1, PATIENCE).await.unwrap();
    assert!(api.count("events", history).await.unwrap() > first);
    assert_ne!(demo.children().into_iter().find(|pid| aggregator(*pid)), Some(killed));
    demo.ends_cleanly("-INT");
}

#[test]
fn who_stops_it_on_its_way_up_leaves_nothing_behind() {
    let demo = Demo::start();
    let deadline = Instant::now() + PATIENCE;
    while demo.children().is_empty() {
        assert!(Instant::now() < deadline, "no process is started");
        std::thread::sleep(Duration::from_millis(1));
    }
    demo.ends_cleanly("-TERM");
}
