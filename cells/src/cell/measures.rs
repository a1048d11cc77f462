//! The measures of a cell, by name.

use super::Measure;
use crate::codec::{DecodeError, Reader, put_uv};

/// The fewest bytes of an encoded measure with its name.
const MEASURE_BYTES_MIN: usize = 6;

/// Summaries of numbers by the measure's name, ascending. Nearly all cells have one or two, and there are a great many cells: a
/// tree would set a kilobyte aside for each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measures(Vec<(Box<str>, Measure)>);

impl Measures {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The summary of a name.
    pub fn get(&self, name: &str) -> Option<&Measure> {
        self.place(name).ok().map(|at| &self.0[at].1)
    }

    /// Names and summaries, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Measure)> {
        self.0.iter().map(|(name, measure)| (&**name, measure))
    }

    /// The names, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// The summaries, in the order of their names.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Measure> {
        self.0.iter_mut().map(|(_, measure)| measure)
    }

    /// Adds one value of a name, in millionths.
    pub(super) fn record(&mut self, name: &str, micros: i64, with_digest: bool) {
        match self.place(name) {
            Ok(at) => self.0[at].1.record(micros),
            Err(at) => self.insert(at, name.into(), Measure::of(micros, with_digest)),
        }
    }

    /// Writes `uv n ‖ n × (name ‖ measure)`; `put_name` writes a name.
    pub fn encode(&self, out: &mut Vec<u8>, mut put_name: impl FnMut(&mut Vec<u8>, &str)) {
        put_uv(out, self.len() as u64);
        for (name, measure) in self.iter() {
            put_name(out, name);
            measure.encode(out);
        }
    }

    /// Reads what [`encode`](Self::encode) wrote; `name` reads a name.
    pub fn decode<'a>(
        reader: &mut Reader<'a>,
        name: impl Fn(&mut Reader<'a>) -> Result<&'a str, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let mut measures = Measures::default();
        for _ in 0..reader.count(MEASURE_BYTES_MIN)? {
            let name = name(reader)?;
            if !measures.push(name, Measure::decode(reader)?) {
                return Err(DecodeError::Malformed("measures not ascending"));
            }
        }
        Ok(measures)
    }

    /// Puts a name behind all others; `false` where it doesn't belong there.
    pub(super) fn push(&mut self, name: &str, measure: Measure) -> bool {
        let ascends = self.0.last().is_none_or(|(last, _)| **last < *name);
        if ascends {
            self.insert(self.0.len(), name.into(), measure);
        }
        ascends
    }

    /// Adds others: in one pass, however many names are new.
    pub(super) fn merge(&mut self, other: &Measures) {
        let new = other.iter().filter(|(name, _)| self.place(name).is_err()).count();
        if new == 0 {
            for (name, theirs) in other.iter() {
                if let Ok(at) = self.place(name) {
                    self.0[at].1.merge(theirs);
                }
            }
            return;
        }
        let mut merged = Vec::with_capacity(self.0.len() + new);
        let mut ours = std::mem::take(&mut self.0).into_iter().peekable();
        for (name, theirs) in other.iter() {
            while let Some(before) = ours.next_if(|(ours, _)| **ours < *name) {
                merged.push(before);
            }
            merged.push(match ours.next_if(|(ours, _)| **ours == *name) {
                Some((name, mut measure)) => {
                    measure.merge(theirs);
                    (name, measure)
                }
                None => (name.into(), theirs.clone()),
            });
        }
        merged.extend(ours);
        self.0 = merged;
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(ours, _)| (**ours).cmp(name))
    }

    fn insert(&mut self, at: usize, name: Box<str>, measure: Measure) {
        if self.0.is_empty() {
            // A vector that grows by itself begins with room for four.
            self.0.reserve_exact(1);
        }
        self.0.insert(at, (name, measure));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn of(values: &[(String, i64)]) -> Measures {
        let mut measures = Measures::default();
        values.iter().for_each(|(name, value)| measures.record(name, *value, false));
        measures
    }

    fn values() -> impl Strategy<Value = Vec<(String, i64)>> {
        prop::collection::vec(("[a-f]{1,2}", -100..100i64), 0..20)
    }

    proptest! {
        #[test]
        fn merging_is_recording_all_of_both(a in values(), b in values()) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let all = [a, b].concat();
            prop_assert_eq!(&merged, &of(&all));
            let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
            all.iter().for_each(|(name, value)| *sums.entry(name).or_default() += i128::from(*value));
            prop_assert_eq!(merged.len(), sums.len());
            prop_assert!(merged.iter().map(|(name, measure)| (name, measure.sum)).eq(sums));
        }
    }

    #[test]
    fn one_measure_takes_room_for_one() {
        assert_eq!(of(&[("ms".into(), 1)]).0.capacity(), 1);
    }

    #[test]
    fn only_what_ascends_is_put_behind() {
        let mut measures = of(&[("b".into(), 1)]);
        for (name, ascends) in [("a", false), ("b", false), ("c", true)] {
            assert_eq!(measures.push(name, Measure::of(1, false)), ascends, "{name}");
        }
        assert!(measures.names().eq(["b", "c"]));
        assert!(measures.get("c").is_some() && measures.get("a").is_none());
    }
}
