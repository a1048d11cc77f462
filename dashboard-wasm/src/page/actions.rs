//! What the reader does: buttons say in `data-action` what they are for.

use js_sys::{Array, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Blob, BlobPropertyBag, Element, HtmlAnchorElement, HtmlElement, HtmlInputElement, Url};

use super::{dom, happen, http, paint_soon, read, storage, with_painter};
use crate::calendar::Date;
use crate::link::Link;
use crate::model::{Event, Model};
use crate::panel::{Panel, groups};
use crate::range::Range;

/// How long a file is kept for the browser to fetch it, in ms.
const SAVED_MS: i32 = 40_000;

/// Listens to the whole page at once.
pub(super) fn listen() {
    let document = dom::document();
    dom::on(&document, "click", |event: web_sys::Event| {
        let target = event.target().and_then(|target| target.dyn_into::<Element>().ok());
        if let Some(button) = target.and_then(|target| target.closest("[data-action]").ok().flatten()) {
            act(&button);
        }
    });
    dom::on(&document, "submit", |event: web_sys::Event| {
        event.prevent_default();
        let form = event.target().and_then(|target| target.dyn_into::<Element>().ok());
        match form.and_then(|form| form.get_attribute("data-part")).as_deref() {
            Some("key-form") => sign_in(),
            Some("dates-form") => show_dates(),
            _ => {}
        }
    });
    dom::on(&document, "keydown", |event: web_sys::KeyboardEvent| {
        if event.key() == "Escape" {
            leave();
        }
    });
    if let Ok(Some(dark)) = dom::window().match_media("(prefers-color-scheme: dark)") {
        dom::on(&dark, "change", |_: web_sys::Event| with_painter(|painter, _| painter.repaint()));
    }
}

fn act(button: &Element) {
    let link = read(|model| model.link());
    let name = button.closest("[data-panel]").ok().flatten().and_then(|panel| panel.get_attribute("data-panel"));
    let panel = name.and_then(|name| Panel::parse(&name));
    match (button.get_attribute("data-action").as_deref(), panel) {
        (Some("range"), _) => {
            if let Some(range) = button.get_attribute("data-range").and_then(|word| Range::parse(&word)) {
                fold_dates(true);
                happen(Event::Look(Link { range, ..link }));
            }
        }
        (Some("dates"), _) => ask_dates(),
        (Some("open"), Some(panel)) => {
            let open = (link.open != Some(panel)).then_some(panel);
            happen(Event::Look(Link { open, ..link }));
            // After the frame that moves it.
            let button = button.clone();
            dom::next_frame(move || dom::next_frame(move || dom::reveal(&button)));
        }
        (Some("csv"), Some(panel)) => save(panel),
        (Some("table"), _) => {
            with_painter(|painter, _| painter.toggle_table());
            paint_soon();
        }
        // The address says what is looked at, and not the key.
        (Some("copy"), _) => {
            let address = dom::window().location().href().unwrap_or_default();
            copy(address, "Link copied. Whoever opens it signs in with a key of their own.");
        }
        (Some("copy-line"), _) => {
            let line = dom::page_part("snippet").and_then(|snippet| snippet.text_content());
            copy(line.unwrap_or_default(), "Copied");
        }
        (Some("theme"), _) => switch_theme(),
        (Some("sign-out"), _) => happen(Event::SignOut),
        (Some("skip"), _) => focus("figures"),
        _ => {}
    }
}

/// Leaves what was opened last: the dates, or else the panel that is shown large.
fn leave() {
    let dates = dom::page_part("dates-form").is_some_and(|form| !form.has_attribute("hidden"));
    let link = read(|model| model.link());
    if dates {
        fold_dates(true);
        focus("dates-button");
    } else if link.open.is_some() {
        happen(Event::Look(Link { open: None, ..link }));
    }
}

/// Focuses what the next frame shows.
pub(super) fn focus_soon(id: &'static str) {
    dom::next_frame(move || dom::next_frame(move || focus(id)));
}

fn focus(id: &str) {
    if let Some(element) =
        dom::document().get_element_by_id(id).and_then(|element| element.dyn_into::<HtmlElement>().ok())
    {
        element.focus().ok();
    }
}

fn input(part: &str) -> Option<HtmlInputElement> {
    dom::page_part(part)?.dyn_into().ok()
}

fn sign_in() {
    if let Some(input) = input("key") {
        happen(Event::SignIn(input.value()));
        input.set_value("");
        if read(Model::is_signed_in) {
            focus_soon("figures");
        }
    }
}

/// Folds the two dates away, or out.
fn fold_dates(away: bool) {
    if let Some(form) = dom::page_part("dates-form") {
        dom::flag(&form, "hidden", away);
    }
    if let Ok(Some(button)) = dom::document().query_selector("[data-action=dates]") {
        dom::set(&button, "aria-expanded", if away { "false" } else { "true" });
    }
}

/// Asks for two dates; those of what is looked at stand there first.
fn ask_dates() {
    let away = dom::page_part("dates-form").is_some_and(|form| !form.has_attribute("hidden"));
    fold_dates(away);
    let (Some(from), Some(to)) = (input("from"), input("to")) else { return };
    let span = read(|model| model.range().span(model.minute(js_sys::Date::now() as i64)));
    from.set_value(&Date::of(span.start).to_string());
    to.set_value(&Date::of(span.end - 1).to_string());
    if !away {
        from.focus().ok();
    }
}

fn show_dates() {
    let (Some(from), Some(to), Some(refusal)) = (input("from"), input("to"), dom::page_part("dates-refusal")) else {
        return;
    };
    let (from, to) = (Date::parse(&from.value()), Date::parse(&to.value()));
    match from.zip(to).and_then(|(from, to)| Range::days(from, to)) {
        Some(range) => {
            dom::set_text(&refusal, "");
            fold_dates(true);
            let link = read(|model| model.link());
            happen(Event::Look(Link { range, ..link }));
            focus("dates-button");
        }
        None => {
            dom::set_text(&refusal, "Choose a first and a last day, at most three years apart.");
        }
    }
}

/// Saves a panel's figures as they are now; of rows also those that aren't on the page.
fn save(panel: Panel) {
    let (range, name) = read(|model| {
        let range = model.range();
        (range, panel.file_name(model.client().unwrap_or_default(), range))
    });
    if let Some(question) = panel.question_of_file(range) {
        spawn_local(async move {
            // Without an answer, those that are.
            let shown = || read(|model| model.mirror(panel).map(|mirror| mirror.rows()));
            match http::rows(&question).await.or_else(shown) {
                Some(rows) => hand_over(&name, &groups::csv(&groups::show(&rows, panel.is_by_users()), panel)),
                None => say("There is nothing to save yet"),
            }
        });
        return;
    }
    let minute = |model: &Model| model.minute(js_sys::Date::now() as i64);
    match read(|model| Some(panel.csv(model.mirror(panel)?, range, minute(model), model.currencies()))) {
        Some(text) => hand_over(&name, &text),
        None => say("There is nothing to save yet"),
    }
}

fn hand_over(name: &str, text: &str) {
    say(if download(name, text).is_ok() { "Saved as CSV" } else { "This browser saves no files" });
}

fn download(name: &str, text: &str) -> Result<(), JsValue> {
    let kind = BlobPropertyBag::new();
    kind.set_type("text/csv;charset=utf-8");
    // The mark tells Excel that it is UTF-8.
    let blob = Blob::new_with_str_sequence_and_options(&Array::of2(&"\u{feff}".into(), &text.into()), &kind)?;
    let url = Url::create_object_url_with_blob(&blob)?;
    let link: HtmlAnchorElement = dom::document().create_element("a")?.dyn_into()?;
    link.set_href(&url);
    link.set_download(name);
    link.click();
    // Some browsers read it only after a while, and some ask first.
    dom::after(SAVED_MS, move || drop(Url::revoke_object_url(&url)));
    Ok(())
}

/// Copies a text; pages that came without TLS have no clipboard: there it is shown.
fn copy(text: String, done: &'static str) {
    let navigator = dom::window().navigator();
    if !Reflect::get(&navigator, &"clipboard".into()).is_ok_and(|clipboard| clipboard.is_object()) {
        return say(&text);
    }
    let written = navigator.clipboard().write_text(&text);
    spawn_local(async move {
        match JsFuture::from(written).await {
            Ok(_) => say(done),
            Err(_) => say(&text),
        }
    });
}

fn switch_theme() {
    let Some(root) = dom::root() else { return };
    let chosen = root.get_attribute("data-theme");
    let dark = match chosen.as_deref() {
        Some(theme) => theme == "dark",
        None => dom::matches("(prefers-color-scheme: dark)"),
    };
    let theme = if dark { "light" } else { "dark" };
    dom::set(&root, "data-theme", theme);
    storage::keep_theme(theme);
    with_painter(|painter, _| painter.repaint());
}

fn say(text: &str) {
    with_painter(|painter, _| painter.toast(text, js_sys::Date::now() as i64));
    paint_soon();
}
