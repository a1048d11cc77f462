//! Live views: questions whose answers are kept up to date for whoever reads them.
//!
//! The writer feeds the cells of clients that are looked at ([`Feed`]) to the hub ([`Hub`]), one thread that owns every view. A view's
//! readers share its encoded updates; each is woken, takes the newest, or, if it missed some, asks for all that
//! changed since. A reader that stalls thus holds up nobody, and nothing is queued for it here.

mod feed;
mod hub;

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use catchment_aggregator_core::Plan;
use catchment_aggregator_core::view::ViewError;
use catchment_cells::ClientId;
use thiserror::Error;
use tokio::sync::{Notify, oneshot};

pub(crate) use self::feed::Feed;
use self::feed::News;
pub(crate) use self::hub::{Asked, Hub};
use crate::cells::{AnswerError, Answered};

/// Where views are subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    events: Sender<Event>,
}

/// A connection, as the hub knows it.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub id: u64,
    /// Told when any of its views has something new.
    pub news: Arc<Notify>,
}

/// What a view's readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The view's number.
    pub view: u64,
    latest: Mutex<Latest>,
}

/// The newest that there is to tell.
#[derive(Debug, Clone)]
pub(crate) enum Latest {
    /// The first answer isn't there yet.
    Nothing,
    /// An update from one version to the next.
    Update { from: u64, to: u64, message: Bytes },
    /// The view is no more.
    Failed(Arc<LiveError>),
}

/// Why there is no view.
#[derive(Debug, Error)]
pub(crate) enum LiveError {
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("too many live views are open: ask again later")]
    Busy,
    #[error("the question could not be answered")]
    Died,
}

/// What happens to the hub.
#[derive(Debug)]
pub(crate) enum Event {
    News(Arc<News>),
    Subscribe { asked: Asked, plan: Box<Plan>, reader: Reader, reply: oneshot::Sender<Result<Arc<Shared>, LiveError>> },
    Unsubscribe { view: u64, reader: u64 },
    Since { view: u64, version: u64, reply: oneshot::Sender<(u64, Bytes)> },
    Answered { view: u64, client: ClientId, answered: Box<Result<Answered, LiveError>> },
    Stop,
}

impl Live {
    /// The handle of the hub that takes a feed's events.
    pub(crate) fn new(feed: &Feed) -> Live {
        Live { events: feed.events() }
    }

    /// Takes part in the view of a planned question; `None` if the hub is gone.
    pub(crate) async fn subscribe(
        &self,
        asked: Asked,
        plan: Plan,
        reader: &Reader,
    ) -> Option<Result<Arc<Shared>, LiveError>> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Subscribe { asked, plan: Box::new(plan), reader: reader.clone(), reply }).ok()?;
        answer.await.ok()
    }

    /// Takes part no longer.
    pub(crate) fn unsubscribe(&self, view: u64, reader: u64) {
        // Without a hub there is nothing to leave.
        let _ = self.events.send(Event::Unsubscribe { view, reader });
    }

    /// All that changed in a view since a version, and the version that it makes; `None` if the view is gone.
    pub(crate) async fn since(&self, view: u64, version: u64) -> Option<(u64, Bytes)> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Since { view, version, reply }).ok()?;
        answer.await.ok()
    }

    /// Ends the hub.
    pub(crate) fn stop(&self) {
        let _ = self.events.send(Event::Stop);
    }
}

impl Shared {
    /// What a reader is told.
    pub(crate) fn latest(&self) -> Latest {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
