//! What the dashboard makes of a server.

use catchment_dashboard::link::Link;
use catchment_dashboard::model::{Event, Model, Reply};
use catchment_dashboard::panel::{Panel, events};
use catchment_dashboard::range::Range;

use crate::split_length;

/// When the first message comes, in ms by the browser's clock.
const NOW: i64 = 1_680_000_200_000;

/// A server's messages, one a second: `u8 range ‖ n × (u16 length ‖ message)`; all that is shown of them is made after each.
pub(crate) fn dashboard(bytes: &[u8]) -> bool {
    let Some((&range, mut rest)) = bytes.split_first() else { return false };
    let range = Range::FIXED[usize::from(range) % Range::FIXED.len()];
    let (mut model, mut now, mut shown) = (Model::default(), NOW, false);
    model.on(Event::Look(Link { range, open: None }), now, 0.5);
    model.on(Event::SignIn("rk_shop_0_x".into()), now, 0.5);
    let measures = ["revenue_EUR".to_owned()].into();
    model.on(Event::Answered("rk_shop_0_x".into(), Reply::Measures(measures)), now, 0.5);
    model.on(Event::Opened, now, 0.5);
    while let Some((message, after)) = split_length(rest) {
        (rest, now) = (after, now + 1_000);
        model.on(Event::Received(message.to_vec()), now, 0.5);
        model.on(Event::Tick, now, 0.5);
        shown |= show(&model, now);
    }
    shown
}

/// Whether there is something to see.
fn show(model: &Model, now: i64) -> bool {
    let (minute, range) = (model.minute(now), model.range());
    let (mut shown, _) = (false, (model.silence(), model.change("events", 1.0, now)));
    model.connection().text(now, model.newest(now));
    for panel in Panel::ALL {
        let Some(mirror) = model.mirror(panel) else { continue };
        panel.is_empty(mirror);
        panel.csv(mirror, range, minute, model.currencies());
        if panel == Panel::Events {
            let seen = events::show(mirror, range, minute);
            (0..seen.starts.len()).for_each(|at| _ = seen.name(at));
        }
        shown = true;
    }
    shown
}
