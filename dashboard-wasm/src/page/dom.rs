//! The few things that are done to the document. What is to be as it is already isn't touched.

use wasm_bindgen::convert::FromWasmAbi;
use wasm_bindgen::prelude::*;
use web_sys::{
    Document, Element, EventTarget, HtmlElement, NodeList, ScrollIntoViewOptions, ScrollLogicalPosition, Window,
};

pub(super) fn window() -> Window {
    // Wasm of this crate is loaded by a page alone.
    web_sys::window().expect("a page has a window")
}

pub(super) fn document() -> Document {
    // A window without a document isn't a page's either.
    window().document().expect("a window has a document")
}

/// The element with `data-part="…"` in another.
pub(super) fn part(of: &Element, name: &str) -> Option<Element> {
    of.query_selector(&format!("[data-part=\"{name}\"]")).ok().flatten()
}

/// The element with `data-part="…"` in the page.
pub(super) fn page_part(name: &str) -> Option<Element> {
    part(&root()?, name)
}

/// All elements that match.
pub(super) fn all(selector: &str) -> impl Iterator<Item = Element> {
    let found = document().query_selector_all(selector).ok();
    let count = found.as_ref().map_or(0, NodeList::length);
    (0..count).filter_map(move |at| found.as_ref()?.item(at)?.dyn_into().ok())
}

/// The `<html>` element.
pub(super) fn root() -> Option<Element> {
    document().document_element()
}

/// Makes an element inside another, at its end.
pub(super) fn add(to: &Element, tag: &str, class: &str) -> Option<Element> {
    let element = document().create_element(tag).ok()?;
    element.set_class_name(class);
    to.append_child(&element).ok()?;
    Some(element)
}

/// Whether it was another text.
pub(super) fn set_text(element: &Element, text: &str) -> bool {
    let is_new = element.text_content().as_deref() != Some(text);
    if is_new {
        element.set_text_content(Some(text));
    }
    is_new
}

pub(super) fn set(element: &Element, attribute: &str, value: &str) {
    if element.get_attribute(attribute).as_deref() != Some(value) {
        // Names are ours, and valid.
        element.set_attribute(attribute, value).ok();
    }
}

pub(super) fn unset(element: &Element, attribute: &str) {
    element.remove_attribute(attribute).ok();
}

/// The text of the element with `data-part="…"` in the page.
pub(super) fn text_of(name: &str, text: &str) {
    if let Some(element) = page_part(name) {
        set_text(&element, text);
    }
}

/// Sets or removes an attribute without a value.
pub(super) fn flag(element: &Element, attribute: &str, on: bool) {
    element.toggle_attribute_with_force(attribute, on).ok();
}

/// A property of its style, which the policy for styles lets through, as it wouldn't an attribute.
pub(super) fn style(element: &Element, property: &str, value: &str) {
    if let Some(element) = element.dyn_ref::<HtmlElement>() {
        element.style().set_property(property, value).ok();
    }
}

/// Listens for as long as the page is there.
pub(super) fn on<E: FromWasmAbi + 'static>(target: &EventTarget, name: &str, handler: impl FnMut(E) + 'static) {
    let closure = Closure::<dyn FnMut(E)>::new(handler);
    target.add_event_listener_with_callback(name, closure.as_ref().unchecked_ref()).ok();
    closure.forget();
}

pub(super) fn every(ms: i32, handler: impl FnMut() + 'static) {
    let closure = Closure::<dyn FnMut()>::new(handler);
    window().set_interval_with_callback_and_timeout_and_arguments_0(closure.as_ref().unchecked_ref(), ms).ok();
    closure.forget();
}

pub(super) fn after(ms: i32, handler: impl FnOnce() + 'static) {
    let handler = Closure::once_into_js(handler);
    window().set_timeout_with_callback_and_timeout_and_arguments_0(handler.unchecked_ref(), ms).ok();
}

pub(super) fn next_frame(handler: impl FnOnce() + 'static) {
    window().request_animation_frame(Closure::once_into_js(handler).unchecked_ref()).ok();
}

/// Scrolls no further than it takes to see an element.
pub(super) fn reveal(element: &Element) {
    let options = ScrollIntoViewOptions::new();
    options.set_block(ScrollLogicalPosition::Nearest);
    element.scroll_into_view_with_scroll_into_view_options(&options);
}

/// Whether things may move.
pub(super) fn motion() -> bool {
    !matches("(prefers-reduced-motion: reduce)")
}

/// Whether a media query holds.
pub(super) fn matches(query: &str) -> bool {
    window().match_media(query).ok().flatten().is_some_and(|list| list.matches())
}

/// The address's fragment.
pub(super) fn fragment() -> String {
    window().location().hash().unwrap_or_default()
}

/// Changes the address's fragment, without a step in its history; a key in it is gone with that.
pub(super) fn address(fragment: &str) {
    if let Ok(history) = window().history() {
        history.replace_state_with_url(&JsValue::NULL, "", Some(fragment)).ok();
    }
}
