//! The chart, which uPlot draws.

use js_sys::Float64Array;
use wasm_bindgen::prelude::*;
use web_sys::Element;

use crate::calendar::local;
use crate::panel::events::Shown;

#[wasm_bindgen(module = "/web/chart.js")]
extern "C" {
    type Chart;

    #[wasm_bindgen(constructor)]
    fn new(host: &Element, point: &Closure<dyn FnMut(i32, f64, bool, bool)>) -> Chart;

    /// Starts, events and page views of buckets; how long one is, the first's start, the last's end. Times are seconds.
    #[wasm_bindgen(method)]
    fn show(
        this: &Chart,
        starts: Float64Array,
        events: Float64Array,
        views: Float64Array,
        step: f64,
        from: f64,
        to: f64,
    );

    #[wasm_bindgen(method)]
    fn paint(this: &Chart);

    #[wasm_bindgen(method)]
    fn end(this: &Chart);
}

/// What is pointed at.
#[derive(Clone, Copy)]
pub(super) struct Pointed {
    /// Which bucket.
    pub at: usize,
    /// The edge beside which there is room to say what it is, in pixels.
    pub edge: f64,
    /// On which side of it.
    pub right: bool,
    /// Keys led there: it is to be said aloud.
    pub walked: bool,
}

/// A chart.
pub(super) struct Drawing {
    chart: Chart,
    _point: Closure<dyn FnMut(i32, f64, bool, bool)>,
}

impl Drawing {
    /// An empty one that fills an element. `point` is called with what is pointed at, if anything is.
    pub(super) fn new(host: &Element, mut point: impl FnMut(Option<Pointed>) + 'static) -> Drawing {
        let point = Closure::<dyn FnMut(i32, f64, bool, bool)>::new(move |at: i32, edge, right, walked| {
            point(usize::try_from(at).ok().map(|at| Pointed { at, edge, right, walked }))
        });
        Drawing { chart: Chart::new(host, &point), _point: point }
    }

    /// Draws buckets.
    pub(super) fn show(&self, shown: &Shown) {
        let seconds = |minute: i64| (minute * 60) as f64;
        // As the client's clock has them, for a chart that knows of none.
        let starts: Vec<f64> = shown.starts.iter().map(|start| seconds(local(*start))).collect();
        let step = seconds(shown.grain.minutes());
        let from = starts.first().copied().unwrap_or_default();
        let to = starts.last().map_or(from, |last| last + step);
        let [starts, events, views] =
            [&starts, &shown.events, &shown.page_views].map(|series| Float64Array::from(series.as_slice()));
        self.chart.show(starts, events, views, step, from, to);
    }

    /// Draws again, in the colours of now.
    pub(super) fn repaint(&self) {
        self.chart.paint();
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        self.chart.end();
    }
}
