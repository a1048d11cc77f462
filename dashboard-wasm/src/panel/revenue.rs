//! Money: a measure `revenue_XXX` for each currency, so that sums are right.

use catchment_cells::live::Mirror;

use super::value;
use crate::csv::{Field, table};
use crate::range::Range;

const PREFIX: &str = "revenue_";
/// Currencies that are shown: two metrics each, of the 16 of a question.
const CURRENCIES_MAX: usize = 8;
/// The event of a sale, counted.
pub const SALES: &str = "count:revenue";
/// The currencies there are, of ISO 4217: whoever knows a write key can name a measure, and a made-up currency would hide a real
/// one. Those that most is paid in come first, and then the others by code.
const CODES: &str = "USD EUR JPY GBP CNY AUD CAD CHF HKD SGD SEK KRW NOK NZD INR MXN TWD ZAR BRL DKK PLN THB ILS IDR CZK AED TRY \
    HUF CLP SAR PHP MYR COP RUB RON PEN AFN ALL AMD ANG AOA ARS AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BSD BTN BWP BYN BZD \
    CDF CRC CUP CVE DJF DOP DZD EGP ERN ETB FJD FKP GEL GHS GIP GMD GNF GTQ GYD HNL HTG IQD IRR ISK JMD JOD KES KGS KHR KMF KPW \
    KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MZN NAD NGN NIO NPR OMR PAB PGK PKR PYG QAR \
    RSD RWF SBD SCR SDG SHP SLE SOS SRD SSP STN SVC SYP SZL TJS TMT TND TOP TTD TZS UAH UGX UYU UZS VES VND VUV WST XAF XCD XCG \
    XOF XPF YER ZMW ZWG";

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

/// Adds the currencies among the measures that were seen to those that are known, as long as there is room: whether any was new.
pub fn learn(known: &mut Vec<String>, measures: &[String]) -> bool {
    let before = known.len();
    for code in CODES.split_ascii_whitespace() {
        let is_seen = measures.iter().any(|measure| measure.strip_prefix(PREFIX) == Some(code));
        if known.len() < CURRENCIES_MAX && is_seen && !known.iter().any(|known| known == code) {
            known.push(code.to_owned());
        }
    }
    known.len() > before
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
        let at = 2 * i;
        row.figures.get(at).copied().flatten()?;
        Some(Amount { currency: currency.clone(), sum: value(row, at), average: value(row, at + 1) })
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
        let measures = ["duration_ms", "revenue_EUR", "revenue_eur", "revenue_", "revenue_PLN", "revenue_AAA"];
        let mut known = Vec::new();
        assert!(learn(&mut known, &measures.map(str::to_owned)));
        assert_eq!(known, ["EUR", "PLN"]);
        assert!(!learn(&mut known, &measures.map(str::to_owned)));
    }

    #[test]
    fn more_currencies_than_can_be_asked_for_hide_none_that_is_known() {
        let mut known = vec!["PLN".to_owned()];
        let all: Vec<String> = CODES.split_ascii_whitespace().map(|code| format!("{PREFIX}{code}")).collect();
        learn(&mut known, &all);
        assert_eq!(known, ["PLN", "USD", "EUR", "JPY", "GBP", "CNY", "AUD", "CAD"]);
        let question = question(Range::Today, &known).unwrap();
        assert!(question.matches("metric=").count() <= 16, "{question}");
    }

    #[test]
    fn amounts_are_exact() {
        let metrics = vec!["sum:revenue_EUR".into(), "avg:revenue_EUR".into()];
        let mut mirror = Mirror::new(&catchment_cells::live::View { metrics, ..view(1, 1) }).unwrap();
        let mut measure = Measure::of(12_500_000, false);
        measure.merge(&Measure::of(7_490_000, false));
        let sums = vec![Sum::Measure(Some(measure))];
        let row = Changed { key: RowKey { bucket: 0, group: None }, whole: true, sums };
        let update = Update { view: 1, from: 0, to: 1, start: 0, end: 30, as_of: None, gone: vec![], rows: vec![row] };
        mirror.apply(update).unwrap();
        let shown = show(&mirror, &["EUR".to_owned()]);
        assert_eq!(csv(&shown), "currency,sum,average\r\nEUR,19.99,9.995\r\n");
    }
}
