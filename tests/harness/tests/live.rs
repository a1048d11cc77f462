//! Through live keys: lateness is judged, and every event has a counter that says what became of it.

#![cfg(test)]

use std::time::Duration;

use catchment_cells::ClientId;
use catchment_harness::figures::Figures;
use catchment_harness::{Cluster, Event, Exact, Random, Sender, Trace, paths};
use jiff::Timestamp;

const PATIENCE: Duration = Duration::from_secs(30);
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// What is received more than two minutes after its minute is late.
const LATE_MS: i64 = 2 * MINUTE_MS;

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Events whose minute ended more than two minutes before `now`.
fn late(trace: &Trace, now: i64) -> u64 {
    let minute_end = |event: Event| (event.time_ms.div_euclid(MINUTE_MS) + 1) * MINUTE_MS;
    let events = trace.lines.iter().filter_map(|line| Event::read(&line.text));
    events.filter(|event| now - minute_end(event.clone()) > LATE_MS).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_of_today_is_counted_with_what_became_of_each_event() {
    let bundled = Trace::open(&paths::bundled_trace()).unwrap();
    let cluster = Cluster::builder().start().await.unwrap();
    let client = ClientId::new("live").unwrap();
    let key = cluster.trace_key(&client, false);
    let seed = Random::seed();
    println!("CATCHMENT_SEED={seed}");
    let sender = Sender { seed, batch_events: (20, 400), ..Sender::new(cluster.edge_url().into(), key) };

    let began = now_ms();
    let today = bundled.ending_at(began).unwrap();
    let outcome = sender.replay(&today.clone().shuffled(&mut Random::new(seed))).await.unwrap();
    let ended = now_ms();
    let exact = Exact::of(&today.lines);
    assert_eq!((outcome.accepted, outcome.duplicates, outcome.rejected.len()), (exact.events, 0, 0));
    let span = exact.span().unwrap();
    let api = cluster.api(&client);
    api.reaches("events", span, exact.events, PATIENCE).await.unwrap();
    let figures = Figures::ask(&api, span, Some("bytes")).await.unwrap();
    assert_eq!(figures.differences(&exact), [""; 0]);

    // Some again; then from the day before yesterday, and from tomorrow.
    let again = today.every(10);
    let outcome = sender.replay(&again).await.unwrap();
    assert_eq!((outcome.accepted, outcome.duplicates), (0, again.lines.len() as u64));
    let few = bundled.every(100);
    for (suffix, last_ms, reason) in
        [("-old", began - 25 * HOUR_MS, "too_late"), ("-new", began + 24 * HOUR_MS, "future")]
    {
        let shifted = few.renamed(suffix).ending_at(last_ms).unwrap();
        let outcome = sender.replay(&shifted).await.unwrap();
        let refused: Vec<&str> = outcome.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
        assert_eq!((outcome.accepted, refused), (0, vec![reason; few.lines.len()]));
    }

    // Minutes of receipt.
    let received = (began - HOUR_MS - began.rem_euclid(HOUR_MS), began + 2 * HOUR_MS - began.rem_euclid(HOUR_MS));
    let few = few.lines.len() as u64;
    for (reason, expected) in
        [("accepted", exact.events), ("duplicate", again.lines.len() as u64), ("too_late", few), ("future", few)]
    {
        api.reaches(&format!("received:{reason}"), received, expected, PATIENCE).await.unwrap();
    }
    let counted = api.count("received:late", received).await.unwrap();
    let (least, most) = (late(&today, began), late(&today, ended));
    assert!((least..=most).contains(&counted), "{counted} late events, not {least} to {most}");
    assert_eq!(api.count("events", span).await.unwrap(), exact.events);
}
