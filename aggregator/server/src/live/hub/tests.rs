use catchment_aggregator_core::Question;
use catchment_aggregator_core::answer::Row;
use catchment_cells::frame::CellsBlock;
use catchment_cells::key::Tier;
use catchment_cells::live::{self, Message, Mirror};
use jiff::tz::TimeZone;
use tokio::sync::{Notify, oneshot};

use super::super::feed::CELLS_MAX;
use super::*;
use crate::tests::kit::{Aggregator, DAY, Folder, Shard, client, event};

const QUESTION: &str = "metric=events&metric=users&group_by=page&start=2024-01-01&end=2024-01-02";

/// A hub over cells, stepped by hand.
struct Kit {
    _folder: Folder,
    aggregator: Aggregator,
    shard: Shard,
    hub: Hub,
    minute: i64,
}

/// One reader's view.
struct Follower {
    shared: Arc<Shared>,
    mirror: Mirror,
}

impl Kit {
    fn new() -> Kit {
        let folder = Folder::new();
        let (aggregator, events) = Aggregator::with_feed(&folder);
        let watched = aggregator.watched.clone();
        let hub = Hub::new(aggregator.cells.clone(), aggregator.feed.clone(), watched, events, Handle::current());
        Kit { _folder: folder, aggregator, shard: Shard::new(1), hub, minute: DAY }
    }

    /// A frame of events of one client, on pages and of users that no earlier one had.
    fn send(&mut self, name: &str, events: usize) {
        let mut block = CellsBlock::default();
        for n in 0..events {
            self.minute += 1;
            event(&mut block, &client(name), DAY + self.minute % 1_440, &format!("/{}", n % 5), self.minute as u64, 1);
        }
        let frame = self.shard.cut(block);
        self.aggregator.send(frame);
    }

    fn subscribe(&mut self, name: &str, question: &str, sets: bool) -> Result<Follower, LiveError> {
        let pairs = question.split('&').map(|pair| pair.split_once('=').unwrap());
        let plan = Plan::new(Question::parse(pairs, now_ms(), &TimeZone::UTC).unwrap(), &[], &TimeZone::UTC).unwrap();
        let metrics = plan.question.metrics.iter().map(|metric| metric.name.clone()).collect();
        let asked = Asked { client: client(name), question: question.into(), sets };
        let reader = Reader { id: 1, news: Arc::new(Notify::new()) };
        let (reply, mut answer) = oneshot::channel();
        self.hub.handle(Event::Subscribe { asked, plan: Box::new(plan), reader, reply }, now_ms());
        let shared = answer.try_recv().unwrap()?;
        let view = live::View { subscription: 1, view: shared.view, metrics, cube: "page".into(), tier: Tier::Minute };
        Ok(Follower { shared, mirror: Mirror::new(&view).unwrap() })
    }

    /// Steps until nothing happens for a while.
    fn settle(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(600);
        while Instant::now() < deadline {
            assert!(self.hub.step(Some(Duration::from_millis(20))));
        }
    }

    /// What the follower knows after it was told all.
    fn rows(&mut self, follower: &mut Follower) -> Vec<Row> {
        match follower.shared.latest() {
            Latest::Update { from, message, .. } if from == follower.mirror.version() => follower.apply(&message),
            Latest::Update { to, .. } if to == follower.mirror.version() => {}
            _ => {
                let (_, message) = self.hub.since(follower.shared.view, follower.mirror.version()).unwrap();
                follower.apply(&message);
            }
        }
        follower.mirror.rows().into_iter().map(Row::from).collect()
    }
}

impl Follower {
    fn apply(&mut self, message: &[u8]) {
        let Message::Update(update) = Message::decode(message).unwrap() else { panic!("no update") };
        self.mirror.apply(update).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_is_in_a_view_once_whenever_it_comes() {
    let mut kit = Kit::new();
    kit.send("a", 7);
    let mut sets = kit.subscribe("a", QUESTION, true).unwrap();
    let mut estimates = kit.subscribe("a", QUESTION, false).unwrap();
    assert_ne!(sets.shared.view, estimates.shared.view);
    // Between the question to the store and its answer, before and after the first publication, and beside another's.
    for round in 0..12 {
        kit.send("a", 3);
        kit.send("b", 3);
        if round % 3 > 0 {
            kit.hub.step(Some(Duration::from_millis(5 * round)));
        }
    }
    kit.settle();
    let expected = kit.aggregator.ask(&client("a"), QUESTION);
    assert_eq!(expected.iter().map(|row| row.figures[0].unwrap().value).sum::<f64>(), 43.0);
    assert_eq!(kit.rows(&mut sets), expected);
    assert_eq!(kit.rows(&mut estimates), expected);
    kit.send("a", 1);
    kit.settle();
    let expected = kit.aggregator.ask(&client("a"), QUESTION);
    assert_eq!(kit.rows(&mut sets), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_had_no_room_for_is_asked_of_the_store() {
    let mut kit = Kit::new();
    let mut follower = kit.subscribe("a", QUESTION, false).unwrap();
    kit.settle();
    // Nobody takes them from the queue: some are left out. One frame has 4 cells an event, and more.
    for _ in 0..60 {
        kit.send("a", 1_200);
    }
    assert!(kit.hub.feed.waiting() >= CELLS_MAX);
    kit.settle();
    kit.settle();
    let expected = kit.aggregator.ask(&client("a"), QUESTION);
    assert_eq!(kit.rows(&mut follower), expected);
    assert_eq!(kit.hub.feed.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_so_many_views_and_those_without_readers_end() {
    let mut kit = Kit::new();
    let question = |n: usize| format!("metric=events&limit={}&last=1d", n + 1);
    let first = kit.subscribe("a", &question(0), false).unwrap();
    let again = kit.subscribe("a", &question(0), false).unwrap();
    assert_eq!(first.shared.view, again.shared.view, "readers of one question share a view");
    for n in 1..CLIENT_VIEWS_MAX {
        kit.subscribe("a", &question(n), false).unwrap();
    }
    let refused = kit.subscribe("a", &question(CLIENT_VIEWS_MAX), false).map(|_| ()).unwrap_err();
    assert!(matches!(refused, LiveError::Busy));
    kit.subscribe("b", &question(0), false).unwrap();
    kit.settle();
    assert!(kit.aggregator.watched.lock().unwrap().is_watched(&client("b"), now_ms()));
    for view in kit.hub.slots.keys().copied().collect::<Vec<_>>() {
        kit.hub.handle(Event::Unsubscribe { view, reader: 1 }, now_ms());
    }
    kit.hub.look(now_ms() + KEEP_MS - 1_000);
    assert_eq!(kit.hub.slots.len(), CLIENT_VIEWS_MAX + 1, "kept for those that come back");
    kit.hub.look(now_ms() + KEEP_MS + 1);
    assert!(kit.hub.slots.is_empty() && kit.hub.by_question.is_empty() && kit.hub.by_client.is_empty());
    assert_eq!((kit.hub.bytes, kit.hub.due.len(), kit.hub.answering), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_cursors_cost_nothing() {
    let mut kit = Kit::new();
    kit.send("a", 7);
    let follower = kit.subscribe("a", QUESTION, false).unwrap();
    kit.settle();
    let view = follower.shared.view;
    let snapshot = kit.hub.since(view, 0).unwrap();
    for version in 2..200 {
        assert_eq!(kit.hub.since(view, version), Some(snapshot.clone()));
    }
    assert_eq!(kit.hub.slots[&view].since.len(), 1);
}
