//! A panel's buttons.

use wasm_bindgen::JsValue;
use web_sys::Element;

use super::dom;
use crate::panel::Panel;

/// Adds what each panel has: its buttons, and where an error is said.
pub(super) fn add(panel: Panel, element: &Element) {
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

/// A panel is shown large, or as the others.
pub(super) fn set_open(panel: &Element, open: bool) {
    dom::flag(panel, "data-open", open);
    if let Ok(Some(button)) = panel.query_selector("[data-action=open]") {
        dom::set(&button, "aria-expanded", if open { "true" } else { "false" });
        if let Ok(Some(shape)) = button.query_selector("use") {
            dom::set(&shape, "href", if open { "#close" } else { "#open" });
        }
    }
}
