use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use catchment_aggregator_core::LogRow;
use catchment_aggregator_core::ingest::Beside;
use catchment_cells::ack::Status;
use catchment_link::Client;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;

use super::kit::{DAY, Folder, Shard, client, one};
use super::serving::{Running, tls, write_config, write_files};
use crate::server::{Server, StartError};
use crate::store::{Cursor, Store};

#[tokio::test]
async fn a_central_that_comes_when_frames_are_gone_is_refused() {
    let folder = Folder::new();
    write_files(folder.path());
    let config = write_config(folder.path(), "region", "upstream = { address = \"127.0.0.1:9\" }");
    {
        let store = Store::open(&config.data).unwrap();
        let row = LogRow { position: 7, received_at: 0, frame: Shard::new(1).cut(one(&client("a"), DAY)) };
        store.append(&[row], &Beside::default()).unwrap();
        assert_eq!(store.first_position().unwrap(), 7);
    }
    let started = Server::start(config, PrometheusBuilder::new().build_recorder().handle()).await;
    assert!(matches!(started, Err(StartError::UpstreamTooLate)));
}

/// A region and a central aggregator; the latter can go and come back.
struct Pair {
    folder: Folder,
    region: Running,
    central: Option<Running>,
    central_link: SocketAddr,
    relay: Client,
}

impl Pair {
    async fn start() -> Pair {
        let folder = Folder::new();
        write_files(folder.path());
        let central = Running::start(write_config(folder.path(), "central", "central = true")).await;
        let upstream = format!("upstream = {{ address = \"{}\" }}", central.link);
        let region = Running::start(write_config(folder.path(), "region", &upstream)).await;
        let relay = Client::new(region.link.to_string(), tls(folder.path()).client().unwrap()).unwrap();
        Pair { central_link: central.link, folder, region, central: Some(central), relay }
    }

    async fn start_central(&mut self, settings: &str) {
        let mut config = write_config(self.folder.path(), "central", settings);
        config.link = self.central_link;
        self.central = Some(Running::start(config).await);
    }

    async fn stop_central(&mut self) {
        self.central.take().unwrap().stop().await;
    }

    async fn send(&self, frame: Bytes) {
        let acks = self.relay.send(vec![frame]).await;
        assert_eq!(acks[0].as_ref().unwrap().status, Status::Stored);
    }

    /// Waits until the central aggregator has so many events of client a, and sees that they don't become more.
    async fn wait_for(&self, events: u64) {
        let query = "metric=events&start=2024-01-01&end=2024-01-02";
        let central = self.central.as_ref().unwrap();
        let mut seen = Value::Null;
        for _ in 0..300 {
            seen = central.ask("a", query).await["results"][0]["values"]["events"]["value"].clone();
            if seen == events {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(seen, events);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(central.ask("a", query).await["results"][0]["values"]["events"]["value"], events);
    }

    /// Stops both, and returns where the region's cursor stands and how many frames it parked.
    async fn stop(self) -> (u64, u64) {
        self.region.stop().await;
        if let Some(central) = self.central {
            central.stop().await;
        }
        let store = Store::open(&self.folder.path().join("region")).unwrap();
        (store.cursor(Cursor::Forwarded).unwrap(), store.parked().unwrap().0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn central_gets_each_frame_once_whenever_it_is_there() {
    let (mut pair, mut shard, a) = (Pair::start().await, Shard::new(1), client("a"));
    for n in 0..10 {
        pair.send(shard.cut(one(&a, DAY + n))).await;
    }
    pair.wait_for(10).await;
    pair.stop_central().await;
    for n in 0..300 {
        pair.send(shard.cut(one(&a, DAY + n))).await;
    }
    pair.start_central("central = true").await;
    pair.wait_for(310).await;
    assert_eq!(pair.stop().await, (311, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_that_is_set_up_wrongly_is_waited_for() {
    let (mut pair, mut shard, a) = (Pair::start().await, Shard::new(1), client("a"));
    pair.send(shard.cut(one(&a, DAY))).await;
    pair.wait_for(1).await;
    pair.stop_central().await;
    // Not central, and of another region: it refuses each frame.
    let mut config = write_config(pair.folder.path(), "central", "");
    (config.link, config.region) = (pair.central_link, "us".into());
    pair.central = Some(Running::start(config).await);
    for n in 0..5 {
        pair.send(shard.cut(one(&a, DAY + n))).await;
    }
    pair.wait_for(1).await;
    pair.stop_central().await;
    pair.start_central("central = true").await;
    pair.wait_for(6).await;
    assert_eq!(pair.stop().await, (7, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_central_refuses_for_good_is_parked_and_holds_nothing_up() {
    let (pair, a) = (Pair::start().await, client("a"));
    let (mut shard, mut other) = (Shard::new(1), Shard::new(2));
    // Central knows another first frame of this producer.
    let direct = Client::new(pair.central_link.to_string(), tls(pair.folder.path()).client().unwrap()).unwrap();
    let acks = direct.send(vec![Shard::new(1).cut(one(&a, DAY + 1))]).await;
    assert_eq!(acks[0].as_ref().unwrap().status, Status::Stored);
    pair.send(shard.cut(one(&a, DAY))).await;
    pair.send(other.cut(one(&a, DAY))).await;
    pair.send(shard.cut(one(&a, DAY))).await;
    pair.send(other.cut(one(&a, DAY))).await;
    pair.wait_for(3).await;
    assert_eq!(pair.stop().await, (5, 2));
}
