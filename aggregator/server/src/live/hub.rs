//! The hub: owns all views, adds news to them, and publishes what changed, each view at its own pace.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use catchment_aggregator_core::limits::{UPDATE_PAUSE_MS_MAX, VIEW_BYTES_MAX};
use catchment_aggregator_core::{Answer, Plan, View, Watched};
use catchment_cells::ClientId;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::feed::{EventsReceiver, News};
use super::{Event, Feed, Latest, LiveError, Reader, Shared};
use crate::cells::{Answered, Cells};
use crate::clock::now_ms;
use crate::metrics;
use crate::store::StoreError;

/// Views that may be open at a time, of all clients and of one.
const VIEWS_MAX: usize = 20_000;
const CLIENT_VIEWS_MAX: usize = 500;
/// How long a view is kept without readers, in ms: for those that come back.
const KEEP_MS: i64 = 30_000;
/// How often clients are marked as watched, in ms.
const WATCH_MS: i64 = 2_000;
/// Views that are answered from the store at a time, and how long one may take.
const ANSWERS_MAX: usize = 2;
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// News that wait for a view's answer; beyond, it is asked for again.
const PENDING_MAX: usize = 4_096;
/// Events that are handled between two publications.
const EVENTS_MAX: usize = 1_024;

/// The hub.
pub(crate) struct Hub {
    cells: Arc<Cells>,
    feed: Arc<Feed>,
    watched: Arc<Mutex<Watched>>,
    events: Receiver<Event>,
    /// Where views are answered.
    runtime: Handle,
    turns: Arc<Semaphore>,
    slots: HashMap<u64, Slot>,
    by_question: HashMap<(ClientId, String), u64>,
    by_client: HashMap<ClientId, Vec<u64>>,
    /// When which view wants to be looked at, in ms.
    due: BTreeSet<(i64, u64)>,
    next_view: u64,
    watched_at: i64,
}

/// A view's place.
struct Slot {
    client: ClientId,
    question: String,
    plan: Plan,
    /// `None` until it is answered for the first time.
    view: Option<View>,
    shared: Arc<Shared>,
    readers: HashMap<u64, Reader>,
    idle_since: i64,
    /// News that came since the store was asked, where it is being asked.
    pending: Option<Vec<Arc<News>>>,
    /// It is to be asked once more.
    again: bool,
    /// What was said to those who missed updates, by their version, at the present one.
    since: HashMap<u64, Bytes>,
    due: Option<i64>,
}

impl Hub {
    /// A hub of no views.
    pub(crate) fn new(
        cells: Arc<Cells>,
        feed: Arc<Feed>,
        watched: Arc<Mutex<Watched>>,
        events: EventsReceiver,
        runtime: Handle,
    ) -> Hub {
        Hub {
            cells,
            feed,
            watched,
            events: events.0,
            runtime,
            turns: Arc::new(Semaphore::new(ANSWERS_MAX)),
            slots: HashMap::new(),
            by_question: HashMap::new(),
            by_client: HashMap::new(),
            due: BTreeSet::new(),
            // Numbers of another life of this process mean nothing to this one.
            next_view: RandomState::new().build_hasher().finish(),
            watched_at: 0,
        }
    }

    /// Runs until it is told to stop. Blocks: run it on a thread of its own.
    pub(crate) fn run(mut self) -> Result<(), StoreError> {
        loop {
            let first = match self.pause(now_ms()) {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(pause) => self.events.recv_timeout(pause),
            };
            let mut next = match first {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for _ in 0..EVENTS_MAX {
                match next {
                    None => break,
                    Some(Event::Stop) => return Ok(()),
                    Some(event) => self.handle(event, now_ms()),
                }
                next = self.events.try_recv().ok();
            }
            if let Some(event) = next {
                if matches!(event, Event::Stop) {
                    return Ok(());
                }
                self.handle(event, now_ms());
            }
            if self.feed.was_overrun() {
                self.slots.keys().copied().collect::<Vec<_>>().into_iter().for_each(|view| self.ask(view));
            }
            self.look(now_ms());
        }
    }

    /// How long there is nothing to do by itself; `None`: until something happens.
    fn pause(&self, now: i64) -> Option<Duration> {
        let (due, _) = self.due.first()?;
        let wait = (*due).min(self.watched_at + WATCH_MS) - now;
        Some(Duration::from_millis(wait.clamp(0, WATCH_MS) as u64))
    }

    fn handle(&mut self, event: Event, now: i64) {
        match event {
            Event::News(news) => {
                self.feed.taken();
                for view in self.by_client.get(&news.client).cloned().unwrap_or_default() {
                    self.add(view, &news, now);
                }
            }
            Event::Subscribe { client, question, plan, reader, reply } => {
                let shared = self.subscribe(client, question, *plan, reader, now);
                // A connection that is gone by now unsubscribes.
                let _ = reply.send(shared);
            }
            Event::Unsubscribe { view, reader } => {
                if let Some(slot) = self.slots.get_mut(&view)
                    && slot.readers.remove(&reader).is_some()
                    && slot.readers.is_empty()
                {
                    slot.idle_since = now;
                    self.reschedule(view, now);
                }
            }
            Event::Since { view, version, reply } => {
                if let Some(message) = self.since(view, version) {
                    let _ = reply.send(message);
                }
            }
            Event::Answered { view, answered } => self.answered(view, *answered, now),
            // Seen by the loop.
            Event::Stop => {}
        }
    }

    fn subscribe(&mut self, client: ClientId, question: String, plan: Plan, reader: Reader, now: i64) -> Arc<Shared> {
        self.watched().watch(&client, now);
        let key = (client, question);
        if let Some(view) = self.by_question.get(&key).copied()
            && let Some(slot) = self.slots.get_mut(&view)
        {
            slot.readers.insert(reader.id, reader);
            return slot.shared.clone();
        }
        let view = self.next_view;
        self.next_view = self.next_view.wrapping_add(1);
        let views = self.by_client.get(&key.0).map_or(0, Vec::len);
        if self.slots.len() >= VIEWS_MAX || views >= CLIENT_VIEWS_MAX {
            return Arc::new(Shared { view, latest: Mutex::new(Latest::Failed(Arc::new(LiveError::Busy))) });
        }
        let shared = Arc::new(Shared { view, latest: Mutex::new(Latest::Nothing) });
        let (client, question) = key.clone();
        // Before the store is asked: what it doesn't hold by then is fed.
        self.feed.count(&client, true);
        self.by_client.entry(client.clone()).or_default().push(view);
        self.by_question.insert(key, view);
        let slot = Slot {
            client,
            question,
            plan,
            view: None,
            shared: shared.clone(),
            readers: HashMap::from([(reader.id, reader)]),
            idle_since: now,
            pending: None,
            again: false,
            since: HashMap::new(),
            due: None,
        };
        self.slots.insert(view, slot);
        self.reschedule(view, now);
        self.ask(view);
        shared
    }

    /// Has a view answered from the store, as of now.
    fn ask(&mut self, view: u64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        if slot.pending.is_some() {
            slot.again = true;
            return;
        }
        slot.pending = Some(Vec::new());
        let plan = slot.plan.at(now_ms());
        let (client, cells, turns, events) =
            (slot.client.clone(), self.cells.clone(), self.turns.clone(), self.feed.events());
        self.runtime.spawn(async move {
            // Only a semaphore that is closed gives none, and nobody closes it.
            let turn = turns.acquire_owned().await;
            let work = move || {
                let _turn = turn;
                cells.answer(&client, Answer::within(plan, VIEW_BYTES_MAX), Instant::now() + ANSWER_MAX)
            };
            let answered = match tokio::task::spawn_blocking(work).await {
                Ok(answered) => answered.map_err(LiveError::from),
                Err(_) => Err(LiveError::Died),
            };
            let _ = events.send(Event::Answered { view, answered: Box::new(answered) });
        });
    }

    fn answered(&mut self, view: u64, answered: Result<Answered, LiveError>, now: i64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        let pending = slot.pending.take().unwrap_or_default();
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => return self.fail(view, error),
        };
        match &mut slot.view {
            Some(view) => view.replace(answered.answer, answered.as_of),
            None => slot.view = Some(View::new(view, answered.answer, answered.as_of)),
        }
        // The answer holds the log before its position.
        for news in pending.iter().filter(|news| news.position >= answered.position) {
            self.add(view, news, now);
        }
        if let Some(slot) = self.slots.get_mut(&view) {
            let again = std::mem::take(&mut slot.again);
            if again {
                self.ask(view);
            }
        }
        self.reschedule(view, now);
    }

    fn add(&mut self, view: u64, news: &Arc<News>, now: i64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        if let Some(pending) = &mut slot.pending {
            if pending.len() < PENDING_MAX {
                pending.push(news.clone());
            } else {
                slot.again = true;
            }
        }
        match slot.view.as_mut().map(|view| view.add(&news.cells, news.cut_at)) {
            Some(Ok(true)) => self.reschedule(view, now),
            Some(Ok(false)) | None => {}
            Some(Err(error)) => self.fail(view, error.into()),
        }
    }

    /// Publishes what is due, moves windows, and lets go of what nobody reads.
    fn look(&mut self, now: i64) {
        if now - self.watched_at >= WATCH_MS || now < self.watched_at {
            self.watch(now);
        }
        while let Some(&(due, view)) = self.due.first()
            && due <= now
        {
            self.due.remove(&(due, view));
            let Some(slot) = self.slots.get_mut(&view) else { continue };
            slot.due = None;
            if slot.readers.is_empty() && now - slot.idle_since >= KEEP_MS {
                self.remove(view);
                continue;
            }
            if let Some(state) = &slot.view
                && state.moves_at().is_some_and(|at| at <= now)
                && slot.pending.is_none()
            {
                self.ask(view);
            }
            self.publish(view, now);
            self.reschedule(view, now);
        }
    }

    fn publish(&mut self, view: u64, now: i64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        let Some(state) = &mut slot.view else { return };
        // A pause that is longer than any was made by a clock that has been set back.
        if !state.next_at().is_some_and(|at| at <= now || at > now + UPDATE_PAUSE_MS_MAX) {
            return;
        }
        let from = state.version();
        match state.publish(now) {
            Ok(None) => {}
            Ok(Some(message)) => {
                slot.since.clear();
                *slot.shared.lock() = Latest::Update { from, to: state.version(), message: message.into() };
                slot.readers.values().for_each(|reader| reader.news.notify_one());
            }
            Err(error) => self.fail(view, error.into()),
        }
    }

    fn since(&mut self, view: u64, version: u64) -> Option<(u64, Bytes)> {
        let slot = self.slots.get_mut(&view)?;
        let state = slot.view.as_ref()?;
        if let Some(message) = slot.since.get(&version) {
            return Some((state.version(), message.clone()));
        }
        match state.since(version) {
            Ok(message) => {
                let message = Bytes::from(message);
                slot.since.insert(version, message.clone());
                Some((state.version(), message))
            }
            Err(error) => {
                self.fail(view, error.into());
                None
            }
        }
    }

    /// Tells a view's readers that it is no more.
    fn fail(&mut self, view: u64, error: LiveError) {
        if let Some(slot) = self.remove(view) {
            *slot.shared.lock() = Latest::Failed(Arc::new(error));
            slot.readers.values().for_each(|reader| reader.news.notify_one());
        }
    }

    fn remove(&mut self, view: u64) -> Option<Slot> {
        let slot = self.slots.remove(&view)?;
        self.feed.count(&slot.client, false);
        self.by_question.remove(&(slot.client.clone(), slot.question.clone()));
        if let Some(views) = self.by_client.get_mut(&slot.client) {
            views.retain(|other| *other != view);
            if views.is_empty() {
                self.by_client.remove(&slot.client);
            }
        }
        if let Some(due) = slot.due {
            self.due.remove(&(due, view));
        }
        Some(slot)
    }

    /// Notes when a view wants to be looked at next.
    fn reschedule(&mut self, view: u64, now: i64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        let state = slot.view.as_ref();
        let publish = state.and_then(View::next_at).map(|at| at.min(now + UPDATE_PAUSE_MS_MAX));
        // While the store is asked, the window is on its way.
        let moves = state.filter(|_| slot.pending.is_none()).and_then(View::moves_at);
        let ends = slot.readers.is_empty().then_some(slot.idle_since + KEEP_MS);
        let due = [publish, moves, ends].into_iter().flatten().min();
        if due == slot.due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut slot.due, due) {
            self.due.remove(&(before, view));
        }
        if let Some(due) = due {
            self.due.insert((due, view));
        }
    }

    /// Marks the clients of all views that have readers as watched.
    fn watch(&mut self, now: i64) {
        self.watched_at = now;
        let mut watched = self.watched();
        let mut readers = 0;
        for slot in self.slots.values().filter(|slot| !slot.readers.is_empty()) {
            watched.watch(&slot.client, now);
            readers += slot.readers.len();
        }
        metrics::set_live(self.slots.len(), readers);
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
