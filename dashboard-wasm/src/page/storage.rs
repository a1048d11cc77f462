//! What the browser keeps: the key for as long as the tab, the theme for good. A browser that keeps nothing is no error.

use web_sys::Storage;

use super::dom;

const KEY: &str = "catchment-key";
const THEME: &str = "catchment-theme";

pub(super) fn key() -> Option<String> {
    tab()?.get_item(KEY).ok().flatten()
}

pub(super) fn keep(key: Option<&str>) {
    if let Some(tab) = tab() {
        match key {
            Some(key) => tab.set_item(KEY, key).ok(),
            None => tab.remove_item(KEY).ok(),
        };
    }
}

pub(super) fn keep_theme(theme: &str) {
    if let Ok(Some(storage)) = dom::window().local_storage() {
        storage.set_item(THEME, theme).ok();
    }
}

fn tab() -> Option<Storage> {
    dom::window().session_storage().ok().flatten()
}
