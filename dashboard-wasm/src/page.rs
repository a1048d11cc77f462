//! The rim: the browser. What happens is passed to the model, what it wants is done, and what it knows is painted.

mod actions;
mod chart;
mod dom;
mod figures;
mod http;
mod paint;
mod rows;
mod socket;
mod storage;
mod tools;

use std::cell::{Cell, RefCell};

use wasm_bindgen::prelude::*;

use self::paint::Painter;
use self::socket::Socket;
use crate::link::Link;
use crate::model::{Effect, Event, Model};

/// How often time is told, in ms: as often as a view can change.
const TICK_MS: i32 = 250;

/// All there is; a page has one thread.
#[derive(Default)]
struct Page {
    model: RefCell<Model>,
    socket: RefCell<Option<Socket>>,
    painter: RefCell<Option<Painter>>,
    /// A frame is asked for.
    painting: Cell<bool>,
}

thread_local! {
    static PAGE: Page = Page::default();
}

/// The page is there.
#[wasm_bindgen(start)]
fn start() {
    actions::listen();
    let window = dom::window();
    dom::on(&window, "online", |_: web_sys::Event| happen(Event::Network(true)));
    dom::on(&window, "offline", |_: web_sys::Event| happen(Event::Network(false)));
    dom::on(&window, "hashchange", |_: web_sys::Event| follow(None));
    dom::on(&dom::document(), "visibilitychange", |_: web_sys::Event| happen(Event::Hidden(dom::document().hidden())));
    happen(Event::Hidden(dom::document().hidden()));
    dom::every(TICK_MS, || {
        happen(Event::Tick);
        if dom::document().hidden() {
            with_painter(|painter, model| painter.paint_hidden(model));
        }
    });
    follow(storage::key());
}

/// Goes where the address says: with the key that is in it, or else with another, if there is one.
fn follow(other: Option<String>) {
    let (link, key) = Link::parse(&dom::fragment());
    happen(Event::Look(link));
    if let Some(key) = key.or(other) {
        happen(Event::SignIn(key));
    }
}

/// Passes on what happens, and does what is to be done about it.
fn happen(event: Event) {
    let (now, random) = (js_sys::Date::now() as i64, js_sys::Math::random());
    let effects = PAGE.with(|page| page.model.borrow_mut().on(event, now, random));
    effects.into_iter().for_each(act);
    paint_soon();
}

fn act(effect: Effect) {
    match effect {
        Effect::Connect => PAGE.with(|page| *page.socket.borrow_mut() = Socket::open()),
        Effect::Disconnect => PAGE.with(|page| drop(page.socket.borrow_mut().take())),
        Effect::Say(text) => PAGE.with(|page| {
            if let Some(socket) = &*page.socket.borrow() {
                socket.say(&text);
            }
        }),
        Effect::Forget => with_painter(|painter, _| painter.forget()),
        Effect::Keep(key) => {
            storage::keep(key.as_deref());
            if key.is_none() {
                actions::focus_soon("key");
            }
        }
        Effect::AskBefore(question) => http::before(question),
        Effect::AskMeasures(when) => http::measures(when),
        Effect::Address(fragment) => dom::address(&fragment),
    }
}

/// Paints with the next frame, however much happens before it. A hidden page has no frames: it paints when it is seen again.
fn paint_soon() {
    PAGE.with(|page| {
        if !page.painting.replace(true) {
            dom::next_frame(|| {
                PAGE.with(|page| page.painting.set(false));
                with_painter(|painter, model| painter.paint(model, js_sys::Date::now() as i64));
            });
        }
    });
}

fn with_painter<T>(what: impl FnOnce(&mut Painter, &Model) -> T) -> T {
    PAGE.with(|page| what(page.painter.borrow_mut().get_or_insert_with(Painter::new), &page.model.borrow()))
}

/// Reads the model.
fn read<T>(what: impl FnOnce(&Model) -> T) -> T {
    PAGE.with(|page| what(&page.model.borrow()))
}
