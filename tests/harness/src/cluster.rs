//! A deployment: one edge, a relay and an aggregator per region, and a central aggregator if asked for.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use catchment_cells::credential::{Identity, OperatorKey, ReadKey, WriteKey};
use catchment_cells::{ClientId, Secret};
use serde_json::{Value, json};

use crate::process::{Process, Ready};
use crate::random::entropy;
use crate::{Api, Failure, Operator, Proxy, Random, Result, certificates, paths};

const RELAY_TOKEN: &str = "relay-token-of-the-harness";
const REGION_NAMES: [&str; 2] = ["eu", "us"];

/// What a cluster is made of.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    regions: usize,
    central: bool,
    proxies: bool,
    flush_s: Option<u32>,
    secret: Option<String>,
    dashboard: Option<PathBuf>,
    shard_requests_per_s: Option<u32>,
    earlier: Vec<String>,
    country_header: Option<String>,
    geoip: Option<PathBuf>,
}

/// The running processes, in a folder of their own. Dropping it kills them and removes the folder; while panicking it shows
/// their logs and keeps it.
#[derive(Debug)]
pub struct Cluster {
    /// workerd with the Worker.
    pub edge: Process,
    /// By region: `eu`, then `us`.
    pub regions: Vec<Region>,
    /// The central aggregator.
    pub central: Option<Process>,
    /// Between senders and the edge, if the cluster has proxies.
    pub before_edge: Option<Proxy>,
    folder: Folder,
    secret: Secret,
    edge_url: String,
    central_url: Option<String>,
}

/// One region.
#[derive(Debug)]
pub struct Region {
    /// Its name.
    pub name: &'static str,
    /// Its relay.
    pub relay: Process,
    /// Its aggregator.
    pub aggregator: Process,
    /// Between the edge and the relay, if the cluster has proxies.
    pub before_relay: Option<Proxy>,
    /// The relay: `http://host:port`.
    pub relay_url: String,
    /// The aggregator: `http://host:port`.
    pub aggregator_url: String,
    /// The aggregator's link: `host:port`.
    pub link_address: String,
}

impl Builder {
    /// One region, or two.
    pub fn regions(mut self, regions: usize) -> Self {
        self.regions = regions;
        self
    }

    /// Adds a central aggregator, which all regions forward to.
    pub fn central(mut self, central: bool) -> Self {
        self.central = central;
        self
    }

    /// Puts a [`Proxy`] before the edge and before each relay.
    pub fn proxies(mut self) -> Self {
        self.proxies = true;
        self
    }

    /// How soon aggregators flush, in seconds; without it, as they do by themselves.
    pub fn flush_s(mut self, seconds: u32) -> Self {
        self.flush_s = Some(seconds);
        self
    }

    /// Has every aggregator serve the dashboard in this folder.
    pub fn dashboard(mut self, folder: PathBuf) -> Self {
        self.dashboard = Some(folder);
        self
    }

    /// What one shard takes before it spreads a client; without it, as the edge has it.
    pub fn shard_requests_per_s(mut self, requests_per_s: u32) -> Self {
        self.shard_requests_per_s = Some(requests_per_s);
        self
    }

    /// The header that the edge takes visitors' countries from.
    pub fn country_header(mut self, header: &str) -> Self {
        self.country_header = Some(header.into());
        self
    }

    /// Gives the edge a file of countries by address.
    pub fn geoip(mut self, file: PathBuf) -> Self {
        self.geoip = Some(file);
        self
    }

    /// Another placement map takes the place of the one before, whose routes are taken until a time; the first is of epoch 1.
    pub fn next_map(mut self, until: &str) -> Self {
        self.earlier.push(until.into());
        self
    }

    /// Fixes the secret, and with it every hash, where a figure is to be the same in each run.
    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Makes certificates, keys and configurations, and starts everything.
    pub async fn start(mut self) -> Result<Cluster> {
        let folder = Folder::create()?;
        let dir = &folder.0;
        let text =
            self.secret.take().unwrap_or_else(|| entropy::<32>().iter().map(|byte| format!("{byte:02x}")).collect());
        let secret = Secret::new(text.as_bytes()).map_err(Failure::at("the cluster's secret"))?;
        write(&dir.join("secret"), &text)?;
        certificates::write(dir)?;

        let mut ports = Ports::new();
        let central = if self.central { Some(Place::new(&mut ports)) } else { None };
        let places = (0..self.regions.max(1)).map(|_| Place::new(&mut ports)).collect::<Vec<_>>();
        let names = REGION_NAMES.get(..places.len()).ok_or_else(|| Failure("there are at most two regions".into()))?;
        let homes: String =
            names.iter().zip(&places).map(|(name, place)| format!("{name} = \"{}\"\n", place.link())).collect();

        let mut regions = Vec::new();
        for (&name, place) in names.iter().zip(&places) {
            let relay_port = ports.next();
            let relay_url = format!("http://127.0.0.1:{relay_port}");
            let config = format!(
                "listen = \"127.0.0.1:{relay_port}\"\ntoken = \"{RELAY_TOKEN}\"\n\n{}\n[homes]\n{homes}",
                tls("relay")
            );
            let relay = native(dir, &format!("relay-{name}"), "catchment-relay", &config)?;
            let before_relay =
                if self.proxies { Some(Proxy::start(format!("127.0.0.1:{relay_port}")).await?) } else { None };
            regions.push(Region {
                name,
                relay,
                aggregator: place.aggregator(dir, name, central.as_ref(), &self)?,
                before_relay,
                relay_url,
                aggregator_url: place.http(),
                link_address: place.link(),
            });
        }

        let edge_address = format!("127.0.0.1:{}", ports.next());
        let storage = dir.join("edge");
        fs::create_dir(&storage).map_err(Failure::at("making the edge's storage"))?;
        let args = vec![
            "serve".into(),
            self.edge_config(dir)?.display().to_string(),
            "-s".into(),
            format!("http={edge_address}"),
            "-d".into(),
            format!("storage={}", storage.display()),
        ];
        let ready = Ready::Healthz(format!("http://{edge_address}/healthz"));
        let mut edge = Process::new("edge", paths::workerd()?, args, ready, dir);
        let placed: Vec<_> = regions
            .iter()
            .map(|region| {
                let proxy = region.before_relay.as_ref().map(|proxy| format!("http://{}", proxy.address()));
                json!({"name": region.name, "pools": 1, "relay": proxy.unwrap_or_else(|| region.relay_url.clone())})
            })
            .collect();
        edge.env("CATCHMENT_SECRET", Some(&text));
        let earlier: Vec<_> = (1..)
            .zip(&self.earlier)
            .map(|(epoch, until)| json!({"epoch": epoch, "regions": placed, "until": until}))
            .collect();
        let mut placement = json!({"epoch": 1 + earlier.len(), "regions": placed, "earlier": earlier});
        if let Some(requests_per_s) = self.shard_requests_per_s {
            placement["shard"] = json!({"requests_per_s": requests_per_s});
        }
        edge.env("PLACEMENT", Some(&placement.to_string()));
        edge.env("RELAY_TOKEN", Some(RELAY_TOKEN));
        edge.env("COUNTRY_HEADER", self.country_header.as_deref());
        let before_edge = if self.proxies { Some(Proxy::start(edge_address.clone()).await?) } else { None };
        let edge_url = format!("http://{}", before_edge.as_ref().map_or(edge_address.as_str(), Proxy::address));

        let central_url = central.as_ref().map(Place::http);
        let central = central.map(|place| place.aggregator(dir, "central", None, &self)).transpose()?;
        let mut cluster = Cluster { edge, regions, central, before_edge, folder, secret, edge_url, central_url };
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// The bundle's configuration; with a file of countries, a copy of both, bound as docs/OPERATIONS.md says.
    fn edge_config(&self, dir: &Path) -> Result<PathBuf> {
        let config = paths::edge_config()?;
        let Some(file) = &self.geoip else { return Ok(config) };
        let copy = dir.join("bundle");
        copy_folder(config.parent().unwrap_or(dir), &copy)?;
        fs::copy(file, copy.join("geoip.mmdb")).map_err(Failure::at("copying the file of countries"))?;
        let text = fs::read_to_string(&config).map_err(Failure::at("reading the edge's configuration"))?;
        let bound = text.replacen("bindings = [", "bindings = [(name = \"GEOIP\", data = embed \"geoip.mmdb\"),", 1);
        write(&copy.join("workerd.capnp"), &bound)?;
        Ok(copy.join("workerd.capnp"))
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let copying = || Failure::at("copying the edge's bundle");
    fs::create_dir_all(to).map_err(copying())?;
    for entry in fs::read_dir(from).map_err(copying())? {
        let entry = entry.map_err(copying())?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).map_err(copying())?;
        }
    }
    Ok(())
}

impl Cluster {
    /// Starts to describe one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    async fn start_all(&mut self) -> Result<()> {
        if let Some(central) = &mut self.central {
            central.start().await?;
        }
        for region in &mut self.regions {
            region.aggregator.start().await?;
            region.relay.start().await?;
        }
        self.edge.start().await
    }

    /// Where events go, through the proxy if there is one: `http://host:port`.
    pub fn edge_url(&self) -> &str {
        &self.edge_url
    }

    /// A write key's text.
    pub fn write_key(&self, key: &WriteKey) -> String {
        key.mint(&self.secret)
    }

    /// The write key's text of a client's live events, whose users are told apart by their ids.
    pub fn live_key(&self, client: &ClientId) -> String {
        let client = client.clone();
        let (identity, backfill, ignore_foreign_client) = (Identity::User, false, false);
        self.write_key(&WriteKey { client, identity, backfill, ignore_foreign_client, generation: 1 })
    }

    /// As [`live_key`](Self::live_key), for events that name many clients, of any time if they are a backfill.
    pub fn trace_key(&self, client: &ClientId, backfill: bool) -> String {
        let client = client.clone();
        let (identity, ignore_foreign_client) = (Identity::User, true);
        self.write_key(&WriteKey { client, identity, backfill, ignore_foreign_client, generation: 1 })
    }

    /// Asks where all figures are: the central aggregator, or the only region's.
    pub fn api(&self, client: &ClientId) -> Api {
        let url = self.central_url.as_ref().unwrap_or(&self.regions[0].aggregator_url);
        self.api_at(url, client)
    }

    /// Asks a certain aggregator.
    pub fn api_at(&self, url: &str, client: &ClientId) -> Api {
        Api::new(url.into(), ReadKey { client: client.clone(), generation: 1 }.mint(&self.secret))
    }

    /// Sets clients' configs where all figures are.
    pub fn operator(&self) -> Operator {
        let url = self.central_url.as_ref().unwrap_or(&self.regions[0].aggregator_url);
        Operator::new(url.clone(), OperatorKey { generation: 1 }.mint(&self.secret))
    }

    /// The deployment's secret: to make frames by hand.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What a shard shows to a relay.
    pub fn relay_token(&self) -> &'static str {
        RELAY_TOKEN
    }

    /// The folder with configurations, logs and data.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Every process there is.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let regions = self.regions.iter_mut().flat_map(|region| [&mut region.relay, &mut region.aggregator]);
        std::iter::once(&mut self.edge).chain(regions).chain(&mut self.central)
    }

    /// How a shard is: what the edge's `/v1/shard` shows.
    pub async fn shard(&self, name: &str) -> Result<Value> {
        let url = format!("{}/v1/shard?name={name}", self.edge_url);
        let ask = async {
            let answer = reqwest::Client::new().get(url).bearer_auth(RELAY_TOKEN).send().await?;
            answer.error_for_status()?.bytes().await
        };
        let shown = ask.await.map_err(Failure::at("asking for a shard"))?;
        serde_json::from_slice(&shown).map_err(Failure::at("reading a shard"))
    }

    /// A Prometheus counter of all relays, or all aggregators: the sum over its labels.
    pub async fn counter(&self, name: &str) -> Result<f64> {
        let mut sum = 0.0;
        for region in &self.regions {
            for url in [&region.relay_url, &region.aggregator_url] {
                let metrics = async { reqwest::get(format!("{url}/metrics")).await?.text().await };
                let metrics = metrics.await.map_err(Failure::at("reading metrics"))?;
                sum += sum_of(&metrics, name);
            }
        }
        Ok(sum)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in self.processes() {
                eprintln!("--- {}\n{}", process.name(), process.log_tail());
            }
            eprintln!("--- everything is in {}", self.folder.0.display());
        }
    }
}

/// Sums `name{…} value` and `name value` in Prometheus' text format.
fn sum_of(metrics: &str, name: &str) -> f64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
    metrics.lines().filter(of_name).filter_map(value).sum()
}

/// An aggregator's two addresses.
struct Place {
    http: u16,
    link: u16,
}

impl Place {
    fn new(ports: &mut Ports) -> Place {
        Place { http: ports.next(), link: ports.next() }
    }

    fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    fn link(&self) -> String {
        format!("127.0.0.1:{}", self.link)
    }

    fn aggregator(&self, dir: &Path, region: &str, upstream: Option<&Place>, wanted: &Builder) -> Result<Process> {
        let store = wanted.flush_s.map(|seconds| format!("\n[store]\nflush_s = {seconds}\n")).unwrap_or_default();
        let dashboard =
            wanted.dashboard.as_ref().map(|folder| format!("dashboard = {:?}\n", folder.display().to_string()));
        let upstream =
            upstream.map(|place| format!("\n[upstream]\naddress = \"{}\"\n", place.link())).unwrap_or_default();
        let config = format!(
            "region = \"{region}\"\ncentral = {}\ndata = \"data-{region}\"\nhttp = \"127.0.0.1:{}\"\nlink = \"{}\"\n\
             secret_file = \"secret\"\n{}\n{}{upstream}{store}",
            region == "central",
            self.http,
            self.link(),
            dashboard.unwrap_or_default(),
            tls("aggregator"),
        );
        native(dir, &format!("aggregator-{region}"), "catchment-aggregator", &config)
    }
}

fn tls(name: &str) -> String {
    format!("[tls]\nca = \"ca.pem\"\ncert = \"{name}.pem\"\nkey = \"{name}.key\"\n")
}

/// A program of ours, run with a configuration file.
fn native(dir: &Path, name: &str, program: &str, config: &str) -> Result<Process> {
    let path = dir.join(format!("{name}.toml"));
    write(&path, config)?;
    let args = vec!["--config".into(), path.display().to_string()];
    Ok(Process::new(name, paths::program(program)?, args, Ready::Line, dir))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Failure::at(path.display()))
}

/// Free ports, which stay the same over restarts. Below those that the system hands out by itself, so that no
/// connection takes one while its owner is down.
struct Ports {
    next: u16,
}

impl Ports {
    fn new() -> Ports {
        Ports { next: Random::new(u64::from_le_bytes(entropy())).between(10_000, 30_000) as u16 }
    }

    fn next(&mut self) -> u16 {
        loop {
            self.next = if self.next >= 32_000 { 10_000 } else { self.next + 1 };
            let address = ("127.0.0.1", self.next);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                return self.next;
            }
        }
    }
}

/// A folder that is removed when dropped, unless something went wrong.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Folder> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let path = std::env::temp_dir().join(format!("catchment-{}-{now}-{count}", std::process::id()));
        fs::create_dir_all(&path).map_err(Failure::at("making a folder for the cluster"))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let text =
            "# TYPE a_total counter\na_total{home=\"eu\"} 3\na_total{home=\"us\"} 4\na_total_more 9\na_total 1\n";
        assert_eq!(sum_of(text, "a_total"), 8.0);
    }
}
