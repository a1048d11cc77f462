//! Whatever dies on the way, and whenever: every acknowledged event is counted once, none twice.

#![cfg(test)]

use std::time::Duration;

use catchment_cells::ClientId;
use catchment_harness::figures::Figures;
use catchment_harness::{Builder, Cluster, Exact, Fault, Line, Outcome, Random, Result, Sender, Trace, paths};
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

/// A cluster, and every event that was sent to it.
struct Scene {
    cluster: Cluster,
    trace: Trace,
    sent: Vec<Line>,
    sender: Sender,
    client: ClientId,
}

impl Scene {
    /// Starts a cluster; each replay will be every `n`th event of the bundled trace, through a backfill's key.
    async fn start(builder: Builder, every: usize, seed: u64) -> Scene {
        let trace = Trace::open(&paths::bundled_trace()).unwrap().every(every);
        Scene::of(builder, trace, true, seed).await
    }

    /// The same with the trace shifted so that it ends now, through a live key.
    async fn start_live(builder: Builder, every: usize, seed: u64) -> Scene {
        let trace = Trace::open(&paths::bundled_trace()).unwrap().every(every);
        let trace = trace.ending_at(Timestamp::now().as_millisecond()).unwrap();
        Scene::of(builder, trace, false, seed).await
    }

    async fn of(builder: Builder, trace: Trace, backfill: bool, seed: u64) -> Scene {
        println!("CATCHMENT_SEED={seed}");
        let cluster = builder.start().await.unwrap();
        let client = ClientId::new("nasa").unwrap();
        let key = cluster.trace_key(&client, backfill);
        let sender = Sender {
            connections: 4,
            batch_events: (1, 40),
            recut: true,
            timeout: Duration::from_secs(5),
            seed,
            ..Sender::new(cluster.edge_url().into(), key)
        };
        Scene { cluster, trace, sent: Vec::new(), sender, client }
    }

    /// Begins to send the trace's events under other ids.
    fn replay(&mut self, suffix: &str) -> JoinHandle<Result<Outcome>> {
        let trace = self.trace.renamed(suffix);
        self.sent.extend_from_slice(&trace.lines);
        let sender = self.sender.clone();
        tokio::spawn(async move { sender.replay(&trace).await })
    }

    /// Waits for a replay, and until all that was sent so far is counted.
    async fn settle(&mut self, replay: JoinHandle<Result<Outcome>>) -> Outcome {
        let outcome = replay.await.unwrap().unwrap();
        assert_eq!(outcome.rejected, []);
        let exact = Exact::of(&self.sent);
        let api = self.cluster.api(&self.client);
        api.reaches("events", exact.span().unwrap(), exact.events, PATIENCE).await.unwrap();
        outcome
    }

    /// Every figure is as if nothing had happened, and the edge still knows every event.
    async fn check(&mut self) {
        let exact = Exact::of(&self.sent);
        let span = exact.span().unwrap();
        let api = self.cluster.api(&self.client);
        api.reaches("events", span, exact.events, PATIENCE).await.unwrap();
        let again = Sender { batch_events: (300, 600), ..self.sender.clone() };
        let outcome = again.replay(&Trace { lines: self.sent.clone() }).await.unwrap();
        assert_eq!((outcome.accepted, outcome.duplicates), (0, exact.events));
        let figures = Figures::ask(&api, span, Some("bytes")).await.unwrap();
        assert_eq!(figures.differences(&exact), [""; 0]);
    }

    fn processes(&mut self) -> u64 {
        self.cluster.processes().count() as u64
    }

    /// Kills a process, if it lives.
    fn kill(&mut self, i: u64) -> bool {
        let process = self.cluster.processes().nth(i as usize).unwrap();
        let lived = process.is_running();
        process.kill();
        lived
    }

    /// Kills one process, now and then two, at random instants of replays; returns once so many died.
    async fn storm(&mut self, kills: u64, random: &mut Random) {
        let n = self.processes();
        let mut killed = 0;
        let mut round = 0;
        while killed < kills {
            round += 1;
            let replay = self.replay(&format!("-{round}"));
            while killed < kills && !replay.is_finished() {
                sleep(Duration::from_millis(random.between(20, 500))).await;
                for _ in 0..if random.between(0, 5) == 0 { 2 } else { 1 } {
                    killed += u64::from(self.kill(random.between(0, n)));
                    sleep(Duration::from_millis(random.between(0, 150))).await;
                }
                for process in self.cluster.processes() {
                    if !process.is_running() {
                        process.start().await.unwrap();
                    }
                }
            }
            let outcome = replay.await.unwrap().unwrap();
            assert_eq!(outcome.rejected, []);
        }
        println!("{killed} kills during {round} replays of {} events", self.trace.lines.len());
    }
}

/// How often something is killed in all: `CATCHMENT_KILLS`, or a few.
fn kills() -> u64 {
    std::env::var("CATCHMENT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_instants_lose_and_repeat_nothing() {
    let seed = Random::seed();
    let mut scene = Scene::start(Cluster::builder().flush_s(2), 10, seed).await;
    scene.storm(kills() / 3, &mut Random::new(seed)).await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_a_live_key_lose_and_repeat_nothing() {
    let seed = Random::seed();
    let mut scene = Scene::start_live(Cluster::builder().flush_s(2), 10, seed).await;
    scene.storm(kills() / 3, &mut Random::new(seed)).await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_two_regions_and_at_central_lose_and_repeat_nothing() {
    let seed = Random::seed();
    let mut scene = Scene::start(Cluster::builder().regions(2).central(true).flush_s(2), 10, seed).await;
    scene.storm(kills() - kills() / 3 * 2, &mut Random::new(seed)).await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_gone_for_a_while_is_counted_at_central() {
    let mut scene = Scene::start(Cluster::builder().regions(2).central(true), 5, Random::seed()).await;
    let replay = scene.replay("-away");
    sleep(Duration::from_millis(300)).await;
    let gone = &mut scene.cluster.regions[0];
    gone.relay.kill();
    gone.aggregator.kill();
    // The edge takes all events, and keeps those of the region that is gone.
    let outcome = replay.await.unwrap().unwrap();
    assert_eq!(outcome.accepted + outcome.duplicates, scene.trace.lines.len() as u64);
    sleep(Duration::from_secs(5)).await;
    let exact = Exact::of(&scene.sent);
    let counted = scene.cluster.api(&scene.client).count("events", exact.span().unwrap()).await.unwrap();
    assert!(counted < exact.events, "half of the users' region is gone, but all is counted");
    let back = &mut scene.cluster.regions[0];
    back.aggregator.start().await.unwrap();
    back.relay.start().await.unwrap();
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_to_stop_ends_well_and_loses_nothing() {
    let mut scene = Scene::start(Cluster::builder().central(true), 10, Random::seed()).await;
    let replay = scene.replay("-stopped");
    for _ in 0..2 {
        sleep(Duration::from_millis(300)).await;
        let region = &mut scene.cluster.regions[0];
        for process in [&mut region.relay, &mut region.aggregator].into_iter().chain(&mut scene.cluster.central) {
            let status = process.terminate(Duration::from_secs(30)).await.unwrap();
            assert!(status.success(), "{} ended with {status}", process.name());
            process.start().await.unwrap();
        }
    }
    scene.settle(replay).await;
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_between_two_steps_of_the_edge_lose_and_repeat_nothing() {
    let mut scene = Scene::start(Cluster::builder().proxies(), 100, Random::seed()).await;
    // Before the log has the events; between log and 202; between cut and relay; between the aggregator's store and the shard's mark.
    for (before, fault) in [
        ("edge", Fault::WithholdRequests),
        ("edge", Fault::WithholdAnswers),
        ("relay", Fault::WithholdRequests),
        ("relay", Fault::WithholdAnswers),
    ] {
        for victim in 0..scene.processes() {
            println!("{fault:?} before the {before}, kill {victim}");
            let proxy = |cluster: &Cluster, fault| match before {
                "edge" => cluster.before_edge.as_ref().unwrap().set(fault),
                _ => cluster.regions[0].before_relay.as_ref().unwrap().set(fault),
            };
            proxy(&scene.cluster, fault);
            let replay = scene.replay(&format!("-{before}-{fault:?}-{victim}"));
            let watched = match before {
                "edge" => scene.cluster.before_edge.as_ref().unwrap(),
                _ => scene.cluster.regions[0].before_relay.as_ref().unwrap(),
            };
            watched.withheld(Duration::from_secs(20)).await.unwrap();
            scene.kill(victim);
            proxy(&scene.cluster, Fault::None);
            scene.cluster.processes().nth(victim as usize).unwrap().start().await.unwrap();
            let outcome = scene.settle(replay).await;
            if (before, fault) == ("edge", Fault::WithholdAnswers) {
                assert!(outcome.duplicates > 0, "a 202 was withheld, so its events were in the log");
            }
        }
    }
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_between_two_steps_of_the_aggregator_lose_and_repeat_nothing() {
    let mut scene = Scene::start(Cluster::builder().central(true).flush_s(1), 100, Random::seed()).await;
    // Who is looked at in the region, too, is cut for at once, also after its aggregator has come back; and what a question finds in
    // several runs is folded.
    let region = scene.cluster.api_at(&scene.cluster.regions[0].aggregator_url, &scene.client);
    let span = Exact::of(&scene.trace.lines).span().unwrap();
    let looking = tokio::spawn(async move {
        loop {
            // It may be down.
            let _ = region.count("events", span).await;
            sleep(Duration::from_millis(250)).await;
        }
    });
    for point in [
        "ingest.before_commit",
        "ingest.after_commit",
        "ingest.after_merge",
        "flush.before_commit",
        "flush.after_commit",
        "fold.before_commit",
        "fold.after_commit",
        "truncate.after",
        "forward.before_send",
        "forward.after_ack",
        "forward.after_cursor",
    ] {
        println!("crash at {point}");
        let aggregator = &mut scene.cluster.regions[0].aggregator;
        aggregator.env("CATCHMENT_CRASH_POINT", Some(point));
        aggregator.restart().await.unwrap();
        let mut replays = vec![scene.replay(&format!("-{point}"))];
        // A fold needs several flushes before it has something to do. Who is asked for is cut for sooner.
        let mut died = None;
        for i in 0..30 {
            if let Ok(status) = scene.cluster.regions[0].aggregator.wait(Duration::from_secs(1)).await {
                died = Some(status);
                break;
            }
            replays.push(scene.replay(&format!("-{point}-{i}")));
            scene.cluster.api(&scene.client).count("events", (0, DAY_MS)).await.unwrap();
        }
        assert!(died.is_some_and(|status| !status.success()), "{point} is not passed");
        let aggregator = &mut scene.cluster.regions[0].aggregator;
        aggregator.env("CATCHMENT_CRASH_POINT", None);
        aggregator.start().await.unwrap();
        for replay in replays {
            scene.settle(replay).await;
        }
    }
    looking.abort();
    scene.check().await;
}
