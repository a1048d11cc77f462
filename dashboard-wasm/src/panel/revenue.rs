//! Money: a measure `revenue_XXX` for each currency, so that sums are right.

use catchment_cells::live::Mirror;

use super::value;
use crate::csv::{Field, table};
use crate::range::Range;

const PREFIX: &str = "revenue_";
/// Currencies that are shown: two metrics each, of the 16 of a question.
const CURRENCIES_MAX: usize = 6;

/// What is seen of a currency.
#[derive(Debug, Clone, PartialEq)]
pub struct Amount {
    /// Its ISO 4217 code.
    pub currency: String,
    /// The sum.
    pub sum: f64,
    /// The mean of one payment.
    pub average: f64,
}

/// The currencies among the measures that were seen.
pub fn currencies(measures: &[String]) -> Vec<String> {
    let code = |measure: &String| {
        let code = measure.strip_prefix(PREFIX)?;
        (code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())).then(|| code.to_owned())
    };
    measures.iter().filter_map(code).take(CURRENCIES_MAX).collect()
}

/// The metric of a currency's sum.
pub fn metric(currency: &str) -> String {
    format!("sum:{PREFIX}{currency}")
}

/// Sum and mean of each currency; nothing to ask without any.
pub fn question(range: Range, currencies: &[String]) -> Option<String> {
    let metrics = |currency: &String| format!("metric=sum:{PREFIX}{currency}&metric=avg:{PREFIX}{currency}&");
    let metrics: String = currencies.iter().map(metrics).collect();
    (!metrics.is_empty()).then(|| format!("{metrics}{}", range.when()))
}

/// Of the only row: the currencies that came in, the greatest sum first.
pub fn show(mirror: &Mirror, currencies: &[String]) -> Vec<Amount> {
    let rows = mirror.rows();
    let Some(row) = rows.first() else { return Vec::new() };
    let amount = |(i, currency): (usize, &String)| {
        row.figures.get(2 * i).copied().flatten()?;
        Some(Amount { currency: currency.clone(), sum: value(row, 2 * i), average: value(row, 2 * i + 1) })
    };
    let mut amounts: Vec<Amount> = currencies.iter().enumerate().filter_map(amount).collect();
    amounts.sort_by(|a, b| b.sum.total_cmp(&a.sum).then_with(|| a.currency.cmp(&b.currency)));
    amounts
}

/// A record for each currency.
pub fn csv(shown: &[Amount]) -> String {
    let record = |amount: &Amount| {
        [Field::Text(amount.currency.clone()), Field::Number(amount.sum), Field::Number(amount.average)]
    };
    table(["currency", "sum", "average"], shown.iter().map(record))
}

#[cfg(test)]
mod tests {
    use catchment_cells::cell::Measure;
    use catchment_cells::live::{Changed, RowKey, Update};
    use catchment_cells::sum::Sum;

    use super::*;
    use crate::panel::tests::view;

    #[test]
    fn currencies_are_told_from_other_measures() {
        let measures = ["duration_ms", "revenue_EUR", "revenue_eur", "revenue_", "revenue_USD"].map(str::to_owned);
        assert_eq!(currencies(&measures), ["EUR", "USD"]);
    }

    #[test]
    fn amounts_are_exact() {
        let metrics = vec!["sum:revenue_EUR".into(), "avg:revenue_EUR".into()];
        let mut mirror = Mirror::new(&catchment_cells::live::View { metrics, ..view(1, 1) }).unwrap();
        let mut measure = Measure::of(12_500_000, false);
        measure.merge(&Measure::of(7_490_000, false));
        let row =
            Changed { key: RowKey { bucket: 0, group: None }, whole: true, sums: vec![Sum::Measure(Some(measure))] };
        let update = Update { view: 1, from: 0, to: 1, start: 0, end: 30, as_of: None, gone: vec![], rows: vec![row] };
        mirror.apply(update).unwrap();
        let shown = show(&mirror, &["EUR".to_owned()]);
        assert_eq!(csv(&shown), "currency,sum,average\r\nEUR,19.99,9.995\r\n");
    }
}
