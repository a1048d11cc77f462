//! The report: tables for a person, or one JSON object.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use catchment_harness::figures::{Answered, Figures, Series, time, users_outside};
use catchment_harness::{Bucket, Exact, Outcome, Value, Visible};
use serde_json::json;

/// Rows of a table before and after the gap.
const ROWS_SHOWN: usize = 14;

/// All that is reported.
pub(crate) struct Report<'a> {
    pub(crate) figures: Figures,
    pub(crate) exact: &'a Exact,
    pub(crate) outcome: &'a Outcome,
    pub(crate) measure: Option<&'a str>,
    pub(crate) differences: Vec<String>,
    pub(crate) visible: Option<Visible>,
    pub(crate) raw_bytes: u64,
    pub(crate) raw_gzip_bytes: u64,
    pub(crate) shipped_bytes: u64,
}

impl Report<'_> {
    /// One object.
    pub(crate) fn json(&self) -> serde_json::Value {
        let figures = &self.figures;
        let series = |series: &Series| -> Vec<serde_json::Value> {
            let row = |(start, a): (&i64, &Answered)| {
                json!([time(*start), a.events, number(a.users.value), number(a.users.lower), number(a.users.upper)])
            };
            series.iter().map(row).collect()
        };
        let users = figures.total.users;
        let quantiles: serde_json::Map<_, _> =
            figures.quantiles.iter().map(|(q, value)| (q.to_string(), number(value.value))).collect();
        let bounds: serde_json::Map<_, _> =
            figures.quantiles.iter().map(|(q, v)| (q.to_string(), json!([number(v.lower), number(v.upper)]))).collect();
        json!({
            "events": figures.total.events,
            "users": {"value": number(users.value), "lower": number(users.lower), "upper": number(users.upper)},
            "per_minute": series(&figures.per_minute),
            "per_hour": series(&figures.per_hour),
            "per_day": series(&figures.per_day),
            "top_pages": figures.top_pages,
            "measure": self.measure,
            "quantiles": quantiles,
            "quantile_bounds": bounds,
            "raw_bytes": self.raw_bytes,
            "raw_gzip_bytes": self.raw_gzip_bytes,
            "shipped_bytes": self.shipped_bytes,
            "events_per_s": self.events_per_s(),
            "visible_ms": self.visible.map(|visible| json!({"p50": visible.p50_ms, "p99": visible.p99_ms})),
            "accepted": self.outcome.accepted,
            "duplicates": self.outcome.duplicates,
            "rejected": self.rejected(),
            "differences": self.differences,
        })
    }

    /// Tables.
    pub(crate) fn tables(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        self.write(&mut out).ok();
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (figures, exact) = (&self.figures, self.exact);
        let users = figures.total.users;
        writeln!(out, "\nevents    {}   (counted one by one: {})", count(figures.total.events), count(exact.events))?;
        writeln!(out, "users     {}   (counted one by one: {})", with_bounds(users), count(exact.users))?;
        let types = sorted(&exact.types);
        writeln!(
            out,
            "types     {}",
            types.iter().map(|(t, n)| format!("{t} {}", count(*n))).collect::<Vec<_>>().join(", ")
        )?;
        if self.outcome.duplicates > 0 {
            writeln!(out, "          {} duplicates were left out", count(self.outcome.duplicates))?;
        }
        for (reason, n) in self.rejected() {
            writeln!(out, "          {} lines were rejected: {reason}", count(n))?;
        }
        table(out, "day", &figures.per_day, &exact.per_day)?;
        table(out, "hour", &figures.per_hour, &exact.per_hour)?;
        table(out, "minute", &figures.per_minute, &exact.per_minute)?;
        writeln!(out, "\n{:>10}  top pages", "events")?;
        for (page, events) in &figures.top_pages {
            writeln!(out, "{:>10}  {page}", count(*events))?;
        }
        if let Some(measure) = self.measure {
            writeln!(out, "\nquantiles of {measure}")?;
            for (q, value) in &figures.quantiles {
                let truth = exact.quantile(measure, *q).unwrap_or(f64::NAN);
                writeln!(
                    out,
                    "{:>10}  {}   (sorted one by one: {truth})",
                    format!("p{}", q * 100.0),
                    with_bounds(*value)
                )?;
            }
        }
        let per_event = self.shipped_bytes as f64 / figures.total.events.max(1) as f64;
        writeln!(out, "\nbytes     {} as JSON, {} gzipped", count(self.raw_bytes), count(self.raw_gzip_bytes))?;
        let share = 100.0 * self.shipped_bytes as f64 / self.raw_gzip_bytes.max(1) as f64;
        writeln!(
            out,
            "          {} shipped: {per_event:.1} an event, {share:.0} % of gzipped JSON",
            count(self.shipped_bytes)
        )?;
        writeln!(
            out,
            "speed     {} events/s, {} requests",
            count(self.events_per_s() as u64),
            count(self.outcome.requests)
        )?;
        if let Some(visible) = self.visible {
            writeln!(out, "visible   p50 {:.0} ms, p99 {:.0} ms after the 202", visible.p50_ms, visible.p99_ms)?;
        }
        if self.differences.is_empty() {
            writeln!(out, "\nEvery event was counted once: in all, in each minute, hour and day.")?;
        }
        Ok(())
    }

    fn events_per_s(&self) -> f64 {
        (self.outcome.accepted as f64 / self.outcome.wall.as_secs_f64().max(1e-3)).round()
    }

    fn rejected(&self) -> BTreeMap<&str, u64> {
        let mut reasons = BTreeMap::new();
        for rejected in &self.outcome.rejected {
            *reasons.entry(rejected.reason.as_str()).or_default() += 1;
        }
        reasons
    }
}

fn table(out: &mut String, name: &str, series: &Series, exact: &BTreeMap<i64, Bucket>) -> std::fmt::Result {
    writeln!(out, "\n{:>10}  {:>10}  {:<22}  {name}", "events", "users", "within")?;
    let skipped = series.len().saturating_sub(2 * ROWS_SHOWN);
    for (i, (start, answered)) in series.iter().enumerate() {
        if skipped > 0 && i == ROWS_SHOWN {
            writeln!(out, "{:>10}  … {} more", "", count(skipped as u64))?;
        }
        if skipped > 0 && (ROWS_SHOWN..ROWS_SHOWN + skipped).contains(&i) {
            continue;
        }
        let users = answered.users;
        let bounds = format!("{} to {}", rounded(users.lower), rounded(users.upper));
        writeln!(out, "{:>10}  {:>10}  {bounds:<22}  {}", count(answered.events), rounded(users.value), time(*start))?;
    }
    let outside = users_outside(series, exact);
    writeln!(out, "{:>10}  in {} {name}s; users outside their bounds in {outside}", "", count(series.len() as u64))
}

fn with_bounds(value: Value) -> String {
    format!("{}, within {} to {}", rounded(value.value), rounded(value.lower), rounded(value.upper))
}

/// At most two decimals, none where there are none.
fn rounded(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    if value.fract() == 0.0 { format!("{sign}{}", count(value.abs() as u64)) } else { format!("{value:.2}") }
}

/// 12,345.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A whole number where it is one.
fn number(value: f64) -> serde_json::Value {
    if value.fract() == 0.0 && value.abs() < 2f64.powi(53) { json!(value as i64) } else { json!(value) }
}

fn sorted(counts: &HashMap<String, u64>) -> Vec<(&str, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    counts.truncate(ROWS_SHOWN);
    counts
}
