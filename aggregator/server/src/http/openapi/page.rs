//! `/docs`: the document as a page, without a script.

use std::fmt::Write;

use serde_json::{Map, Value};

/// How it looks.
pub(super) const CSS: &str = include_str!("page.css");

/// Methods, in the order in which a path's operations are shown.
const METHODS: [&str; 4] = ["get", "post", "put", "delete"];
/// What the document keeps schemas under.
const SCHEMAS: &str = "#/components/schemas/";

/// An operation: its path, its method, and what the document has of it.
type Operation<'a> = (&'a str, &'static str, &'a Value);

/// The page of a document.
pub(super) fn html(document: &Value) -> String {
    let info = &document["info"];
    let operations = operations(document);
    let (mut contents, mut sections) = (String::new(), String::new());
    for tag in list(&document["tags"]) {
        let (name, about) = (text(&tag["name"]), prose(text(&tag["description"])));
        let tagged = || operations.iter().filter(|(.., operation)| operation["tags"][0] == tag["name"]);
        let entry = |(path, method, operation): &Operation<'_>| {
            let (id, summary) = (text(&operation["operationId"]), inline(text(&operation["summary"])));
            format!("<li><a href=\"#{id}\"><code>{} {path}</code></a> {summary}</li>", method.to_uppercase())
        };
        contents += &format!("<h2>{name}</h2><ul>{}</ul>", tagged().map(entry).collect::<String>());
        let shown: String = tagged().map(|operation| show_operation(document, operation)).collect();
        sections += &format!("<section><h2 id=\"{name}\">{name}</h2>{about}{shown}</section>");
    }
    let shapes: String = fields(&document["components"]["schemas"]).map(show_schema).collect();
    let (title, version, about) = (text(&info["title"]), text(&info["version"]), prose(text(&info["description"])));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}: the HTTP API</title><link rel=\"stylesheet\" href=\"/docs/page.css\">\
         <header><h1>{title}: the HTTP API</h1><p>Version {version} · <a href=\"/openapi.json\">/openapi.json</a> (OpenAPI 3.1)</p>\
         {about}</header><nav aria-label=\"Operations\">{contents}<p><a href=\"#shapes\">Shapes</a></p></nav>\
         <main>{sections}<section><h2 id=\"shapes\">Shapes</h2>{shapes}</section></main></html>\n"
    )
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, item) in fields(&document["paths"]) {
        let of = |method: &&'static str| Some((path.as_str(), *method, item.get(*method)?));
        operations.extend(METHODS.iter().filter_map(of));
    }
    operations
}

fn show_operation(document: &Value, (path, method, operation): &Operation<'_>) -> String {
    let mut out = String::new();
    let id = text(&operation["operationId"]);
    let (summary, about) = (inline(text(&operation["summary"])), prose(text(&operation["description"])));
    // Writing to a string never fails, here and below.
    let _ = write!(
        out,
        "<article><h3 id=\"{id}\"><code><b>{}</b> {path}</code></h3><p>{summary}</p>{about}",
        method.to_uppercase()
    );
    for name in list(&operation["security"]).iter().flat_map(fields).map(|(name, _)| name) {
        let about = &document["components"]["securitySchemes"][name]["description"];
        let _ = write!(out, "<p><code>Authorization: Bearer …</code> {}</p>", inline(text(about)));
    }
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        out += "<table><thead><tr><th>Parameter<th>Type<th>Meaning<tbody>";
    }
    for parameter in parameters {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let must = if parameter["required"] == true { ", required" } else { "" };
        let (kind, about) = (kind(&parameter["schema"]), prose(text(&parameter["description"])));
        let example = example(&parameter["example"]);
        let _ =
            write!(out, "<tr><td><code>{name}</code><br><small>{place}{must}</small><td>{kind}<td>{about}{example}");
    }
    out += if parameters.is_empty() { "" } else { "</table>" };
    if let Some(body) = operation.get("requestBody") {
        let _ = write!(out, "<h4>Body</h4>{}{}", prose(text(&body["description"])), contents(&body["content"]));
    }
    out += "<table><thead><tr><th>Status<th>Answer<tbody>";
    for (status, response) in fields(&operation["responses"]) {
        let (about, contents) = (prose(text(&response["description"])), contents(&response["content"]));
        let _ = write!(out, "<tr><td><code>{status}</code><td>{about}{contents}");
        for (name, header) in fields(&response["headers"]) {
            let _ = write!(out, "<p><code>{name}</code>: {}</p>", inline(text(&header["description"])));
        }
    }
    out + "</table></article>"
}

/// Each media type with what it has.
fn contents(contents: &Value) -> String {
    let content = |(name, media): (&String, &Value)| format!("<p><code>{name}</code>: {}</p>", kind(&media["schema"]));
    fields(contents).map(content).collect()
}

fn show_schema((name, schema): (&String, &Value)) -> String {
    let mut out = format!("<article><h3 id=\"{name}\">{name}</h3>{}", prose(about(schema)));
    if schema["properties"].is_object() {
        out += "<table><thead><tr><th>Field<th>Type<th>Meaning<tbody>";
        for (field, shape) in fields(&schema["properties"]) {
            let must = if list(&schema["required"]).contains(&Value::from(field.as_str())) {
                ""
            } else {
                "<br><small>optional</small>"
            };
            let (kind, about) = (kind(shape), prose(about(shape)));
            let _ = write!(out, "<tr><td><code>{field}</code>{must}<td>{kind}<td>{about}");
            list(&shape["examples"]).iter().for_each(|value| out += &example(value));
        }
        out += "</table>";
    } else {
        let _ = write!(out, "<p>{}</p>", kind(schema));
    }
    for value in list(&schema["examples"]) {
        let pretty = serde_json::to_string_pretty(value).unwrap_or_default();
        let _ = write!(out, "<pre><code>{}</code></pre>", escape(&pretty));
    }
    out + "</article>"
}

/// What a schema is about. What may be null has that at the other that it may be.
fn about(schema: &Value) -> &str {
    let others = list(&schema["oneOf"]).iter();
    [schema].into_iter().chain(others).find_map(|schema| schema["description"].as_str()).unwrap_or_default()
}

/// What a schema lets be, in the words of JSON.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|target| target.strip_prefix(SCHEMAS)) {
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    for of in ["oneOf", "anyOf", "allOf"] {
        if let Some(schemas) = schema[of].as_array() {
            return schemas.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("<code>{}</code>", escape(text(value))))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let mut out = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect::<Vec<_>>().join(" or "),
        kind => text(kind).to_owned(),
    };
    if out.is_empty() {
        return "any".into();
    }
    for (of, word) in [("items", "of"), ("additionalProperties", "to")] {
        if schema[of].is_object() {
            let _ = write!(out, " {word} {}", kind(&schema[of]));
        }
    }
    for (bound, word) in [
        ("format", ""),
        ("minimum", "at least "),
        ("maximum", "at most "),
        ("minItems", "items: at least "),
        ("maxItems", "items: at most "),
        ("default", "by default "),
    ] {
        match &schema[bound] {
            Value::Null => {}
            value => _ = write!(out, ", {word}{}", escape(&plain(value))),
        }
    }
    out
}

/// An example, if there is one.
fn example(value: &Value) -> String {
    let values = match value {
        Value::Null => return String::new(),
        Value::Array(values) => values.iter().map(plain).collect(),
        value => vec![plain(value)],
    };
    let values: Vec<String> = values.iter().map(|value| format!("<code>{}</code>", escape(value))).collect();
    format!("<p><small>Example:</small> {}</p>", values.join(" "))
}

/// A text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Paragraphs.
fn prose(text: &str) -> String {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    paragraphs.map(|paragraph| format!("<p>{}</p>", inline(paragraph))).collect()
}

/// What stands between backticks is code.
fn inline(text: &str) -> String {
    let part = |(n, part): (usize, &str)| match n % 2 {
        0 => escape(part),
        _ => format!("<code>{}</code>", escape(part)),
    };
    text.split('`').enumerate().map(part).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn fields(value: &Value) -> serde_json::map::Iter<'_> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE).iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_texts() {
        let hostile = "<script>\"&";
        let document = json!({
            "info": { "title": "T", "description": hostile },
            "tags": [{ "name": "t", "description": hostile }],
            "paths": { "/a": { "get": {
                "operationId": "a", "tags": ["t"], "summary": format!("`{hostile}`"),
                "parameters": [{ "name": "p", "in": "query", "description": hostile, "example": hostile }],
                "responses": { "200": { "description": hostile } },
            } } },
            "components": { "schemas": { "S": { "examples": [hostile], "enum": [hostile] } } },
        });
        let page = html(&document);
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 9, "{page}");
        assert!(page.contains("<code>&lt;script&gt;&quot;&amp;</code>"), "{page}");
    }
}
