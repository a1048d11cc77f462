//! Paints what the model knows.

use js_sys::{Array, Intl, Object, Reflect};
use web_sys::Element;

use super::chart::{Drawing, Pointed};
use super::rows::Rows;
use super::{PAGE, dom, figures, paint_soon, tools};
use crate::calendar;
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
    /// The page as it came.
    blank: String,
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
    /// The cursor of the answer that it shows, the minute that it was shown in, and how many users there were.
    painted: Option<(String, i64, f64)>,
}

impl Painter {
    /// Of the page as it came.
    pub(super) fn new() -> Painter {
        let blank = dom::page_part("figures").map(|figures| figures.inner_html()).unwrap_or_default();
        let find = |panel: Panel| {
            let element = dom::document().query_selector(&format!("[data-panel={}]", panel.name())).ok()??;
            tools::add(panel, &element);
            Some(Place { panel, element, rows: Rows::default(), painted: None })
        };
        let options = Object::new();
        Reflect::set(&options, &"type".into(), &"region".into()).ok();
        let painter = Painter {
            blank,
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
            self.paint_title(model);
            dom::text_of("refusal", model.refusal().unwrap_or_default());
            return;
        }
        self.paint_connection(model, now);
        let minute = model.minute(now);
        let all = model.mirror(Panel::Users).map_or(0.0, |mirror| users::show(mirror).users.value);
        for place in &mut self.panels {
            let (panel, element) = (place.panel, &place.element);
            let (state, error) = state(model, panel);
            dom::set(element, "data-state", state);
            dom::set(element, "aria-busy", if state == "loading" { "true" } else { "false" });
            if let Some(message) = dom::part(element, "error") {
                dom::set_text(&message, error);
            }
            if panel.opens() {
                tools::set_open(element, model.link().open == Some(panel));
            }
            // Until another answer comes, the last one stays.
            let Some(mirror) = model.mirror(panel) else { continue };
            let painted = Some((mirror.cursor(), minute, all));
            let is_new = place.painted != painted;
            place.painted = painted;
            match panel {
                // Changed by the period before, too.
                Panel::Users => figures::users(element, model, &users::show(mirror), now),
                Panel::Revenue => figures::revenue(element, model, &revenue::show(mirror, model.currencies()), now),
                _ if !is_new => {}
                Panel::Active => {
                    let shown = active::show(mirror);
                    figures::active(element, &shown);
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
                        figures::table(element, &shown);
                    }
                    self.shown = Some(shown);
                }
                group => {
                    if let Some(list) = dom::part(element, "rows") {
                        let shown = groups::show(&mirror.rows(), group.is_by_users());
                        let lines = figures::lines(group, &shown, all, &self.countries);
                        place.rows.show(&list, &lines, ROW_PX, dom::motion());
                    }
                }
            }
        }
        self.paint_head(model);
        figures::reading(self.shown.as_ref(), self.pointed);
    }

    /// A hidden page isn't painted, but its tab has a title.
    pub(super) fn paint_hidden(&mut self, model: &Model) {
        self.active = model.mirror(Panel::Active).map(|mirror| active::show(mirror).users.value);
        self.paint_title(model);
    }

    /// Somebody else may look now: the page is as it came.
    pub(super) fn forget(&mut self) {
        if let Some(figures) = dom::page_part("figures") {
            figures.set_inner_html(&self.blank);
        }
        *self = Painter { toast: self.toast.take(), ..Painter::new() };
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
            figures::table(&place.element, shown);
        }
    }

    /// Says something in passing.
    pub(super) fn toast(&mut self, text: &str, now: i64) {
        self.toast = Some((text.into(), now + TOAST_MS));
    }

    fn paint_title(&self, model: &Model) {
        let title = if model.is_signed_in() {
            let count = self.active.map(|active| format!("{} now · ", format::count(active)));
            format!("{}{} · Catchment", count.unwrap_or_default(), model.client().unwrap_or("Your site"))
        } else {
            "Sign in · Catchment".into()
        };
        if dom::document().title() != title {
            dom::document().set_title(&title);
        }
    }

    fn paint_head(&self, model: &Model) {
        let client = model.client().unwrap_or("Your site");
        dom::text_of("client", client);
        let range = model.range();
        dom::text_of("clock", &calendar::clock_name());
        dom::text_of("range", &range.title());
        dom::text_of("grain", range.grain().title());
        let days = matches!(range, Range::Days(..));
        dom::text_of("dates", &if days { range.title() } else { "Dates".into() });
        for button in dom::all("[data-range]") {
            let word = button.get_attribute("data-range").unwrap_or_default();
            let pressed = word == range.word() || days && word == "days";
            dom::set(&button, "aria-pressed", if pressed { "true" } else { "false" });
        }
        self.paint_title(model);
        let silence = model.silence();
        for (name, when) in [("welcome", Silence::Ever), ("quiet", Silence::Here)] {
            if let Some(element) = dom::page_part(name) {
                dom::flag(&element, "hidden", silence != Some(when));
            }
        }
    }

    fn paint_toast(&mut self, now: i64) {
        self.toast.take_if(|(_, until)| now >= *until);
        dom::text_of("toast", self.toast.as_ref().map_or("", |(text, _)| text));
    }

    fn paint_connection(&mut self, model: &Model, now: i64) {
        let connection = model.connection();
        let (text, fresh) = connection.text(now, model.newest(now));
        if let Ok(Some(element)) = dom::document().query_selector("[data-connection]") {
            dom::set(&element, "data-connection", connection.word());
        }
        let outdated =
            model.is_outdated() && matches!(connection, Connection::Connecting(_) | Connection::Waiting { .. });
        dom::text_of("connection", if outdated { "This page is older than its server: reload it" } else { text });
        let fresh = if outdated { String::new() } else { fresh };
        dom::text_of("newest", if connection.has_newest(model.newest(now)) { "newest event" } else { "" });
        dom::text_of("fresh", &fresh);
        // Said aloud when it breaks, and when it is mended; not with every try.
        let spoken = match connection {
            Connection::Live => "live",
            Connection::Waiting { .. } => "broken",
            Connection::Offline => "offline",
            _ => self.spoken,
        };
        if spoken != self.spoken {
            match (self.spoken, spoken) {
                (_, "broken") => dom::text_of("spoken", "The connection broke. Trying again."),
                (_, "offline") => dom::text_of("spoken", "Offline. The figures stay as they were."),
                ("broken" | "offline", _) => dom::text_of("spoken", "Live again."),
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
                // Only where keys led there: the figures move on by themselves, too.
                if let Some((pointed, shown)) = pointed.zip(painter.shown.as_ref())
                    && pointed.walked
                    && pointed.at < shown.starts.len()
                {
                    dom::text_of("spoken", &figures::words(shown, pointed.at).replace('\n', ", "));
                }
            }
        });
        paint_soon();
    });
}

/// What is the matter with a panel, for styles and tests, and in words.
fn state(model: &Model, panel: Panel) -> (&'static str, &str) {
    let state = match (model.answer(panel), model.mirror(panel)) {
        (Answer::Refused(_, detail), _) => return ("error", detail),
        (_, Some(_)) if model.connection() != Connection::Live => "reconnecting",
        (_, Some(mirror)) if panel.is_empty(mirror) => "empty",
        (_, Some(_)) => "ready",
        // Without a currency there is nothing to ask.
        _ if panel == Panel::Revenue && model.currencies().is_empty() && model.is_money_known() => "empty",
        _ => "loading",
    };
    (state, "")
}
