//! The server: its parts, their start, and their end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use catchment_aggregator_core::Watched;
use catchment_link::{Client, InvalidAddress, ServeError, ServerTls, TlsError};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::info;

use crate::cells::Cells;
use crate::clock::now_s;
use crate::config::{Config, ConfigError};
use crate::configs::{Configs, SeedError};
use crate::forward::Forwarder;
use crate::health::Health;
use crate::http::dashboard::{Dashboard, DashboardError};
use crate::http::{self, Api, Bounds};
use crate::ingest::Writer;
use crate::keeper::Keeper;
use crate::live::{Feed, Hub, Live};
use crate::metrics;
use crate::store::{Cursor, Store, StoreError};

/// Frames that may wait for the writer.
const ARRIVALS_MAX: usize = 256;
/// How long questions may take to end once the process is asked to.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// An aggregator that is ready to run.
pub(crate) struct Server {
    http: TcpListener,
    link: std::net::UdpSocket,
    addresses: (SocketAddr, SocketAddr),
    tls: ServerTls,
    router: Router,
    prometheus: PrometheusHandle,
    health: Arc<Health>,
    writer: Writer,
    keeper: Keeper,
    configs: Arc<Configs>,
    forwarder: Option<Forwarder>,
    hub: Hub,
    live: Live,
    stop: watch::Sender<bool>,
}

/// Why an aggregator doesn't start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("can't listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("[upstream] address: {0}")]
    Upstream(#[from] InvalidAddress),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "[upstream] was added when frames that it never had were gone already: give this aggregator a new data folder, \
         or central its own events"
    )]
    UpstreamTooLate,
    #[error("clients: {0}")]
    Seed(#[from] SeedError),
    #[error(transparent)]
    Dashboard(#[from] DashboardError),
    #[error("metrics can't be recorded: {0}")]
    Metrics(String),
}

/// Why an aggregator ended without being asked to.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("the {part} failed: {error}")]
    Store { part: &'static str, error: StoreError },
    #[error("the {0} died")]
    Died(&'static str),
    #[error(transparent)]
    Link(#[from] ServeError),
}

impl Server {
    /// Opens the store, replays the log and binds the sockets.
    pub(crate) async fn start(config: Config, prometheus: PrometheusHandle) -> Result<Server, StartError> {
        let secret = config.secret()?;
        let tls = config.tls.server()?;
        let listen = |error| StartError::Listen { address: config.http, error };
        let http = TcpListener::bind(config.http).await.map_err(listen)?;
        let http_address = http.local_addr().map_err(listen)?;
        let listen = |error| StartError::Listen { address: config.link, error };
        let link = std::net::UdpSocket::bind(config.link).map_err(listen)?;
        let link_address = link.local_addr().map_err(listen)?;

        let store = Store::open(&config.data)?;
        let dashboard = config.dashboard.as_deref().map(Dashboard::read).transpose()?.unwrap_or_default();
        let (feed, events) = Feed::new();
        let forwards = config.upstream.is_some();
        let cells = Arc::new(Cells::open(store.clone(), config.store, &secret, forwards, feed.clone())?);
        let home = (!config.central).then(|| config.region.clone());
        let configs = Arc::new(Configs::open(cells.clone(), &secret, home, now_s)?);
        if let Some(folder) = &config.clients {
            configs.seed(folder)?;
        }
        let watched = Arc::new(Mutex::new(Watched::default()));
        let appended = Arc::new(Notify::new());
        let health = Arc::new(Health::default());
        let (mut forwarder, mut cursor) = (None, None);
        if let Some(upstream) = config.upstream {
            let central = Client::new(upstream.address, config.tls.client()?)?;
            let forwarded = store.cursor(Cursor::Forwarded)?;
            // Central would miss them, and take nothing of their producers after them.
            if forwarded < store.first_position()? {
                return Err(StartError::UpstreamTooLate);
            }
            let forwarded = Arc::new(AtomicU64::new(forwarded));
            let (secret, watched, appended) = (secret.clone(), watched.clone(), appended.clone());
            forwarder = Some(Forwarder::new(store, central, secret, watched, appended, forwarded.clone())?);
            cursor = Some(forwarded);
        }
        let home = (!config.central).then_some(config.region);
        let writer = Writer::new(cells.clone(), configs.clone(), secret.clone(), home, watched.clone(), appended)?;
        let keeper = Keeper::new(cells.clone(), configs.clone(), config.retention_days, cursor, health.clone());
        let live = Live::new(&feed);
        let hub = Hub::new(cells.clone(), feed, watched.clone(), events, Handle::current());
        let (stop, stopping) = watch::channel(false);
        let api = Api {
            cells,
            configs: configs.clone(),
            secret,
            watched,
            live: live.clone(),
            dashboard,
            health: health.clone(),
            prometheus: prometheus.clone(),
            stopping,
            bounds: Bounds::default(),
        };
        let router = http::router(Arc::new(api));
        let addresses = (http_address, link_address);
        Ok(Server {
            http,
            link,
            addresses,
            tls,
            router,
            prometheus,
            health,
            writer,
            keeper,
            configs,
            forwarder,
            hub,
            live,
            stop,
        })
    }

    /// The line that tells a supervisor that frames and questions are taken, and where.
    pub(crate) fn ready_line(&self) -> String {
        let (http, link) = self.addresses;
        json!({ "ready": true, "http": http.to_string(), "link": link.to_string() }).to_string()
    }

    /// Runs until the shutdown, or until a part fails: then all of it does, visibly, and whoever supervises it starts it
    /// again.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Server { http, link, tls, router, prometheus, health, writer, keeper, .. } = self;
        let (configs, forwarder, hub, live, stop) = (self.configs, self.forwarder, self.hub, self.live, self.stop);
        let stopping = stop.subscribe();
        let stopped = |mut stopping: watch::Receiver<bool>| async move {
            // An error says that the sender is gone, which is a stop too.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let (arrivals, arriving) = mpsc::channel(ARRIVALS_MAX);
        let mut writer = spawn_part("writer", move || writer.run(arriving));
        let keeper_stop = Arc::new(AtomicBool::new(false));
        let mut keeper = {
            let stop = keeper_stop.clone();
            spawn_part("keeper", move || keeper.run(&stop))
        };
        let mut hub = spawn_part("live", move || hub.run());
        let mut forwarder = tokio::spawn(async move {
            match forwarder {
                Some(forwarder) => forwarder.run().await,
                None => std::future::pending().await,
            }
        });
        let answering = Arc::new(move |question: &[u8]| configs.answer(question));
        let mut link = tokio::spawn(catchment_link::serve(link, tls, arrivals, answering, stopped(stopping.clone())));
        let bounds = http::connection_bounds();
        let mut http = tokio::spawn(catchment_http::serve(http, router, bounds, stopped(stopping)));

        let ending = tokio::select! {
            () = shutdown => Ok(()),
            ended = &mut writer => Err(part_error("writer", ended)),
            ended = &mut keeper => Err(part_error("keeper", ended)),
            ended = &mut hub => Err(part_error("live", ended)),
            ended = &mut forwarder => Err(part_error("forwarder", ended)),
            ended = &mut link => match ended {
                Ok(Err(error)) => Err(error.into()),
                _ => Err(RunError::Died("link")),
            },
            _ = &mut http => Err(RunError::Died("HTTP server")),
            never = metrics::upkeep(prometheus) => match never {},
        };
        health.set("process", Some("it is stopping".into()));
        ending?;
        info!("stopping");
        stop.send_replace(true);
        forwarder.abort();
        // The link answers what has arrived, and lets go of the writer, which ends when it has stored that.
        let _ = link.await;
        let _ = writer.await;
        keeper_stop.store(true, Ordering::Relaxed);
        let _ = keeper.await;
        let _ = timeout(DRAIN_MAX, http).await;
        live.stop();
        let _ = hub.await;
        Ok(())
    }
}

/// Runs a part on a thread of its own; the receiver learns how it ended, or only that it did if it panicked.
fn spawn_part(
    name: &'static str,
    run: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
) -> oneshot::Receiver<Result<(), StoreError>> {
    let (ended, ending) = oneshot::channel();
    // Dropped with the closure where no thread can be had, which the receiver takes for a part that died.
    let _ = std::thread::Builder::new().name(name.into()).spawn(move || {
        let _ = ended.send(run());
    });
    ending
}

fn part_error<E>(part: &'static str, ended: Result<Result<(), StoreError>, E>) -> RunError {
    match ended {
        Ok(Err(error)) => RunError::Store { part, error },
        _ => RunError::Died(part),
    }
}
