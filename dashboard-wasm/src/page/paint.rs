//! Paints what the model knows.

use catchment_cells::Estimate;
use catchment_cells::row::OTHER;
use js_sys::{Array, Intl, Object, Reflect};
use wasm_bindgen::JsValue;
use web_sys::Element;

use super::chart::{Drawing, Pointed};
use super::rows::{Line, Rows};
use super::{PAGE, dom, paint_soon};
use crate::change::{Change, Direction};
use crate::connection::Connection;
use crate::format;
use crate::model::{Model, Silence};
use crate::panel::events::Shown;
use crate::panel::{Panel, active, events, groups, revenue, users};
use crate::range::Range;
use crate::subscriptions::Answer;

/// A row's height, as in the style sheet: 2.125rem.
const ROW_PX: f64 = 34.0;
/// How long a toast stays, in ms.
const TOAST_MS: i64 = 4_000;

/// What was painted, where it can't be read from the document.
pub(super) struct Painter {
    panels: Vec<Place>,
    drawing: Option<Drawing>,
    /// What the chart shows.
    shown: Option<Shown>,
    /// What is pointed at in it.
    pointed: Option<Pointed>,
    /// The chart's table is to be seen.
    tabled: bool,
    countries: Intl::DisplayNames,
    toast: Option<(String, i64)>,
    /// Active users, for the title.
    active: Option<f64>,
    /// The state of the connection that was spoken of last.
    spoken: &'static str,
}

/// A panel in the page.
struct Place {
    panel: Panel,
    element: Element,
    rows: Rows,
    /// The cursor of the answer that it shows, and the minute that it was shown in.
    painted: Option<(String, i64)>,
}

impl Painter {
    /// Of the page as it came.
    pub(super) fn new() -> Painter {
        let find = |panel: Panel| {
            let element = dom::document().query_selector(&format!("[data-panel={}]", panel.name())).ok()??;
            tools(panel, &element);
            Some(Place { panel, element, rows: Rows::default(), painted: None })
        };
        let options = Object::new();
        Reflect::set(&options, &"type".into(), &"region".into()).ok();
        let painter = Painter {
            panels: Panel::ALL.into_iter().filter_map(find).collect(),
            drawing: None,
            shown: None,
            pointed: None,
            tabled: false,
            countries: Intl::DisplayNames::new(&Array::of1(&"en".into()), &options),
            toast: None,
            active: None,
            spoken: "",
        };
        if let Some(minutes) = dom::page_part("minutes") {
            (0..active::MINUTES).for_each(|_| drop(dom::add(&minutes, "i", "")));
        }
        painter
    }

    /// Makes the page show what is known.
    pub(super) fn paint(&mut self, model: &Model, now: i64) {
        if let Some(root) = dom::root() {
            dom::flag(&root, "data-signed", model.is_signed_in());
        }
        self.paint_toast(now);
        if !model.is_signed_in() {
            dom::document().set_title("Sign in · Catchment");
            text_of("refusal", model.refusal().unwrap_or_default());
            return;
        }
        self.paint_connection(model, now);
        let minute = model.minute(now);
        for place in &mut self.panels {
            let (panel, element) = (place.panel, &place.element);
            let (state, error) = state(model, panel);
            dom::set(element, "data-state", state);
            dom::set(element, "aria-busy", if state == "loading" { "true" } else { "false" });
            if let Some(message) = dom::part(element, "error") {
                dom::set_text(&message, error);
            }
            if panel.opens() {
                paint_open(element, model.link().open == Some(panel));
            }
            // Until another answer comes, the last one stays.
            let Some(mirror) = model.mirror(panel) else { continue };
            match panel {
                // Also changed by the period before.
                Panel::Users => paint_users(element, model, &users::show(mirror)),
                Panel::Revenue => paint_revenue(element, model, &revenue::show(mirror, model.currencies())),
                _ => {
                    let painted = Some((mirror.cursor(), minute));
                    if std::mem::replace(&mut place.painted, painted.clone()) == painted {
                        continue;
                    }
                }
            }
            match panel {
                Panel::Users | Panel::Revenue => {}
                Panel::Active => {
                    let shown = active::show(mirror);
                    paint_active(element, &shown);
                    self.active = Some(shown.users.value);
                }
                Panel::Events => {
                    let shown = events::show(mirror, model.range(), minute);
                    if self.drawing.is_none() {
                        self.drawing = dom::part(element, "chart").map(|host| Drawing::new(&host, point));
                    }
                    if let Some(drawing) = &self.drawing {
                        drawing.show(&shown);
                    }
                    if self.tabled {
                        paint_table(element, &shown);
                    }
                    self.shown = Some(shown);
                }
                group => {
                    if let Some(list) = dom::part(element, "rows") {
                        let lines = lines(group, &groups::show(mirror), &self.countries);
                        place.rows.show(&list, &lines, ROW_PX, dom::motion());
                    }
                }
            }
        }
        self.paint_head(model);
        paint_reading(self.shown.as_ref(), self.pointed);
    }

    /// In the colours of now.
    pub(super) fn repaint(&self) {
        if let Some(drawing) = &self.drawing {
            drawing.repaint();
        }
    }

    /// Shows the chart's table, or hides it.
    pub(super) fn toggle_table(&mut self) {
        self.tabled = !self.tabled;
        for (name, on) in [("table", self.tabled), ("chart", !self.tabled)] {
            if let Some(element) = dom::page_part(name) {
                dom::flag(&element, "hidden", !on);
            }
        }
        if let Ok(Some(button)) = dom::document().query_selector("[data-action=table]") {
            dom::set(&button, "aria-pressed", if self.tabled { "true" } else { "false" });
        }
        if let Some(place) = self.panels.iter().find(|place| place.panel == Panel::Events)
            && let Some(shown) = self.shown.as_ref().filter(|_| self.tabled)
        {
            paint_table(&place.element, shown);
        }
    }

    /// Says something in passing.
    pub(super) fn toast(&mut self, text: &str, now: i64) {
        self.toast = Some((text.into(), now + TOAST_MS));
    }

    fn paint_head(&self, model: &Model) {
        let client = model.client().unwrap_or("Your site");
        text_of("client", client);
        let range = model.range();
        text_of("range", &range.title());
        text_of("grain", range.grain().title());
        let days = matches!(range, Range::Days(..));
        text_of("dates", &if days { range.title() } else { "Dates".into() });
        for button in dom::all("[data-range]") {
            let word = button.get_attribute("data-range").unwrap_or_default();
            let pressed = word == range.word() || days && word == "days";
            dom::set(&button, "aria-pressed", if pressed { "true" } else { "false" });
        }
        let count = self.active.map(|active| format!("{} now · ", format::count(active)));
        let title = format!("{}{client} · Catchment", count.unwrap_or_default());
        if dom::document().title() != title {
            dom::document().set_title(&title);
        }
        let silence = model.silence();
        for (name, when) in [("welcome", Silence::Ever), ("quiet", Silence::Here)] {
            if let Some(element) = dom::page_part(name) {
                dom::flag(&element, "hidden", silence != Some(when));
            }
        }
    }

    fn paint_toast(&mut self, now: i64) {
        self.toast.take_if(|(_, until)| now >= *until);
        text_of("toast", self.toast.as_ref().map_or("", |(text, _)| text));
    }

    fn paint_connection(&mut self, model: &Model, now: i64) {
        let connection = model.connection();
        let (text, fresh) = connection.text(now, model.heard());
        if let Ok(Some(element)) = dom::document().query_selector("[data-connection]") {
            dom::set(&element, "data-connection", connection.word());
        }
        text_of("connection", text);
        text_of("fresh", &fresh);
        // Said aloud when it breaks, and when it is mended; not with every try.
        let spoken = match connection {
            Connection::Live => "live",
            Connection::Waiting { .. } => "broken",
            Connection::Offline => "offline",
            _ => self.spoken,
        };
        if spoken != self.spoken {
            match (self.spoken, spoken) {
                (_, "broken") => text_of("spoken", "The connection broke. Trying again."),
                (_, "offline") => text_of("spoken", "Offline. The figures stay as they were."),
                ("broken" | "offline", _) => text_of("spoken", "Live again."),
                _ => {}
            }
            self.spoken = spoken;
        }
    }
}

/// The chart is pointed at, perhaps while it is drawn: painted with the next frame.
fn point(pointed: Option<Pointed>) {
    dom::next_frame(move || {
        PAGE.with(|page| {
            if let Some(painter) = &mut *page.painter.borrow_mut() {
                painter.pointed = pointed;
            }
        });
        paint_soon();
    });
}

/// What is the matter with a panel, for styles and tests, and in words.
fn state(model: &Model, panel: Panel) -> (&'static str, &str) {
    let live = model.connection() == Connection::Live;
    match (model.answer(panel), model.mirror(panel)) {
        (Answer::Refused(detail), _) => ("error", detail),
        (_, Some(mirror)) => {
            let empty = match panel {
                Panel::Active | Panel::Users | Panel::Events => false,
                Panel::Revenue => revenue::show(mirror, model.currencies()).is_empty(),
                _ => mirror.rows().is_empty(),
            };
            (
                if !live {
                    "reconnecting"
                } else if empty {
                    "empty"
                } else {
                    "ready"
                },
                "",
            )
        }
        // Without a currency there is nothing to ask.
        _ if panel == Panel::Revenue && model.currencies().is_empty() && model.mirror(Panel::Users).is_some() => {
            ("empty", "")
        }
        _ => ("loading", ""),
    }
}

fn paint_active(panel: &Element, shown: &active::Shown) {
    figure(panel, "figure", &format::count(shown.users.value), shown.users.value, Some(&shown.users));
    let margin = format::margin(&shown.users).map(|margin| format!(", {margin}"));
    text_of("window", &format!("in the last {} minutes{}", active::WINDOW, margin.unwrap_or_default()));
    let greatest = shown.minutes.iter().copied().fold(4.0, f64::max);
    if let Some(minutes) = dom::part(panel, "minutes") {
        for (at, users) in shown.minutes.iter().enumerate() {
            if let Some(bar) = minutes.children().item(at as u32) {
                dom::style(&bar, "--height", &format!("{:.3}", users / greatest));
            }
        }
    }
}

fn paint_users(panel: &Element, model: &Model, shown: &users::Shown) {
    figure(panel, "figure", &format::count(shown.users.value), shown.users.value, Some(&shown.users));
    if let Some(bounds) = dom::part(panel, "bounds") {
        dom::set_text(&bounds, &format::margin(&shown.users).unwrap_or_else(|| "exact".into()));
        dom::flag(&bounds, "hidden", shown.users.value == 0.0);
    }
    if let Some(meaning) = dom::part(panel, "meaning") {
        dom::set_text(&meaning, &format::meaning(&shown.users));
    }
    let change = model.change("users", shown.users.value);
    let than = if change.is_some() { format!("vs {}", model.range().before_title()) } else { String::new() };
    paint_change(panel, "change", change);
    text_of("than", &than);
    for (name, metric, figure_of) in
        [("events", "events", shown.events), ("page-views", "page_views", shown.page_views)]
    {
        if let Some(total) = dom::page_part(name) {
            dom::set_text(&total, &format::count(figure_of.value));
            dom::set(&total, "data-value", &figure_of.value.to_string());
        }
        if let Some(root) = dom::root() {
            paint_change(&root, &format!("{name}-change"), model.change(metric, figure_of.value));
        }
    }
}

fn paint_change(of: &Element, name: &str, change: Option<Change>) {
    let Some(element) = dom::part(of, name) else { return };
    dom::set_text(&element, change.as_ref().map_or("", |change| &change.text));
    let direction = match change.map(|change| change.direction) {
        Some(Direction::Up) => "up",
        Some(Direction::Down) => "down",
        _ => "level",
    };
    dom::set(&element, "data-direction", direction);
}

fn paint_reading(shown: Option<&Shown>, pointed: Option<Pointed>) {
    let Some(reading) = dom::page_part("reading") else { return };
    let found = pointed.zip(shown).filter(|(pointed, shown)| pointed.at < shown.starts.len());
    dom::flag(&reading, "hidden", found.is_none());
    if let Some((Pointed { at, edge, right }, shown)) = found {
        let [events, views, users] =
            [&shown.events, &shown.page_views, &shown.users].map(|series| format::count(series[at]));
        dom::set_text(&reading, &format!("{}\n{events} events\n{views} page views\n{users} users", shown.name(at)));
        dom::style(&reading, "--edge", &format!("{edge:.0}px"));
        dom::set(&reading, "data-side", if right { "right" } else { "left" });
    }
}

fn paint_table(panel: &Element, shown: &Shown) {
    let Some(host) = dom::part(panel, "table") else { return };
    host.set_text_content(None);
    let Some(table) = dom::add(&host, "table", "") else { return };
    let line = |cells: [String; 4], tag: &str, scope: &str| {
        let Some(row) = dom::add(&table, "tr", "") else { return };
        for (at, text) in cells.into_iter().enumerate() {
            let head = at == 0 || scope == "col";
            let Some(cell) = dom::add(&row, if head { "th" } else { tag }, "") else { return };
            dom::set_text(&cell, &text);
            if head {
                dom::set(&cell, "scope", scope);
            }
        }
    };
    line(["Time", "Events", "Page views", "Users"].map(str::to_owned), "th", "col");
    // The newest first: it is what changes.
    for at in (0..shown.starts.len()).rev() {
        let [events, views, users] =
            [&shown.events, &shown.page_views, &shown.users].map(|series| format::full(series[at].round()));
        line([shown.name(at), events, views, users], "td", "row");
    }
}

fn paint_revenue(panel: &Element, model: &Model, amounts: &[revenue::Amount]) {
    let Some(list) = dom::part(panel, "amounts") else { return };
    while list.child_element_count() > amounts.len() as u32 {
        if let Some(last) = list.last_element_child() {
            last.remove();
        }
    }
    for (at, amount) in amounts.iter().enumerate() {
        let made = || {
            let item = dom::add(&list, "li", "amount")?;
            for class in ["figure", "change", "average"] {
                let cell = dom::add(&item, "span", class)?;
                dom::set(&cell, "data-part", class);
            }
            Some(item)
        };
        let Some(item) = list.children().item(at as u32).or_else(made) else { continue };
        dom::set(&item, "data-row", &amount.currency);
        figure(&item, "figure", &format::money(amount.sum, &amount.currency), amount.sum, None);
        paint_change(&item, "change", model.change(&revenue::metric(&amount.currency), amount.sum));
        if let Some(average) = dom::part(&item, "average") {
            dom::set_text(&average, &format!("{} on average", format::money(amount.average, &amount.currency)));
        }
    }
}

fn lines(panel: Panel, shown: &groups::Shown, countries: &Intl::DisplayNames) -> Vec<Line> {
    // Only of a code that has the form of one: the browser throws at others.
    let country = |code: &str| {
        let code = Some(code).filter(|code| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase()))?;
        countries.of(code).map(String::from)
    };
    let line = |bar: &groups::Bar| {
        let rest = bar.value == OTHER;
        Line {
            badge: (panel == Panel::Countries && !rest).then(|| bar.value.clone()),
            name: groups::name(panel, &bar.value, country),
            users: format!("{} users", format::count(bar.users)),
            number: bar.events,
            figure: format::count(bar.events),
            share: format::percent(bar.events, shown.total),
            length: bar.length,
            value: bar.value.clone(),
            rest,
        }
    };
    shown.rows.iter().map(line).collect()
}

/// Shows a number, and says exactly what it is.
fn figure(of: &Element, name: &str, text: &str, value: f64, bounds: Option<&Estimate>) {
    let Some(element) = dom::part(of, name) else { return };
    dom::set_text(&element, text);
    dom::set(&element, "data-value", &value.to_string());
    if let Some(bounds) = bounds {
        dom::set(&element, "data-lower", &bounds.lower.to_string());
        dom::set(&element, "data-upper", &bounds.upper.to_string());
    }
}

fn text_of(part: &str, text: &str) {
    if let Some(element) = dom::page_part(part) {
        dom::set_text(&element, text);
    }
}

/// Adds what each panel has: its buttons, and where an error is said.
fn tools(panel: Panel, element: &Element) {
    let Ok(Some(header)) = element.query_selector("header") else { return };
    let title = header.query_selector("h2").ok().flatten().and_then(|title| title.text_content()).unwrap_or_default();
    let Some(tools) = dom::add(&header, "div", "tools") else { return };
    if panel == Panel::Events {
        tool(&tools, "table", "table", &format!("{title} as a table"));
    }
    tool(&tools, "csv", "save", &format!("Save {title} as CSV"));
    if panel.opens() {
        tool(&tools, "open", "open", &format!("Show more of {title}"));
    }
    if let Some(message) = dom::add(element, "p", "error") {
        dom::set(&message, "data-part", "error");
    }
}

fn tool(tools: &Element, action: &str, icon: &str, label: &str) {
    let Some(button) = dom::add(tools, "button", "tool") else { return };
    dom::set(&button, "data-action", action);
    dom::set(&button, "aria-label", label);
    dom::set(&button, "title", label);
    let svg = || -> Result<(), JsValue> {
        let namespace = Some("http://www.w3.org/2000/svg");
        let svg = dom::document().create_element_ns(namespace, "svg")?;
        svg.set_attribute("aria-hidden", "true")?;
        let shape = dom::document().create_element_ns(namespace, "use")?;
        shape.set_attribute("href", &format!("#{icon}"))?;
        svg.append_child(&shape)?;
        button.append_child(&svg)?;
        Ok(())
    };
    svg().ok();
}

fn paint_open(panel: &Element, open: bool) {
    dom::flag(panel, "data-open", open);
    if let Ok(Some(button)) = panel.query_selector("[data-action=open]") {
        dom::set(&button, "aria-expanded", if open { "true" } else { "false" });
        if let Ok(Some(shape)) = button.query_selector("use") {
            dom::set(&shape, "href", if open { "#close" } else { "#open" });
        }
    }
}
