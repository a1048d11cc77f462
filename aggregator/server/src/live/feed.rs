//! What the writer tells the hub: the new cells of clients that are looked at.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catchment_cells::ClientId;
use catchment_cells::frame::{CellsBlock, Section};

use super::Event;

/// Cells that may wait for the hub; of a client whose news are beyond, it asks the store anew.
pub(super) const CELLS_MAX: usize = 200_000;

/// The way from the writer to the hub. It never waits.
#[derive(Debug)]
pub(crate) struct Feed {
    events: Sender<Event>,
    /// Clients with views.
    clients: Mutex<HashMap<ClientId, Followed>>,
    /// Cells that wait.
    waiting: AtomicUsize,
    /// News of some client were left out.
    overrun: AtomicBool,
}

#[derive(Debug, Default)]
struct Followed {
    views: usize,
    overrun: bool,
}

/// A frame's cells of one client.
#[derive(Debug)]
pub(crate) struct News {
    pub client: ClientId,
    /// The frame's place in the log.
    pub position: u64,
    /// When it was cut, in ms.
    pub cut_at: i64,
    pub cells: Section,
    /// How many there are.
    pub cells_count: usize,
}

impl Feed {
    /// A feed, and what comes of it.
    pub(crate) fn new() -> (Arc<Feed>, Receiver<Event>) {
        let (events, receiver) = channel();
        let feed =
            Feed { events, clients: Mutex::default(), waiting: AtomicUsize::new(0), overrun: AtomicBool::new(false) };
        (Arc::new(feed), receiver)
    }

    /// Takes a frame's cells, which are about to be merged under the log position.
    pub(crate) fn take(&self, position: u64, cut_at: i64, cells: &CellsBlock) {
        let mut clients = self.clients();
        if clients.is_empty() {
            return;
        }
        for (client, section) in &cells.0 {
            let Some(followed) = clients.get_mut(client) else { continue };
            let cells_count = section.values().flat_map(|cube| cube.buckets.values()).map(BTreeMap::len).sum();
            if self.waiting.load(Ordering::Relaxed) >= CELLS_MAX {
                followed.overrun = true;
                self.overrun.store(true, Ordering::Release);
                continue;
            }
            self.waiting.fetch_add(cells_count, Ordering::Relaxed);
            let news = News { client: client.clone(), position, cut_at, cells: section.clone(), cells_count };
            // Without a hub nobody is told.
            let _ = self.events.send(Event::News(Arc::new(news)));
        }
    }

    pub(super) fn events(&self) -> Sender<Event> {
        self.events.clone()
    }

    /// One more view of the client is open, or one less.
    pub(super) fn follow(&self, client: &ClientId, is_open: bool) {
        let mut clients = self.clients();
        let followed = clients.entry(client.clone()).or_default();
        followed.views = if is_open { followed.views + 1 } else { followed.views.saturating_sub(1) };
        if followed.views == 0 {
            clients.remove(client);
        }
    }

    /// News left the queue.
    pub(super) fn taken(&self, news: &News) {
        self.waiting.fetch_sub(news.cells_count, Ordering::Relaxed);
    }

    /// The clients whose news were left out since the last look.
    pub(super) fn overrun(&self) -> Vec<ClientId> {
        if !self.overrun.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut clients = self.clients();
        let overrun = |(client, followed): (&ClientId, &mut Followed)| {
            std::mem::take(&mut followed.overrun).then(|| client.clone())
        };
        clients.iter_mut().filter_map(overrun).collect()
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientId, Followed>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cells that wait for the hub.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}
