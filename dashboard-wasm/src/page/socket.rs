//! The WebSocket.

use js_sys::{ArrayBuffer, Uint8Array};
use wasm_bindgen::prelude::*;
use web_sys::{BinaryType, CloseEvent, MessageEvent, Url, WebSocket};

use super::{dom, happen};
use crate::model::Event;

/// A socket. Dropped, it is closed, and what it still has to say isn't heard.
pub(super) struct Socket {
    socket: WebSocket,
    _opened: Closure<dyn FnMut()>,
    _received: Closure<dyn FnMut(MessageEvent)>,
    _closed: Closure<dyn FnMut(CloseEvent)>,
}

impl Socket {
    /// Where the page came from, there is the live path.
    pub(super) fn open() -> Option<Socket> {
        let url = Url::new_with_base("api/v1/live", &dom::window().location().href().ok()?).ok()?;
        url.set_protocol(if url.protocol() == "https:" { "wss:" } else { "ws:" });
        let socket = WebSocket::new(&url.href()).ok()?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let opened = Closure::<dyn FnMut()>::new(|| happen(Event::Opened));
        let received = Closure::<dyn FnMut(MessageEvent)>::new(|message: MessageEvent| {
            if let Ok(buffer) = message.data().dyn_into::<ArrayBuffer>() {
                happen(Event::Received(Uint8Array::new(&buffer).to_vec()));
            }
        });
        let closed = Closure::<dyn FnMut(CloseEvent)>::new(|close: CloseEvent| happen(Event::Closed(close.code())));
        socket.set_onopen(Some(opened.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(received.as_ref().unchecked_ref()));
        socket.set_onclose(Some(closed.as_ref().unchecked_ref()));
        Some(Socket { socket, _opened: opened, _received: received, _closed: closed })
    }

    /// Says something; on a socket that is closing it is lost, and said again on the next.
    pub(super) fn say(&self, text: &str) {
        self.socket.send_with_str(text).ok();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        self.socket.close().ok();
    }
}
