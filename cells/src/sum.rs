//! What is added up of cells to answer metrics, and the figures that it gives: in the aggregator and in the browser.

use crate::cell::{Cell, Measure, Wanted};
use crate::codec::{DecodeError, Reader, put_uv};
use crate::estimate::Estimate;
use crate::metric::{Metric, Stat};
use crate::users::Users;

/// The form's first byte on the wire: final.
const COUNT: u8 = 0;
const USERS: u8 = 1;
const NO_MEASURE: u8 = 2;
const MEASURE: u8 = 3;
const ESTIMATED: u8 = 4;

/// What is added up for a list of metrics: one part for those that need the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    metrics: Vec<Metric>,
    parts: Vec<Part>,
    /// For each metric, its part.
    of_metric: Vec<usize>,
}

/// What is added up for one or several metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The one value of a dimension whose cells are added up.
    pub only: Option<(&'static str, String)>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Count,
    Users,
    Measure { name: String, digest: bool },
}

/// A part's sum.
///
/// Bytes: `0x00 ‖ uv count`, `0x01 ‖ users`, `0x02` for a measure without values, `0x03 ‖ measure`, or `0x04 ‖ f64 value ‖ f64 lower ‖
/// f64 upper ‖ u8 exact`; users and measure as in a cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Sum {
    /// Events.
    Count(u64),
    /// Their users.
    Users(Users),
    /// A measure's summary; `None` while there are no values.
    Measure(Option<Measure>),
    /// What is left of users where nobody merges them further.
    Estimated(Estimate),
}

impl Parts {
    /// What is to be added up for the metrics.
    pub fn new(metrics: &[Metric]) -> Parts {
        let digests: Vec<&String> = metrics
            .iter()
            .filter_map(|metric| match &metric.stat {
                Stat::Quantile(name, _) => Some(name),
                _ => None,
            })
            .collect();
        let mut parts: Vec<Part> = Vec::new();
        let mut of_metric = Vec::new();
        for metric in metrics {
            let what = match &metric.stat {
                Stat::Count => What::Count,
                Stat::Users => What::Users,
                Stat::Sum(name) | Stat::Avg(name) | Stat::Min(name) | Stat::Max(name) | Stat::Quantile(name, _) => {
                    What::Measure { name: name.clone(), digest: digests.contains(&name) }
                }
            };
            let part = Part { only: metric.only.clone(), what };
            let index = parts.iter().position(|other| *other == part).unwrap_or_else(|| {
                parts.push(part);
                parts.len() - 1
            });
            of_metric.push(index);
        }
        Parts { metrics: metrics.to_vec(), parts, of_metric }
    }

    /// The metrics.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// The parts, in the order of their sums.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Part> {
        self.parts.iter()
    }

    /// What of cells is added up.
    pub fn wanted(&self) -> Wanted {
        let is_wanted = |what: fn(&What) -> bool| self.parts.iter().any(|part| what(&part.what));
        Wanted {
            users: is_wanted(|what| matches!(what, What::Users)),
            measures: is_wanted(|what| matches!(what, What::Measure { .. })),
        }
    }

    /// The sums of no cells.
    pub fn zeros(&self) -> Vec<Sum> {
        self.parts.iter().map(Part::zero).collect()
    }

    /// Whether sums from outside are sums of these parts.
    pub fn fit(&self, sums: &[Sum]) -> bool {
        sums.len() == self.parts.len()
            && self.parts.iter().zip(sums).all(|(part, sum)| {
                matches!(
                    (&part.what, sum),
                    (What::Count, Sum::Count(_))
                        | (What::Users, Sum::Users(_) | Sum::Estimated(_))
                        | (What::Measure { .. }, Sum::Measure(_))
                )
            })
    }

    /// The sum that a metric is read from.
    pub fn sum<'a>(&self, metric: usize, sums: &'a [Sum]) -> &'a Sum {
        &sums[self.of_metric[metric]]
    }

    /// A metric's figure; `None` where there is nothing to say.
    pub fn figure(&self, metric: usize, sums: &[Sum]) -> Option<Estimate> {
        self.sum(metric, sums).figure(&self.metrics[metric].stat)
    }

    /// Every metric's figure.
    pub fn figures(&self, sums: &[Sum]) -> Vec<Option<Estimate>> {
        (0..self.metrics.len()).map(|metric| self.figure(metric, sums)).collect()
    }
}

impl Part {
    /// Whether a cell has any of it.
    pub fn is_in(&self, cell: &Cell) -> bool {
        match &self.what {
            What::Count => cell.count > 0,
            What::Users => !cell.users.is_empty(),
            What::Measure { name, .. } => cell.measures.get(name).is_some(),
        }
    }

    /// Adds a cell to a sum of this part.
    pub fn add(&self, sum: &mut Sum, cell: &Cell) {
        match (&self.what, sum) {
            (What::Count, Sum::Count(sum)) => *sum = sum.saturating_add(cell.count),
            (What::Users, Sum::Users(sum)) => sum.merge(&cell.users),
            (What::Measure { name, digest }, Sum::Measure(sum)) => {
                let Some(measure) = cell.measures.get(name) else { return };
                match sum {
                    Some(sum) => sum.merge(measure),
                    // Merging keeps a digest only where both have one: without one here, none is merged.
                    None if *digest => *sum = Some(measure.clone()),
                    None => *sum = Some(Measure { digest: None, ..*measure }),
                }
            }
            _ => {}
        }
    }

    fn zero(&self) -> Sum {
        match &self.what {
            What::Count => Sum::Count(0),
            What::Users => Sum::Users(Users::default()),
            What::Measure { .. } => Sum::Measure(None),
        }
    }
}

impl Sum {
    /// Adds another sum of the same part.
    pub fn merge(&mut self, other: &Sum) {
        match (self, other) {
            (Sum::Count(ours), Sum::Count(theirs)) => *ours = ours.saturating_add(*theirs),
            (Sum::Users(ours), Sum::Users(theirs)) => ours.merge(theirs),
            (Sum::Measure(Some(ours)), Sum::Measure(Some(theirs))) => ours.merge(theirs),
            (Sum::Measure(ours @ None), Sum::Measure(theirs)) => *ours = theirs.clone(),
            _ => {}
        }
    }

    /// The same, with an estimate in the place of users.
    pub fn estimated(&self) -> Sum {
        match self {
            Sum::Users(users) => Sum::Estimated(users.estimate()),
            sum => sum.clone(),
        }
    }

    /// Bytes on the heap, roughly.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Sum::Users(users) => users.memory_bytes(),
            Sum::Measure(Some(Measure { digest: Some(digest), .. })) => digest.memory_bytes(),
            _ => 0,
        }
    }

    /// What it says; `None` where there is nothing to say, or of another part's stat.
    pub fn figure(&self, stat: &Stat) -> Option<Estimate> {
        let measure = match (self, stat) {
            (Sum::Count(count), Stat::Count) => return Some(Estimate::exact(*count as f64)),
            (Sum::Users(users), Stat::Users) => return Some(users.estimate()),
            (Sum::Estimated(users), Stat::Users) => return Some(*users),
            (Sum::Measure(measure), _) => measure.as_ref()?,
            _ => return None,
        };
        match stat {
            Stat::Sum(_) => Some(Estimate::exact(units(measure.sum))),
            Stat::Avg(_) => Some(Estimate::exact(units(measure.sum) / measure.n as f64)),
            Stat::Min(_) => Some(Estimate::exact(units(measure.min.into()))),
            Stat::Max(_) => Some(Estimate::exact(units(measure.max.into()))),
            Stat::Quantile(_, hundredths) => measure.digest.as_ref()?.quantile(f64::from(*hundredths) / 100.0),
            Stat::Count | Stat::Users => None,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Sum::Count(count) => {
                out.push(COUNT);
                put_uv(out, *count);
            }
            Sum::Users(users) => {
                out.push(USERS);
                users.encode(out);
            }
            Sum::Measure(None) => out.push(NO_MEASURE),
            Sum::Measure(Some(measure)) => {
                out.push(MEASURE);
                measure.encode(out);
            }
            Sum::Estimated(Estimate { value, lower, upper, exact }) => {
                out.push(ESTIMATED);
                [value, lower, upper].iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
                out.push((*exact).into());
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Sum, DecodeError> {
        match reader.u8()? {
            COUNT => Ok(Sum::Count(reader.uv()?)),
            USERS => Ok(Sum::Users(Users::decode(reader)?)),
            NO_MEASURE => Ok(Sum::Measure(None)),
            MEASURE => Ok(Sum::Measure(Some(Measure::decode(reader)?))),
            ESTIMATED => {
                let mut number = || Ok(f64::from_le_bytes(reader.array()?));
                let (value, lower, upper): (f64, f64, f64) = (number()?, number()?, number()?);
                let exact = match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(DecodeError::Malformed("neither exact nor not")),
                };
                // Also refuses what is no number.
                if !(lower <= value && value <= upper && lower.is_finite() && upper.is_finite()) {
                    return Err(DecodeError::Malformed("an estimate outside its bounds"));
                }
                Ok(Sum::Estimated(Estimate { value, lower, upper, exact }))
            }
            _ => Err(DecodeError::Malformed("unknown form of a sum")),
        }
    }
}

/// Millionths in units.
fn units(micros: i128) -> f64 {
    micros as f64 / 1e6
}
