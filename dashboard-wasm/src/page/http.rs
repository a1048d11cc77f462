//! Questions over HTTP. One that fails is asked again: for measures in some seconds, else with the next minute or range. Each
//! answer says whose it is: another key may have been given meanwhile.

use catchment_cells::Estimate;
use catchment_cells::row::Row;
use js_sys::{Array, Object, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Headers, RequestInit, Response};

use super::{dom, happen, read};
use crate::model::{Event, Reply};

/// Asks for the figures of the period before.
pub(super) fn before(question: String) {
    ask(format!("api/v1/metrics?{question}"), |answer| match answer {
        Some(answer) => Reply::Before(question, figures(&answer)),
        None => Reply::NoBefore(question),
    });
}

/// Asks which measures were seen.
pub(super) fn measures(when: String) {
    let names = |answer| Array::from(&field(&answer, "measures")).iter().filter_map(|name| name.as_string()).collect();
    ask(format!("api/v1/measures?{when}"), move |answer| {
        answer.map_or(Reply::NoMeasures, |answer| Reply::Measures(names(answer)))
    });
}

/// The rows of an answer by group, of metrics that are asked by their names in that order.
pub(super) async fn rows(question: &str) -> Option<Vec<Row>> {
    let key = read(|model| model.key().map(str::to_owned))?;
    let answer = get(&format!("api/v1/metrics?{question}"), &key).await.ok()?;
    let metrics: Vec<&str> = question.split('&').filter_map(|pair| pair.strip_prefix("metric=")).collect();
    let row = |row: JsValue| {
        let values = field(&row, "values");
        let figure = |name: &&str| field(&field(&values, name), "value").as_f64().map(Estimate::exact);
        let group = field(&row, "group").as_string().map(String::into_boxed_str);
        Row { bucket: 0, group, figures: metrics.iter().map(figure).collect() }
    };
    Some(Array::from(&field(&answer, "results")).iter().map(row).collect())
}

fn ask(path: String, reply: impl FnOnce(Option<JsValue>) -> Reply + 'static) {
    let Some(key) = read(|model| model.key().map(str::to_owned)) else { return };
    spawn_local(async move {
        let answer = get(&path, &key).await.ok();
        happen(Event::Answered(key, reply(answer)));
    });
}

/// The values of an answer's only row, by metric.
fn figures(answer: &JsValue) -> Vec<(String, f64)> {
    let row = Array::from(&field(answer, "results")).get(0);
    let Ok(values) = field(&row, "values").dyn_into::<Object>() else { return Vec::new() };
    let figure = |entry: JsValue| {
        let entry = Array::from(&entry);
        Some((entry.get(0).as_string()?, field(&entry.get(1), "value").as_f64()?))
    };
    Object::entries(&values).iter().filter_map(figure).collect()
}

/// A field of an object; undefined in anything else.
fn field(of: &JsValue, name: &str) -> JsValue {
    Reflect::get(of, &name.into()).unwrap_or_default()
}

async fn get(path: &str, key: &str) -> Result<JsValue, JsValue> {
    let headers = Headers::new()?;
    headers.set("authorization", &format!("Bearer {key}"))?;
    let init = RequestInit::new();
    init.set_headers(&headers);
    let response: Response = JsFuture::from(dom::window().fetch_with_str_and_init(path, &init)).await?.dyn_into()?;
    if !response.ok() {
        return Err(response.status().into());
    }
    JsFuture::from(response.json()?).await
}
