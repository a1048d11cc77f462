//! The API's description: it is OpenAPI 3.1, of all that is served and nothing else, and true.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use boon::{Compiler, Schemas};
use catchment_cells::credential::OperatorKey;
use catchment_cells::frame::CellsBlock;
use catchment_link::Client;
use serde_json::{Value, json};

use super::kit::{DAY, Folder, Shard, client, event, secret};
use super::serving::{Running, header, read_key, tls, write_config, write_files};
use crate::http::routes;

/// Where the document is, to a validator.
const AT: &str = "https://aggregator.test/openapi.json";

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(routes().into_openapi()).unwrap());

/// The operations of the document: their paths, methods, and what it has of them.
fn operations() -> impl Iterator<Item = (&'static String, &'static String, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, of)| (path, method, of)))
}

/// Validates a value by the schema that the document has at a place: the names that lead to it.
fn validate(place: &[&str], value: &Value) {
    let escape = |name: &&str| name.replace('~', "~0").replace('/', "~1").replace('{', "%7B").replace('}', "%7D");
    let pointer: String = place.iter().map(|name| format!("/{}", escape(name))).collect();
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    compiler.add_resource(AT, DOCUMENT.clone()).unwrap();
    let schema = compiler.compile(&format!("{AT}#{pointer}"), &mut schemas).unwrap();
    if let Err(error) = schemas.validate(value, schema) {
        panic!("{pointer}: {value}\n{error:#}");
    }
}

/// Holds an answer against the document, if it is about what is asked.
pub(super) fn check(request: &str, head: &str, body: &[u8]) {
    let (method, target) = request.split_once(' ').unwrap();
    let path = target.split('?').next().unwrap();
    let is_of = |template: &str| {
        let (ours, theirs) = (template.split('/'), path.split('/'));
        ours.clone().count() == theirs.clone().count()
            && ours.zip(theirs).all(|(ours, theirs)| ours == theirs || ours.starts_with('{'))
    };
    let found = operations().find(|(template, of, _)| is_of(template) && **of == method.to_lowercase());
    let Some((path, method, operation)) = found else { return };
    let status = &head[9..12];
    // What is said of the request's head as such, to any path.
    if ["414", "431"].contains(&status) {
        return;
    }
    let response = &operation["responses"][status];
    assert!(response.is_object(), "{request}: {status} is not described");
    let content_type = header(head, "content-type");
    let media_type = content_type.split(';').next().unwrap();
    if media_type.is_empty() {
        assert!(response["content"].is_null() && body.is_empty(), "{request}: {status} has content");
        return;
    }
    assert!(response["content"][media_type].is_object(), "{request}: {status} isn't described as {media_type}");
    for required in ["etag", "retry-after", "www-authenticate"] {
        assert_eq!(
            response["headers"][required].is_object(),
            !header(head, required).is_empty(),
            "{request}: {required}"
        );
    }
    if media_type.ends_with("json") {
        let place = ["paths", path, method, "responses", status, "content", media_type, "schema"];
        validate(&place, &serde_json::from_slice(body).unwrap());
    }
}

#[test]
fn the_document_is_openapi() {
    let meta: Value = serde_json::from_str(include_str!("data/openapi-3.1.json")).unwrap();
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    compiler.add_resource("https://schemas.test/openapi.json", meta).unwrap();
    let schema = compiler.compile("https://schemas.test/openapi.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(&DOCUMENT, schema) {
        panic!("{error:#}");
    }
    let mut broken = DOCUMENT.clone();
    broken["paths"]["/api/v1/metrics"]["get"]["responses"]["200"]["description"] = Value::Null;
    assert!(schemas.validate(&broken, schema).is_err());

    // What is referred to is there, names are unique, and all is said in words.
    let mut ids = BTreeSet::new();
    let keys = DOCUMENT["components"]["securitySchemes"].as_object().unwrap();
    for (path, method, operation) in operations() {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path} {method}");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{path} {method}");
        let tags = DOCUMENT["tags"].as_array().unwrap();
        assert!(tags.iter().any(|tag| tag["name"] == operation["tags"][0]), "{path} {method}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(!parameter["description"].as_str().unwrap().is_empty(), "{path} {method} {parameter}");
        }
        for key in
            operation["security"].as_array().into_iter().flatten().flat_map(|key| key.as_object().unwrap().keys())
        {
            assert!(keys.contains_key(key), "{path} {method}");
        }
    }
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().unwrap() {
        // What may be null is described at the other that it may be.
        let is_described = |schema: &Value| {
            let others = schema["oneOf"].as_array().into_iter().flatten();
            [schema]
                .into_iter()
                .chain(others)
                .any(|schema| schema["description"].as_str().is_some_and(|text| !text.is_empty()))
        };
        assert!(is_described(schema), "{name}");
        for (field, shape) in schema["properties"].as_object().into_iter().flatten() {
            assert!(is_described(shape), "{name}.{field}: {shape}");
        }
        // Compiles it, and all that it refers to.
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        compiler.add_resource(AT, DOCUMENT.clone()).unwrap();
        compiler.compile(&format!("{AT}#/components/schemas/{name}"), &mut schemas).unwrap();
        for example in schema["examples"].as_array().into_iter().flatten() {
            validate(&["components", "schemas", name], example);
        }
    }
}

#[test]
fn the_document_has_every_route_and_no_other() {
    // A router tells its paths to nobody but who debugs it; those of its fallback are its own.
    let router = format!("{:?}", routes().split_for_parts().0);
    let paths = router.split("fallback_router").next().unwrap().split('"').filter(|part| part.starts_with('/'));
    let served: BTreeSet<String> = paths.map(str::to_owned).collect();
    let described: BTreeSet<String> = operations().map(|(path, ..)| path.clone()).collect();
    assert_eq!(served, described);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_served_and_its_examples_are_taken() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let (head, body) = server.fetch("GET /openapi.json", "").await;
    assert_eq!((&head[9..12], &*header(&head, "content-type")), ("200", "application/json"));
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), *DOCUMENT);
    let (head, page) = server.fetch("GET /docs", "").await;
    let page = String::from_utf8(page).unwrap();
    assert_eq!((&head[9..12], &*header(&head, "content-type")), ("200", "text/html; charset=utf-8"));
    assert!(header(&head, "content-security-policy").contains("default-src 'none'"));
    let (head, _) = server.fetch("GET /docs/page.css", "").await;
    assert_eq!((&head[9..12], &*header(&head, "content-type")), ("200", "text/css; charset=utf-8"));
    assert_eq!(&server.fetch("POST /openapi.json", "").await.0[9..12], "405");

    let keys = json!({ "read_key": read_key("shop"), "operator_key": OperatorKey { generation: 1 }.mint(&secret()) });
    for (path, method, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(page.contains(&format!("<h3 id=\"{id}\">")), "{id}");
        // What takes a method refuses others, and says which it takes.
        let (head, _) = server.fetch(&format!("PATCH {}", path.replace(['{', '}'], "")), "").await;
        let allowed = header(&head, "allow").to_lowercase();
        assert!(&head[9..12] == "405" && allowed.split(',').any(|allowed| allowed == *method), "{id}: {head}");

        // With the examples of all its parameters: once, and those of the range in place of the last units.
        let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
        let key = &operation["security"][0].as_object().and_then(|of| of.keys().next()).map(|name| &keys[name]);
        let mut headers =
            key.map_or(String::new(), |key| format!("Authorization: Bearer {}\r\n", key.as_str().unwrap()));
        let content = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let name = content.as_str().and_then(|target| target.rsplit('/').next()).unwrap_or_default();
        let body = &DOCUMENT["components"]["schemas"][name]["examples"][0];
        let body = if body.is_null() { "{}".into() } else { body.to_string() };
        headers += &format!("Content-Length: {}\r\n", body.len());
        for without in [&["start", "end"][..], &["last"]] {
            let mut query = form_urlencoded::Serializer::new(String::new());
            let mut path = path.clone();
            for parameter in &parameters {
                let (name, example) = (parameter["name"].as_str().unwrap(), &parameter["example"]);
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                match parameter["in"].as_str().unwrap() {
                    "path" => path = path.replace(&format!("{{{name}}}"), &text(example)),
                    "query" if !without.contains(&name) => {
                        let values = example.as_array().map_or(std::slice::from_ref(example), Vec::as_slice);
                        values.iter().for_each(|value| _ = query.append_pair(name, &text(value)));
                    }
                    _ => {}
                }
            }
            let request = format!("{} {path}?{}", method.to_uppercase(), query.finish());
            let (head, said) = server.send(&request, &headers, &body).await;
            // No cube has all that the examples of one question are about; nobody upgrades here.
            let expected: &[&str] = match id {
                "metrics" => &["422"],
                "live" => &["400"],
                _ => &["200", "204"],
            };
            assert!(expected.contains(&&head[9..12]), "{request}: {head}\n{}", String::from_utf8_lossy(&said));
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_and_what_it_has_folded_are_as_described() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let operator = OperatorKey { generation: 1 }.mint(&secret());
    let put = async |config: Value| {
        let body = config.to_string();
        let headers = format!("Authorization: Bearer {operator}\r\nContent-Length: {}\r\n", body.len());
        let (head, body) = server.send("PUT /api/v1/clients/a/config", &headers, &body).await;
        (head[9..12].to_owned(), serde_json::from_slice::<Value>(&body).unwrap())
    };
    // With all that a config may have.
    let config = json!({
        "dimensions": { "brand": "brand" },
        "cubes": [{ "name": "brands", "dimensions": ["brand", "country"], "digest": true }],
        "measures": ["duration"],
        "lateness_minutes": 60,
        "lookups": [{ "dimension": "category", "from": "product", "values": { "mug": "kitchen" } }],
        "schemas": { "mode": "warn", "events": { "buy": { "fields": { "size": { "type": "string", "enum": ["s", "m"] } } } } },
        "limits": { "values_per_dimension": 100 },
    });
    assert_eq!(put(config.clone()).await.0, "200");
    validate(&["components", "schemas", "Config"], &config);
    assert_eq!(put(json!({ "colour": "red" })).await.0, "422");

    let relay = Client::new(server.link.to_string(), tls(folder.path()).client().unwrap()).unwrap();
    let mut block = CellsBlock::default();
    (0..1_000).for_each(|n| event(&mut block, &client("a"), DAY, &format!("/{n}"), n, 1));
    relay.send(vec![Shard::new(1).cut(block)]).await;
    // Folded once it is flushed, which it is within a tenth of a second.
    let query = "metric=events&group_by=page&start=2024-01-01&end=2024-01-02";
    for _ in 0..100 {
        if server.ask("a", query).await["meta"]["folded"] == json!(["page"]) {
            return server.stop().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("nothing was folded");
}
