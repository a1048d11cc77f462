//! What each panel shows, painted.

use catchment_cells::Estimate;
use catchment_cells::row::OTHER;
use js_sys::Intl;
use web_sys::Element;

use super::chart::Pointed;
use super::dom;
use super::rows::Line;
use crate::change::{Change, Direction};
use crate::format;
use crate::model::Model;
use crate::panel::events::Shown;
use crate::panel::revenue::Amount;
use crate::panel::{self, Panel};

/// Who is there now.
pub(super) fn active(element: &Element, shown: &panel::active::Shown) {
    figure(element, "figure", &format::count(shown.users.value), shown.users.value, Some(&shown.users));
    let margin = format::margin(&shown.users).map(|margin| format!(", {margin}"));
    dom::text_of("window", &format!("in the last {} minutes{}", panel::active::WINDOW, margin.unwrap_or_default()));
    let greatest = shown.minutes.iter().copied().fold(4.0, f64::max);
    if let Some(minutes) = dom::part(element, "minutes") {
        for (at, users) in shown.minutes.iter().enumerate() {
            if let Some(bar) = minutes.children().item(at as u32) {
                dom::style(&bar, "--height", &format!("{:.3}", users / greatest));
            }
        }
    }
}

/// The range's totals.
pub(super) fn users(element: &Element, model: &Model, shown: &panel::users::Shown, now: i64) {
    figure(element, "figure", &format::count(shown.users.value), shown.users.value, Some(&shown.users));
    if let Some(bounds) = dom::part(element, "bounds") {
        dom::set_text(&bounds, &format::margin(&shown.users).unwrap_or_else(|| "exact".into()));
        dom::flag(&bounds, "hidden", shown.users.value == 0.0);
    }
    if let Some(meaning) = dom::part(element, "meaning") {
        dom::set_text(&meaning, &format::meaning(&shown.users));
    }
    let change = model.change("users", shown.users.value, now);
    let than = if change.is_some() { format!("vs {}", model.range().before_title()) } else { String::new() };
    paint_change(element, "change", change);
    dom::text_of("than", &than);
    for (name, metric, figure_of) in
        [("events", "events", shown.events), ("page-views", "page_views", shown.page_views)]
    {
        if let Some(total) = dom::page_part(name) {
            dom::set_text(&total, &format::count(figure_of.value));
            dom::set(&total, "data-value", &figure_of.value.to_string());
        }
        if let Some(root) = dom::root() {
            paint_change(&root, &format!("{name}-change"), model.change(metric, figure_of.value, now));
        }
    }
}

fn paint_change(of: &Element, name: &str, change: Option<Change>) {
    let Some(element) = dom::part(of, name) else { return };
    dom::set_text(&element, change.as_ref().map_or("", |change| &change.text));
    let direction = match change.as_ref().map(|change| change.direction) {
        Some(Direction::Up) => "up",
        Some(Direction::Down) => "down",
        _ => "level",
    };
    let spoken = change.map(|change| change.spoken);
    dom::set(&element, "data-direction", direction);
    // The triangle is for the eye.
    match spoken {
        Some(spoken) => {
            dom::set(&element, "role", "img");
            dom::set(&element, "aria-label", &spoken);
        }
        None => ["role", "aria-label"].iter().for_each(|name| dom::unset(&element, name)),
    }
}

/// What is pointed at in the chart, in lines.
pub(super) fn words(shown: &Shown, at: usize) -> String {
    let [events, views, users] =
        [&shown.events, &shown.page_views, &shown.users].map(|series| format::count(series[at]));
    format!("{}\n{events} events\n{views} page views\n{users} users", shown.name(at))
}

/// Shows what is pointed at in the chart.
pub(super) fn reading(shown: Option<&Shown>, pointed: Option<Pointed>) {
    let Some(reading) = dom::page_part("reading") else { return };
    let found = pointed.zip(shown).filter(|(pointed, shown)| pointed.at < shown.starts.len());
    dom::flag(&reading, "hidden", found.is_none());
    if let Some((Pointed { at, edge, right, .. }, shown)) = found {
        dom::set_text(&reading, &words(shown, at));
        dom::style(&reading, "--edge", &format!("{edge:.0}px"));
        dom::set(&reading, "data-side", if right { "right" } else { "left" });
    }
}

/// The chart's table. As long as it has as many rows, they stay, and so does whoever reads in it.
pub(super) fn table(element: &Element, shown: &Shown) {
    let Some(host) = dom::part(element, "table") else { return };
    let rows = shown.starts.len() as u32 + 1;
    let known = host.first_element_child().filter(|table| table.child_element_count() == rows);
    let Some(table) = known.or_else(|| table_of(&host, rows)) else { return };
    // The newest first: it is what changes.
    let lines = (0..shown.starts.len()).rev().map(|at| {
        let [events, views, users] =
            [&shown.events, &shown.page_views, &shown.users].map(|series| format::full(series[at].round()));
        [shown.name(at), events, views, users]
    });
    let head = ["Time", "Events", "Page views", "Users"].map(str::to_owned);
    for (at, line) in std::iter::once(head).chain(lines).enumerate() {
        let Some(row) = table.children().item(at as u32) else { continue };
        for (at, text) in line.iter().enumerate() {
            if let Some(cell) = row.children().item(at as u32) {
                dom::set_text(&cell, text);
            }
        }
    }
}

/// A table of so many rows, the first a header, without a text yet.
fn table_of(host: &Element, rows: u32) -> Option<Element> {
    host.set_text_content(None);
    let table = dom::add(host, "table", "")?;
    for row in 0..rows {
        let line = dom::add(&table, "tr", "")?;
        for column in 0..4 {
            let is_head = row == 0 || column == 0;
            let cell = dom::add(&line, if is_head { "th" } else { "td" }, "")?;
            if is_head {
                dom::set(&cell, "scope", if row == 0 { "col" } else { "row" });
            }
        }
    }
    Some(table)
}

/// Money.
pub(super) fn revenue(element: &Element, model: &Model, amounts: &[Amount], now: i64) {
    let Some(list) = dom::part(element, "amounts") else { return };
    let sales = model.sales();
    let unit = if sales == 1.0 { "sale" } else { "sales" };
    dom::text_of("sales", &if sales > 0.0 { format!("{} {unit}", format::count(sales)) } else { String::new() });
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
        paint_change(&item, "change", model.change(&panel::revenue::metric(&amount.currency), amount.sum, now));
        if let Some(average) = dom::part(&item, "average") {
            dom::set_text(&average, &format!("{} on average", format::money(amount.average, &amount.currency)));
        }
    }
}

/// The rows of a dimension's panel; `all` are the range's users.
pub(super) fn lines(group: Panel, shown: &panel::groups::Shown, all: f64, countries: &Intl::DisplayNames) -> Vec<Line> {
    // Only of a code that has the form of one: the browser throws at others.
    let is_code = |code: &str| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    let country = |code: &str| countries.of(Some(code).filter(|code| is_code(code))?).map(String::from);
    let line = |bar: &panel::groups::Bar| {
        let rest = bar.value == OTHER;
        let [users, events] = [bar.users, bar.events].map(format::count);
        let (number, second) = if group.is_by_users() {
            (bar.users, format!("{events} events"))
        } else {
            (bar.events, format!("{users} users"))
        };
        Line {
            badge: (group == Panel::Countries && is_code(&bar.value)).then(|| bar.value.clone()),
            name: panel::groups::name(group, &bar.value, country),
            second,
            number,
            figure: format::count(number),
            share: panel::groups::share(group, bar, shown, all).unwrap_or_default(),
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
