//! The hub: owns all views, adds news to them, and publishes what changed, each view at its own pace.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use catchment_aggregator_core::answer::TooMuch;
use catchment_aggregator_core::limits::{UPDATE_PAUSE_MS_MAX, VIEW_BYTES_MAX};
use catchment_aggregator_core::view::ViewError;
use catchment_aggregator_core::{Answer, Plan, View, Watched};
use catchment_cells::ClientId;
use tokio::runtime::Handle;

use super::feed::News;
use super::{Event, Feed, Latest, LiveError, Reader, Shared};
use crate::cells::{AnswerError, Answered, Cells};
use crate::clock::now_ms;
use crate::metrics;
use crate::store::StoreError;

/// Views that may be open at a time, of all clients and of one.
const VIEWS_MAX: usize = 20_000;
const CLIENT_VIEWS_MAX: usize = 200;
/// Bytes that views may take, of all clients and of one.
const BYTES_MAX: usize = 1 << 30;
const CLIENT_BYTES_MAX: usize = 256 << 20;
/// How long a view is kept without readers, in ms: for those that come back.
const KEEP_MS: i64 = 30_000;
/// How often clients are marked as watched, in ms.
const WATCH_MS: i64 = 2_000;
/// Views that are answered from the store at a time; how long one may take, and the first may wait, and when one that failed is
/// tried again.
const ANSWERS_MAX: usize = 2;
const ANSWER_MAX: Duration = Duration::from_secs(20);
const WAIT_MS: i64 = 5_000;
const RETRY_MS: i64 = 5_000;
/// Cells of news that wait for a view's answer; beyond, it is asked for again.
const PENDING_CELLS_MAX: usize = 200_000;
/// How long events are handled before what is due is published.
const EVENTS_TIME_MAX: Duration = Duration::from_millis(20);
/// A view rests so many times as long as its update took to make.
const REST_FACTOR: i64 = 20;
/// Different answers to those who missed updates that are kept for others.
const SINCE_MAX: usize = 16;

/// The hub.
pub(crate) struct Hub {
    cells: Arc<Cells>,
    feed: Arc<Feed>,
    watched: Arc<Mutex<Watched>>,
    events: Receiver<Event>,
    /// Where views are answered.
    runtime: Handle,
    slots: HashMap<u64, Slot>,
    by_question: HashMap<Asked, u64>,
    by_client: HashMap<ClientId, Followed>,
    /// Views that want to be answered from the store, and how many are being.
    queue: VecDeque<u64>,
    answering: usize,
    /// When which view wants to be looked at, in ms.
    due: BTreeSet<(i64, u64)>,
    bytes: usize,
    next_view: u64,
    watched_at: i64,
}

/// What tells views apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub client: ClientId,
    /// The question, as its reader wrote it.
    pub question: String,
    /// Users come as sets, and not as estimates.
    pub sets: bool,
}

/// A client that is followed.
#[derive(Default)]
struct Followed {
    views: Vec<u64>,
    bytes: usize,
    /// Views that are being answered.
    answering: usize,
}

/// A view's place.
struct Slot {
    asked: Asked,
    plan: Plan,
    /// `None` until it is answered for the first time.
    view: Option<View>,
    shared: Arc<Shared>,
    readers: HashMap<u64, Reader>,
    idle_since: i64,
    store: StoreState,
    retry_at: i64,
    bytes: usize,
    /// What was said to those who missed updates, by their version, at the present one.
    since: HashMap<u64, Bytes>,
    due: Option<i64>,
}

/// Whether the store is asked for a view.
enum StoreState {
    Idle,
    /// It will be, and has waited since, in ms.
    Queued(i64),
    Answering {
        /// News that came since.
        pending: Vec<Arc<News>>,
        cells: usize,
        /// There were more: without them, the answer is good for nothing.
        lost: bool,
        /// It is to be asked once more.
        again: bool,
    },
}

impl Hub {
    /// A hub of no views.
    pub(crate) fn new(
        cells: Arc<Cells>,
        feed: Arc<Feed>,
        watched: Arc<Mutex<Watched>>,
        events: Receiver<Event>,
        runtime: Handle,
    ) -> Hub {
        Hub {
            cells,
            feed,
            watched,
            events,
            runtime,
            slots: HashMap::new(),
            by_question: HashMap::new(),
            by_client: HashMap::new(),
            queue: VecDeque::new(),
            answering: 0,
            due: BTreeSet::new(),
            bytes: 0,
            // Numbers of another life of this process mean nothing to this one.
            next_view: RandomState::new().build_hasher().finish(),
            watched_at: 0,
        }
    }

    /// Runs until it is told to stop. Blocks: run it on a thread of its own.
    pub(crate) fn run(mut self) -> Result<(), StoreError> {
        while self.step(self.pause(now_ms())) {}
        Ok(())
    }

    /// Waits so long for something to happen, and does what follows; `false` once it is told to stop.
    pub(super) fn step(&mut self, pause: Option<Duration>) -> bool {
        let first = match pause {
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(pause) => self.events.recv_timeout(pause),
        };
        let mut next = match first {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let started = Instant::now();
        while let Some(event) = next {
            if matches!(event, Event::Stop) {
                return false;
            }
            self.handle(event, now_ms());
            next = if started.elapsed() < EVENTS_TIME_MAX { self.events.try_recv().ok() } else { None };
        }
        let now = now_ms();
        for client in self.feed.overrun() {
            let views = self.by_client.get(&client).map(|followed| followed.views.clone());
            views.into_iter().flatten().for_each(|view| self.ask(view, now));
        }
        self.look(now);
        self.answer_next(now);
        true
    }

    /// How long there is nothing to do by itself; `None`: until something happens.
    fn pause(&self, now: i64) -> Option<Duration> {
        if self.slots.is_empty() {
            return None;
        }
        let watch = self.watched_at + WATCH_MS;
        let at = self.due.first().map_or(watch, |(due, _)| watch.min(*due));
        Some(Duration::from_millis(at.saturating_sub(now).clamp(0, WATCH_MS) as u64))
    }

    fn handle(&mut self, event: Event, now: i64) {
        match event {
            Event::News(news) => {
                self.feed.taken(&news);
                let views = self.by_client.get(&news.client).map(|followed| followed.views.clone());
                for view in views.into_iter().flatten() {
                    self.add(view, &news, now);
                }
            }
            Event::Subscribe { asked, plan, reader, reply } => {
                // A connection that is gone by now unsubscribes.
                let _ = reply.send(self.subscribe(asked, *plan, reader, now));
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
            Event::Answered { view, client, answered } => self.answered(view, &client, *answered, now),
            // Seen by the step.
            Event::Stop => {}
        }
    }

    fn subscribe(&mut self, asked: Asked, plan: Plan, reader: Reader, now: i64) -> Result<Arc<Shared>, LiveError> {
        self.watched().watch(&asked.client, now);
        // One that counts by another clock is over.
        let is_other =
            |view: &&u64| self.slots.get(*view).is_some_and(|slot| slot.plan.tiers.zone() != plan.tiers.zone());
        if let Some(view) = self.by_question.get(&asked).filter(is_other) {
            self.fail(*view, AnswerError::Changed.into());
        }
        if let Some(slot) = self.by_question.get(&asked).and_then(|view| self.slots.get_mut(view)) {
            slot.readers.insert(reader.id, reader);
            return Ok(slot.shared.clone());
        }
        let followed = self.by_client.entry(asked.client.clone()).or_default();
        if self.slots.len() >= VIEWS_MAX || followed.views.len() >= CLIENT_VIEWS_MAX || self.bytes >= BYTES_MAX {
            if followed.views.is_empty() && followed.answering == 0 {
                self.by_client.remove(&asked.client);
            }
            return Err(LiveError::Busy);
        }
        let view = self.next_view;
        self.next_view = self.next_view.wrapping_add(1);
        followed.views.push(view);
        // Before the store is asked: what it doesn't hold by then is fed.
        self.feed.follow(&asked.client, true);
        self.by_question.insert(asked.clone(), view);
        let shared = Arc::new(Shared { view, latest: Mutex::new(Latest::Nothing) });
        let slot = Slot {
            asked,
            plan,
            view: None,
            shared: shared.clone(),
            readers: HashMap::from([(reader.id, reader)]),
            idle_since: now,
            store: StoreState::Idle,
            retry_at: 0,
            bytes: 0,
            since: HashMap::new(),
            due: None,
        };
        self.slots.insert(view, slot);
        self.ask(view, now);
        Ok(shared)
    }

    /// Has a view answered from the store, in its turn. Windows that have moved go before views that are new.
    fn ask(&mut self, view: u64, now: i64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        match &mut slot.store {
            StoreState::Idle => {
                slot.store = StoreState::Queued(now);
                if slot.view.is_some() { self.queue.push_front(view) } else { self.queue.push_back(view) }
            }
            StoreState::Queued(_) => {}
            StoreState::Answering { again, .. } => *again = true,
        }
    }

    /// Begins to answer what waits, as far as there are turns: a client whose view is being answered goes after all others.
    fn answer_next(&mut self, now: i64) {
        while self.answering < ANSWERS_MAX && !self.queue.is_empty() {
            let is_other = |view: &u64| {
                let client = self.slots.get(view).map(|slot| &slot.asked.client);
                client.and_then(|client| self.by_client.get(client)).is_none_or(|followed| followed.answering == 0)
            };
            let at = self.queue.iter().position(is_other).unwrap_or(0);
            let Some(view) = self.queue.remove(at) else { return };
            let Some(slot) = self.slots.get_mut(&view) else { continue };
            let client = slot.asked.client.clone();
            let waited = if let StoreState::Queued(since) = slot.store { now - since } else { 0 };
            if slot.view.is_none() && waited > WAIT_MS {
                self.fail(view, LiveError::Busy);
                continue;
            }
            let plan = match slot.plan.at(now) {
                Ok(plan) => plan,
                Err(error) => {
                    self.fail(view, AnswerError::Plan(error).into());
                    continue;
                }
            };
            self.by_client.entry(client.clone()).or_default().answering += 1;
            self.answering += 1;
            slot.store = StoreState::Answering { pending: Vec::new(), cells: 0, lost: false, again: false };
            let (cells, events) = (self.cells.clone(), self.feed.events());
            self.runtime.spawn(async move {
                let of = client.clone();
                let work = move || cells.answer(&of, Answer::within(plan, VIEW_BYTES_MAX), Instant::now() + ANSWER_MAX);
                let answered = match tokio::task::spawn_blocking(work).await {
                    Ok(answered) => answered.map_err(LiveError::from),
                    Err(_) => Err(LiveError::Died),
                };
                let _ = events.send(Event::Answered { view, client, answered: Box::new(answered) });
            });
        }
    }

    fn answered(&mut self, view: u64, client: &ClientId, answered: Result<Answered, LiveError>, now: i64) {
        self.answering -= 1;
        if let Some(followed) = self.by_client.get_mut(client) {
            followed.answering -= 1;
            if followed.views.is_empty() && followed.answering == 0 {
                self.by_client.remove(client);
            }
        }
        let Some(slot) = self.slots.get_mut(&view) else { return };
        let StoreState::Answering { pending, lost, again, .. } = std::mem::replace(&mut slot.store, StoreState::Idle)
        else {
            return;
        };
        match answered {
            // Fed ever since, what there is stays right; only its window doesn't move.
            Err(LiveError::Answer(AnswerError::TooMuch(TooMuch::Time) | AnswerError::Store(_)) | LiveError::Died)
                if slot.view.is_some() =>
            {
                slot.retry_at = now + RETRY_MS;
            }
            Err(error) => return self.fail(view, error),
            Ok(_) if lost => {}
            Ok(answered) => {
                match &mut slot.view {
                    Some(view) => view.replace(answered.answer, answered.as_of),
                    None => slot.view = Some(View::new(view, answered.answer, answered.as_of, slot.asked.sets)),
                }
                // The answer holds the log before its position.
                for news in pending.iter().filter(|news| news.position >= answered.position) {
                    self.add(view, news, now);
                }
                self.weigh(view);
            }
        }
        if again || lost {
            self.ask(view, now);
        }
        self.reschedule(view, now);
    }

    fn add(&mut self, view: u64, news: &Arc<News>, now: i64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        if let StoreState::Answering { pending, cells, lost, .. } = &mut slot.store {
            *cells += news.cells_count;
            if *cells <= PENDING_CELLS_MAX {
                pending.push(news.clone());
            } else {
                *lost = true;
                pending.clear();
            }
        }
        match slot.view.as_mut().map(|view| view.add(&news.cells, news.cut_at)) {
            Some(Ok(true)) => {
                self.weigh(view);
                self.reschedule(view, now);
            }
            Some(Ok(false)) | None => {}
            Some(Err(error)) => self.fail(view, error.into()),
        }
    }

    /// Keeps account of what views take.
    fn weigh(&mut self, view: u64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        let bytes = slot.view.as_ref().map_or(0, |view| view.answer().bytes());
        let before = std::mem::replace(&mut slot.bytes, bytes);
        self.bytes = self.bytes + bytes - before;
        let Some(followed) = self.by_client.get_mut(&slot.asked.client) else { return };
        followed.bytes = followed.bytes + bytes - before;
        if bytes > before && (followed.bytes > CLIENT_BYTES_MAX || self.bytes > BYTES_MAX) {
            self.fail(view, ViewError::TooMuch.into());
        }
    }

    /// Publishes what is due, moves windows, and lets go of what nobody reads.
    fn look(&mut self, now: i64) {
        if now < self.watched_at {
            // The clock was set back: what was due by it may be far off.
            self.slots.keys().copied().collect::<Vec<_>>().into_iter().for_each(|view| self.reschedule(view, now));
        }
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
            let moves_at = slot.view.as_ref().and_then(View::moves_at);
            if moves_at.is_some_and(|at| at <= now) && slot.retry_at <= now {
                self.ask(view, now);
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
        let started = Instant::now();
        let published = state.publish(now);
        // So that one view's size isn't everyone's delay.
        state.wait_until(now + REST_FACTOR * started.elapsed().as_millis() as i64);
        match published {
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
        let version = state.remembered(version);
        if let Some(message) = slot.since.get(&version) {
            return Some((state.version(), message.clone()));
        }
        match state.since(version) {
            Ok(message) => {
                let message = Bytes::from(message);
                if slot.since.len() >= SINCE_MAX {
                    slot.since.clear();
                }
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
        self.feed.follow(&slot.asked.client, false);
        self.by_question.remove(&slot.asked);
        self.bytes -= slot.bytes;
        if let Some(followed) = self.by_client.get_mut(&slot.asked.client) {
            followed.views.retain(|other| *other != view);
            followed.bytes -= slot.bytes;
            if followed.views.is_empty() && followed.answering == 0 {
                self.by_client.remove(&slot.asked.client);
            }
        }
        if let Some(due) = slot.due {
            self.due.remove(&(due, view));
        }
        if self.slots.is_empty() {
            // Nothing happens any more that would tell it.
            metrics::set_live(0, 0);
        }
        Some(slot)
    }

    /// Notes when a view wants to be looked at next.
    fn reschedule(&mut self, view: u64, now: i64) {
        let Some(slot) = self.slots.get_mut(&view) else { return };
        let state = slot.view.as_ref();
        let publish = state.and_then(View::next_at).map(|at| at.min(now + UPDATE_PAUSE_MS_MAX));
        // While the store is asked, the window is on its way.
        let is_idle = matches!(slot.store, StoreState::Idle);
        let moves = state.filter(|_| is_idle).and_then(View::moves_at).map(|at| at.max(slot.retry_at));
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

    /// Marks the clients of all views that have readers as watched, and ends those whose client has another clock by now.
    fn watch(&mut self, now: i64) {
        self.watched_at = now;
        let is_over = |client: &ClientId, view: &&u64| {
            let tiers = self.cells.tiers(client);
            self.slots.get(*view).is_some_and(|slot| slot.plan.tiers.zone() != tiers.zone())
        };
        let views = self
            .by_client
            .iter()
            .flat_map(|(client, followed)| followed.views.iter().filter(move |view| is_over(client, view)));
        views.copied().collect::<Vec<_>>().into_iter().for_each(|view| self.fail(view, AnswerError::Changed.into()));
        let mut watched = self.watched();
        let mut readers = 0;
        for (client, followed) in &self.by_client {
            let of_client: usize =
                followed.views.iter().filter_map(|view| self.slots.get(view)).map(|slot| slot.readers.len()).sum();
            if of_client > 0 {
                watched.watch(client, now);
                readers += of_client;
            }
        }
        metrics::set_live(self.slots.len(), readers);
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
