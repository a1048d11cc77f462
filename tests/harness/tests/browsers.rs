//! What the edge does for browsers: it serves them the SDK, and heeds what they ask for with every request.

#![cfg(test)]

use std::time::Duration;

use catchment_cells::ClientId;
use catchment_harness::Cluster;
use jiff::Timestamp;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR_MS: i64 = 3_600_000;

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_serves_the_sdk() {
    let cluster = Cluster::builder().start().await.unwrap();
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let mut request = Client::new().request(method, format!("{}{path}", cluster.edge_url())).timeout(PATIENCE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    for path in ["/catchment.js", "/catchment-more.js"] {
        let whole = ask(Method::GET, path, &[]).await;
        assert_eq!(whole.status(), StatusCode::OK, "{path}");
        assert_eq!(header(&whole, "content-type"), "text/javascript; charset=utf-8");
        assert_eq!(header(&whole, "access-control-allow-origin"), "*");
        assert!(header(&whole, "cache-control").starts_with("public, max-age="));
        let tag = header(&whole, "etag").to_owned();
        let text = whole.text().await.unwrap();
        assert!(text.contains("catchment") || path != "/catchment.js", "{text}");
        assert!(!text.contains("__EPOCH__"), "the epoch is not written in");

        let known = ask(Method::GET, path, &[("if-none-match", &tag)]).await;
        assert_eq!((known.status(), header(&known, "etag")), (StatusCode::NOT_MODIFIED, &*tag));
        let other = ask(Method::GET, path, &[("if-none-match", "W/\"another\"")]).await;
        assert_eq!(other.status(), StatusCode::OK);
        let head = ask(Method::HEAD, path, &[]).await;
        assert_eq!((head.status(), header(&head, "etag")), (StatusCode::OK, &*tag));
        assert!(head.bytes().await.unwrap().is_empty());

        let small = ask(Method::GET, path, &[("accept-encoding", "gzip, deflate, br, zstd")]).await;
        assert_eq!((header(&small, "content-encoding"), header(&small, "vary")), ("br", "accept-encoding"));
        let bytes = small.bytes().await.unwrap().len();
        assert!(3 * bytes < 2 * text.len() && bytes > 100, "{bytes} of {}", text.len());
    }
    assert_eq!(ask(Method::GET, "/catchment-less.js", &[]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(Method::POST, "/catchment.js", &[]).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_may_send_and_read_the_answer() {
    let cluster = Cluster::builder().start().await.unwrap();
    let url = format!("{}/v1/events?k=none", cluster.edge_url());
    let answer = Client::new().post(&url).header("origin", "https://shop.example").body("{}").send().await.unwrap();
    assert_eq!((answer.status(), header(&answer, "access-control-allow-origin")), (StatusCode::UNAUTHORIZED, "*"));
    assert_eq!(header(&answer, "access-control-expose-headers"), "retry-after");
    let answer = Client::new().request(Method::OPTIONS, &url).header("origin", "https://shop.example").send();
    let answer = answer.await.unwrap();
    assert_eq!((answer.status(), header(&answer, "access-control-allow-methods")), (StatusCode::NO_CONTENT, "POST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn global_privacy_control_takes_ids_from_everyone() {
    let cluster = Cluster::builder().start().await.unwrap();
    let now = Timestamp::now().as_millisecond();
    let span = (now.div_euclid(HOUR_MS) * HOUR_MS, (now.div_euclid(HOUR_MS) + 1) * HOUR_MS);
    // Three people by their ids, on one address and with one agent.
    let send = async |client: &ClientId, gpc: Option<&'static str>| {
        let url = format!("{}/v1/events?k={}", cluster.edge_url(), cluster.live_key(client));
        for n in 0..3 {
            let event = json!({
                "event_id": format!("e-{n}"), "event_type": "page_view", "timestamp": now, "page": "/",
                "user_id": format!("u-{n}"), "device_id": format!("d-{n}"), "session_id": format!("s-{n}"),
            });
            let mut request = Client::new().post(&url).body(event.to_string()).timeout(PATIENCE);
            if let Some(value) = gpc {
                request = request.header("sec-gpc", value);
            }
            assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
        }
    };
    for (client, gpc, users) in [("known", None, 3), ("open", Some("0"), 3), ("private", Some("1"), 1)] {
        let client = ClientId::new(client).unwrap();
        send(&client, gpc).await;
        let api = cluster.api(&client);
        api.reaches("events", span, 3, PATIENCE).await.unwrap();
        assert_eq!(api.count("users", span).await.unwrap(), users, "{client} with {gpc:?}");
    }
}
