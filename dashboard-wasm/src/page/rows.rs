//! A panel's rows. Those that stay are kept, and slide to where they belong.

use js_sys::{Array, Object, Reflect};
use wasm_bindgen::prelude::*;
use web_sys::Element;

use super::dom;

/// How long a change takes to be as it is to stay, in ms.
const CHANGE_MS: f64 = 400.0;
/// The parts of a row, in order.
const CELLS: [&str; 6] = ["bar", "badge", "name", "second", "figure", "share"];

#[wasm_bindgen]
extern "C" {
    /// `Element.animate` of the Web Animations API, which web-sys counts among the unstable.
    #[wasm_bindgen(extends = Element)]
    type Animated;

    #[wasm_bindgen(method)]
    fn animate(this: &Animated, keyframes: &Array, options: &Object);
}

/// What a row shows.
pub(super) struct Line {
    /// The value it is known by.
    pub value: String,
    /// What stands before its name: a country's code.
    pub badge: Option<String>,
    /// Its name.
    pub name: String,
    /// Its other figure, where there is room.
    pub second: String,
    /// The number, exactly.
    pub number: f64,
    /// The number, as it is written.
    pub figure: String,
    /// Its share of all.
    pub share: String,
    /// Of its bar, from 0 to 1.
    pub length: f64,
    /// It is what is left over.
    pub rest: bool,
}

/// The rows of a list, by value.
#[derive(Default)]
pub(super) struct Rows {
    rows: Vec<(String, Element)>,
}

impl Rows {
    /// Makes the list show the lines. `height` is a row's, in pixels; where nothing may move, rows jump.
    pub(super) fn show(&mut self, list: &Element, lines: &[Line], height: f64, motion: bool) {
        let before = std::mem::take(&mut self.rows);
        for (value, row) in &before {
            if !lines.iter().any(|line| line.value == *value) {
                row.remove();
            }
        }
        for (at, line) in lines.iter().enumerate() {
            let was = before.iter().position(|(value, _)| *value == line.value);
            let Some(row) = was.map_or_else(|| row(list), |was| Some(before[was].1.clone())) else { continue };
            let counted = fill(&row, line);
            let there = list.children().item(at as u32);
            if there.as_ref() != Some(&row) {
                list.insert_before(&row, there.as_deref()).ok();
            }
            match was {
                Some(was) if was != at && motion => {
                    let by = (was as f64 - at as f64) * height;
                    animate(&row, "transform", &format!("translateY({by}px)"), "none");
                }
                None if !before.is_empty() && motion => animate(&row, "opacity", "0", "1"),
                _ => {}
            }
            // What happens there is seen there.
            if let Some(bar) = row.first_element_child().filter(|_| was.is_some() && counted && motion && !line.rest) {
                animate(&bar, "backgroundColor", "var(--chart-events)", "var(--bar)");
            }
            self.rows.push((line.value.clone(), row));
        }
    }
}

fn row(list: &Element) -> Option<Element> {
    let row = dom::add(list, "li", "row")?;
    for class in CELLS {
        dom::add(&row, "span", class)?;
    }
    Some(row)
}

/// Whether its number is another than before.
fn fill(row: &Element, line: &Line) -> bool {
    dom::set(row, "data-row", &line.value);
    dom::flag(row, "data-rest", line.rest);
    let mut counted = false;
    let badge = line.badge.as_deref().unwrap_or_default();
    for (at, text) in ["", badge, &line.name, &line.second, &line.figure, &line.share].into_iter().enumerate() {
        let Some(cell) = row.children().item(at as u32) else { continue };
        let is_new = dom::set_text(&cell, text);
        match CELLS[at] {
            "bar" => dom::style(&cell, "--length", &format!("{:.4}", line.length)),
            "name" => dom::set(&cell, "title", &line.value),
            "figure" => {
                dom::set(&cell, "data-value", &line.number.to_string());
                counted = is_new;
            }
            _ => {}
        }
    }
    counted
}

/// From a value of a property to another.
fn animate(row: &Element, property: &str, from: &str, to: &str) {
    let object = |entries: &[(&str, JsValue)]| {
        let object = Object::new();
        for (name, value) in entries {
            Reflect::set(&object, &(*name).into(), value).ok();
        }
        object
    };
    let frames = Array::of2(&object(&[(property, from.into())]), &object(&[(property, to.into())]));
    let options = object(&[("duration", CHANGE_MS.into()), ("easing", "cubic-bezier(.2,.8,.2,1)".into())]);
    row.unchecked_ref::<Animated>().animate(&frames, &options);
}
