//! What the writer tells the hub: the new cells of clients that are looked at.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catchment_cells::ClientId;
use catchment_cells::frame::{CellsBlock, Section};

use super::Event;

/// News that may wait for the hub; beyond, it asks the store anew.
const NEWS_MAX: usize = 4_096;

/// The way from the writer to the hub. It never waits.
#[derive(Debug)]
pub(crate) struct Feed {
    events: Sender<Event>,
    /// Clients with views, and how many.
    clients: Mutex<HashMap<ClientId, usize>>,
    waiting: AtomicUsize,
    overrun: AtomicBool,
}

/// A frame's cells of one client.
#[derive(Debug)]
pub(super) struct News {
    pub client: ClientId,
    /// The frame's place in the log.
    pub position: u64,
    /// When it was cut, in ms.
    pub cut_at: i64,
    pub cells: Section,
}

impl Feed {
    /// A feed, and what comes of it.
    pub(crate) fn new() -> (Arc<Feed>, EventsReceiver) {
        let (events, receiver) = channel();
        let feed =
            Feed { events, clients: Mutex::default(), waiting: AtomicUsize::new(0), overrun: AtomicBool::new(false) };
        (Arc::new(feed), EventsReceiver(receiver))
    }

    /// Takes a frame's cells, which are about to be merged under the log position.
    pub(crate) fn take(&self, position: u64, cut_at: i64, cells: &CellsBlock) {
        let clients = self.clients();
        if clients.is_empty() {
            return;
        }
        for (client, cells) in cells.0.iter().filter(|(client, _)| clients.contains_key(client)) {
            if self.waiting.load(Ordering::Relaxed) >= NEWS_MAX {
                self.overrun.store(true, Ordering::Release);
                continue;
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let news = News { client: client.clone(), position, cut_at, cells: cells.clone() };
            // Without a hub nobody is told.
            let _ = self.events.send(Event::News(Arc::new(news)));
        }
    }

    pub(super) fn events(&self) -> Sender<Event> {
        self.events.clone()
    }

    /// One more view of the client is open, or one less.
    pub(super) fn count(&self, client: &ClientId, is_open: bool) {
        let mut clients = self.clients();
        let views = clients.entry(client.clone()).or_default();
        *views = if is_open { *views + 1 } else { views.saturating_sub(1) };
        if *views == 0 {
            clients.remove(client);
        }
    }

    /// News left the queue.
    pub(super) fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether news were left out since the last look.
    pub(super) fn was_overrun(&self) -> bool {
        self.overrun.swap(false, Ordering::AcqRel)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientId, usize>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the hub receives.
#[derive(Debug)]
pub(crate) struct EventsReceiver(pub(super) Receiver<Event>);
