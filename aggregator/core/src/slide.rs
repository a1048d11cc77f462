//! Sliding windows: what the last so many buckets hold together, in three merges a step however many these are.

use catchment_cells::sum::Sum;

/// The sums of one bucket; `None` where it has nothing.
pub(crate) type Sums = Option<Vec<Sum>>;

/// A window over buckets that come one by one. It cuts them into blocks of its own length: what it holds is the end of one
/// block and the beginning of the next, and these are merged once for all windows.
#[derive(Debug)]
pub(crate) struct Window {
    /// From each bucket of the last whole block to its end.
    ends: Vec<Sums>,
    block: Vec<Sums>,
    /// The present block.
    beginning: Sums,
}

impl Window {
    /// Of so many buckets, at least one.
    pub(crate) fn new(buckets: usize) -> Window {
        Window { ends: vec![None; buckets], block: Vec::with_capacity(buckets), beginning: None }
    }

    /// Goes on by a bucket, and says what is in the window that ends with it.
    pub(crate) fn push(&mut self, sums: Sums) -> Sums {
        merge(&mut self.beginning, sums.as_deref());
        self.block.push(sums);
        let mut whole = self.ends.get(self.block.len()).cloned().flatten();
        merge(&mut whole, self.beginning.as_deref());
        if self.block.len() == self.ends.len() {
            self.turn();
        }
        whole
    }

    /// Begins a new block.
    fn turn(&mut self) {
        let mut end = None;
        for (place, mut sums) in self.ends.iter_mut().zip(self.block.drain(..)).rev() {
            merge(&mut sums, end.as_deref());
            place.clone_from(&sums);
            end = sums;
        }
        self.beginning = None;
    }
}

/// Adds sums to others of the same parts.
pub(crate) fn merge(sums: &mut Sums, more: Option<&[Sum]>) {
    match (sums, more) {
        (Some(sums), Some(more)) => sums.iter_mut().zip(more).for_each(|(sum, more)| sum.merge(more)),
        (sums @ None, Some(more)) => *sums = Some(more.to_vec()),
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_hold_their_buckets(
            buckets in prop::collection::vec(prop::option::of(0u64..100), 0..40),
            length in 1usize..12,
        ) {
            let mut window = Window::new(length);
            for (at, count) in buckets.iter().enumerate() {
                let within = &buckets[(at + 1).saturating_sub(length)..=at];
                let expected = within.iter().any(Option::is_some).then(|| within.iter().flatten().sum::<u64>());
                let told = window.push(count.map(|count| vec![Sum::Count(count)]));
                prop_assert_eq!(told, expected.map(|count| vec![Sum::Count(count)]));
            }
        }
    }
}
