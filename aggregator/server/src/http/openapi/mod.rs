//! The API's description: `/openapi.json`, made of what stands at each handler, and `/docs`, a page of it.

mod page;
pub(super) mod refusals;
pub(super) mod schemas;

use std::sync::LazyLock;

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::file::File;

/// The document without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Catchment",
        description = "Asks an aggregator of Catchment: figures with bounds, events that were rejected, clients' configs, and how the \
            process does.\n\n\
            A client is a site or an app whose events stay apart from all others'. Its read key says whose figures are told; an operator's \
            key sets up any client. `catchment-aggregator --keys` and `--operator-key` print them. Times are RFC 3339 or dates of the \
            client's clock, minutes are the smallest unit, and every refusal is a problem of RFC 9457, whose `detail` says what to do. The \
            bytes of live views and of cells are in docs/FORMATS.md."
    ),
    tags(
        (name = "questions", description = "Figures, each with its bounds. A read key is asked for."),
        (name = "dashboards", description = "Stored questions, answered together. Operators store those of a client."),
        (name = "events", description = "What was received, but not counted."),
        (name = "clients", description = "What a client is set up as. An operator's key is asked for."),
        (name = "process", description = "For supervisors and Prometheus. Nobody is asked for a key: keep the public out."),
    ),
    modifiers(&Keys)
)]
struct Frame;

/// The keys that are sent as bearer tokens.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let bearer = |description: &str| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
            SecurityScheme::Http(scheme.build())
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("read_key", bearer("A client's read key: `rk_<client>_<generation>_<mac>`."));
        components.add_security_scheme("operator_key", bearer("The operator's key: `ok_<generation>_<mac>`."));
    }
}

/// The document that routes add theirs to.
pub(super) fn frame() -> Document {
    Frame::openapi()
}

/// What is served of the description, by its path.
static FILES: LazyLock<[(&str, File); 3]> = LazyLock::new(|| {
    // The document's own types: each is JSON.
    let document = serde_json::to_value(super::routes().into_openapi()).unwrap_or_default();
    [
        ("/openapi.json", File::new("application/json", document.to_string())),
        ("/docs", File::new("text/html; charset=utf-8", page::html(&document))),
        ("/docs/page.css", File::new("text/css; charset=utf-8", page::CSS)),
    ]
});

/// What is at a path.
pub(super) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|(at, _)| *at == path).map(|(_, file)| file)
}
