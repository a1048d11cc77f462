//! The Worker: who may send, and to which shard. It passes bodies on unparsed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::rc::Rc;
use std::time::Duration;

use catchment_cells::ClientId;
use catchment_cells::credential::{Identity, WriteKey};
use catchment_cells::limits::REQUEST_BYTES_MAX;
use catchment_cells::route::{PlacementError, Route, place};
use catchment_cells::secret::equal_in_constant_time;
use catchment_collector::{Agent, Claims, Country, HOP_HEADER, Hints, Hop, RequestError, Visitor, country};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use siphasher::sip::SipHasher24;
use worker::wasm_bindgen::JsValue;
use worker::{Date, Delay, Env, Headers, Method, Request, RequestInit, Response, console_error};

use crate::answer::{Refusal, json, metrics, preflight};
use crate::config::Config;

/// How long a shard may take to answer.
pub(crate) const SHARD_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests of an isolate that may be in work; beyond, senders are told to come again.
const IN_WORK_MAX: usize = 256;
/// Those of one client: whoever has a site's key, which is public, shuts out no other.
const IN_WORK_OF_CLIENT_MAX: usize = 128;
/// A request that is in work for longer, in ms, waits for its sender rather than for us, and counts no more: else slow senders would
/// shut out all others.
const IN_WORK_MS: i64 = 5_000;
/// The binding of the shards' namespace.
const SHARDS: &str = "SHARD";

thread_local! {
    /// Read once for each isolate: an environment doesn't change.
    static CONFIG: RefCell<Option<Rc<Config>>> = const { RefCell::new(None) };
    /// Requests in work, by number, since when, in ms, and whose.
    static IN_WORK: RefCell<InWork> = const { RefCell::new(InWork { next: 0, since: BTreeMap::new() }) };
}

/// Requests in work.
struct InWork {
    next: u64,
    since: BTreeMap<u64, (i64, ClientId)>,
}

/// A place among the requests in work, given back when dropped.
struct Place(u64);

impl Place {
    /// Takes one, if there is one: what waits too long is sent again, so that more of it only makes all wait longer.
    fn take(client: &ClientId, now: i64) -> Result<Place, Refusal> {
        IN_WORK.with_borrow_mut(|in_work| {
            while let Some(oldest) = in_work.since.first_entry()
                && now - oldest.get().0 > IN_WORK_MS
            {
                oldest.remove();
            }
            let of_client = in_work.since.values().filter(|(_, other)| other == client).count();
            if in_work.since.len() >= IN_WORK_MAX || of_client >= IN_WORK_OF_CLIENT_MAX {
                return Err(Refusal::Busy);
            }
            in_work.next += 1;
            in_work.since.insert(in_work.next, (now, client.clone()));
            Ok(Place(in_work.next))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        IN_WORK.with_borrow_mut(|in_work| in_work.since.remove(&self.0));
    }
}

/// The settings; a mistake in them is logged.
pub(crate) fn config(env: &Env) -> Result<Rc<Config>, Refusal> {
    if let Some(config) = CONFIG.with_borrow(Clone::clone) {
        return Ok(config);
    }
    let config = Config::read(env).map_err(|error| {
        console_error!("the settings can't be used: {error}");
        Refusal::Misconfigured
    })?;
    let config = Rc::new(config);
    CONFIG.set(Some(config.clone()));
    Ok(config)
}

/// Answers one request.
pub(crate) async fn handle(request: Request, env: Env) -> Response {
    let path = request.path();
    let answer = match (request.method(), &*path) {
        (Method::Get, "/healthz") => config(&env).map(|_| json(200, &[], &"ok")),
        (Method::Options, "/v1/events") => Ok(preflight()),
        (Method::Post, "/v1/events") => take(request, &env).await,
        (_, "/v1/events") => Err(Refusal::Method),
        (Method::Get, "/v1/shard") => inspect(&request, &env).await,
        (Method::Get, "/metrics") => check_operator(&request, &env).map(|()| metrics()),
        _ => Err(Refusal::NotFound),
    };
    answer.unwrap_or_else(|refusal| refusal.counted().response())
}

/// `POST /v1/events`.
async fn take(mut request: Request, env: &Env) -> Result<Response, Refusal> {
    let config = config(env)?;
    let url = request.url().map_err(|_| Refusal::NotFound)?;
    let given = |parameter: &str, header: &str| {
        let in_query = url.query_pairs().find(|(name, _)| name == parameter).map(|(_, value)| value.into_owned());
        in_query.or_else(|| request.headers().get(header).ok().flatten())
    };
    let key = given("k", "x-catchment-key").ok_or(Refusal::Key)?;
    let key = WriteKey::parse(&config.secret, &key).map_err(|_| Refusal::Key)?;
    let _place = Place::take(&key.client, now())?;
    let route = match given("r", "x-catchment-route") {
        Some(text) => Route::parse(&text).map_err(|_| Refusal::Route)?,
        // A sender that knows of no routes: the client's first shard.
        None => Route { epoch: config.map.epoch, name: String::new() },
    };
    let unknown = |ended_ms_ago| Refusal::Epoch { present: config.map.epoch, ended_ms_ago };
    let map = config.map_of(route.epoch, now()).map_err(unknown)?;
    let placement = place(map, &key.client, &route, key.backfill).map_err(|error| match error {
        PlacementError::UnknownEpoch(_) => unknown(None),
        PlacementError::EmptyMap => Refusal::Misconfigured,
    })?;
    let visitor = visitor(&request, &config, &key.client);
    let mut claims = Claims::from(&key);
    // Global Privacy Control: who doesn't want to be told apart by an id, isn't.
    if request.headers().get("sec-gpc").ok().flatten().is_some_and(|value| value.trim() == "1") {
        claims.identity = Identity::Daily;
    }
    let hop = Hop { placement, claims, generation: key.generation, visitor };
    let length: Option<usize> =
        request.headers().get("content-length").ok().flatten().and_then(|length| length.parse().ok());
    let body = match length {
        Some(length) if length > REQUEST_BYTES_MAX => return Err(RequestError::TooLarge.into()),
        // Handed on as the stream that it is.
        Some(_) => request.inner().body().map(JsValue::from),
        None => Some(worker::js_sys::Uint8Array::from(&*read_bounded(&mut request).await?).into()),
    };
    let headers = Headers::new();
    headers.set(HOP_HEADER, &hop.to_header()).map_err(|_| Refusal::Misconfigured)?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(body);
    ask_shard(env, &hop.placement.shard, "https://shard/v1/events", &init).await
}

/// Now, in ms. The platform holds it still between I/O.
pub(crate) fn now() -> i64 {
    Date::now().as_millis() as i64
}

/// Lets operators in, who have the relays' token; to others there is nothing here.
fn check_operator(request: &Request, env: &Env) -> Result<(), Refusal> {
    let token = request.headers().get("authorization").ok().flatten();
    let token = token.as_deref().and_then(|token| token.strip_prefix("Bearer ")).unwrap_or_default();
    let expected = &config(env)?.relay_token;
    if equal_in_constant_time(token.as_bytes(), expected.as_bytes()) { Ok(()) } else { Err(Refusal::NotFound) }
}

/// `GET /v1/shard?name=…`: how a shard is.
async fn inspect(request: &Request, env: &Env) -> Result<Response, Refusal> {
    check_operator(request, env)?;
    let url = request.url().map_err(|_| Refusal::NotFound)?;
    let (_, name) = url.query_pairs().find(|(parameter, _)| parameter == "name").ok_or(Refusal::NotFound)?;
    ask_shard(env, &name, "https://shard/v1/shard", &RequestInit::new()).await
}

async fn ask_shard(env: &Env, shard: &str, url: &str, init: &RequestInit) -> Result<Response, Refusal> {
    let stub = env.durable_object(SHARDS).and_then(|shards| shards.get_by_name(shard));
    let stub = stub.map_err(|error| {
        console_error!("no shard {shard}: {error}");
        Refusal::Misconfigured
    })?;
    let request = Request::new_with_init(url, init).map_err(|_| Refusal::Unavailable)?;
    let answer = Box::pin(stub.fetch_with_request(request));
    match select(answer, Delay::from(SHARD_TIMEOUT)).await {
        Either::Left((Ok(response), _)) => Ok(response),
        Either::Left((Err(error), _)) => {
            console_error!("shard {shard} failed: {error}");
            Err(Refusal::Unavailable)
        }
        Either::Right(_) => {
            console_error!("shard {shard} did not answer in {SHARD_TIMEOUT:?}");
            Err(Refusal::Unavailable)
        }
    }
}

/// A body whose length nobody said, as far as it may go.
async fn read_bounded(request: &mut Request) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    let Ok(mut stream) = request.stream() else { return Ok(body) };
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk.map_err(|_| RequestError::Malformed)?);
        if body.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLarge.into());
        }
    }
    Ok(body)
}

/// What address and agent tell. Cloudflare says the address; elsewhere the proxy in front of workerd does.
fn visitor(request: &Request, config: &Config, client: &ClientId) -> Visitor {
    let get = |name: &str| request.headers().get(name).ok().flatten();
    let address = get("cf-connecting-ip").or_else(|| {
        get("x-forwarded-for").map(|addresses| addresses.split(',').next().unwrap_or_default().trim().to_owned())
    });
    let address = address.unwrap_or_default();
    let agent = get("user-agent").unwrap_or_default();
    let mut hasher = SipHasher24::new_with_key(&config.secret.identity_key(client));
    hasher.write(address.as_bytes());
    hasher.write(&[0]);
    hasher.write(agent.as_bytes());
    let [brands, platform] = ["sec-ch-ua", "sec-ch-ua-platform"].map(|name| get(name).unwrap_or_default());
    Visitor {
        hash: hasher.finish(),
        country: country_of(request, config, &address),
        agent: Agent::of_sender(&agent, Hints { brands: &brands, platform: &platform }, get("origin").is_some()),
    }
}

/// The country that the platform knows, or the proxy in front by the header that the settings name: a visitor could write any other. Else the
/// one that a file has for the address.
fn country_of(request: &Request, config: &Config, address: &str) -> Option<Country> {
    if let Some(known) = request.cf().and_then(|cf| cf.country()) {
        return country(&known);
    }
    let header = config.country_header.as_deref().and_then(|header| request.headers().get(header).ok().flatten());
    let said = header.and_then(|code| country(&code));
    said.or_else(|| config.countries.as_ref()?.of(address))
}
