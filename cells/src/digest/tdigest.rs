//! A merging t-digest, after Dunning and Ertl, "Computing Extremely Accurate Quantiles Using t-Digests" (arXiv 1902.04023).
//!
//! DataSketches reads and writes its images. Its own digests have their smallest centroids in the far tails, and some 2 to 3 % of all
//! values in one at the median: so far off would a rank be where values are tied. Here the scale function is K₁, centroids hold less
//! than the error that is promised, and what is frequent is kept apart.

use datasketches::tdigest::TDigestMut;

/// Accuracy, as images have it.
pub(super) const K: u16 = 200;
/// Bytes of an image before its centroids, and of each of these: f64 mean, u64 weight.
pub(super) const HEADER_BYTES: usize = 32;
pub(super) const CENTROID_BYTES: usize = 16;
/// Third byte of an image.
const FAMILY: u8 = 20;
const DESCENDING: u8 = 1 << 2;
/// K₁ = 2 k / 2π · asin(2 q - 1) grows by one where q grows by this and √(q (1 - q)).
const STEP: f64 = std::f64::consts::TAU / (2 * K) as f64;
/// The most of all values that one centroid holds.
const SHARE_MAX: f64 = 0.006;
/// Centroids that other libraries have room for at this k, less some.
const CENTROIDS_MAX: usize = 400;
/// How much more a centroid may hold at the next attempt, where there are too many of them.
const RELAXED: f64 = 1.15;
/// Values that wait to be clustered.
const WAITING_MAX: usize = 1_600;

/// Values, in millionths.
#[derive(Debug, Clone)]
pub(super) struct TDigest {
    /// Ascending.
    centroids: Vec<Centroid>,
    waiting: Vec<f64>,
    /// Values, those that wait among them.
    n: u64,
    min: f64,
    max: f64,
    /// The next compression goes from the greatest mean to the least.
    descending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Centroid {
    mean: f64,
    weight: u64,
}

impl TDigest {
    /// A digest of no values.
    pub(super) fn new() -> Self {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        TDigest { centroids: Vec::new(), waiting: Vec::new(), n: 0, min, max, descending: false }
    }

    /// How many values there are.
    pub(super) fn n(&self) -> u64 {
        self.n
    }

    /// Adds a value.
    pub(super) fn record(&mut self, value: f64) {
        self.waiting.push(value);
        self.n += 1;
        (self.min, self.max) = (self.min.min(value), self.max.max(value));
        if self.waiting.len() >= WAITING_MAX {
            self.compress();
        }
    }

    /// Adds another digest's values.
    pub(super) fn merge(&mut self, other: &TDigest) {
        self.centroids.extend_from_slice(&other.centroids);
        self.waiting.extend_from_slice(&other.waiting);
        self.n += other.n;
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        self.compress();
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.centroids.capacity() * size_of::<Centroid>() + self.waiting.capacity() * size_of::<f64>()
    }

    /// The value at rank ⌈q·n⌉, with its bounds; `None` if there are none.
    pub(super) fn quantile(&self, q: f64) -> Option<(f64, f64, f64)> {
        let digest = self.compressed();
        let value = digest.value_at((q * digest.n as f64).ceil().max(1.0))?;
        let (lower, upper) = digest.bounds(q)?;
        Some((value, lower.min(value), upper.max(value)))
    }

    /// Writes what DataSketches reads.
    pub(super) fn image(&self) -> Vec<u8> {
        let digest = self.compressed();
        let mut image = vec![2, 1, FAMILY];
        image.extend_from_slice(&K.to_le_bytes());
        image.extend_from_slice(&[if digest.descending { DESCENDING } else { 0 }, 0, 0]);
        image.extend_from_slice(&(digest.centroids.len() as u32).to_le_bytes());
        image.extend_from_slice(&0u32.to_le_bytes());
        image.extend_from_slice(&digest.min.to_le_bytes());
        image.extend_from_slice(&digest.max.to_le_bytes());
        for Centroid { mean, weight } in &digest.centroids {
            image.extend_from_slice(&mean.to_le_bytes());
            image.extend_from_slice(&weight.to_le_bytes());
        }
        image
    }

    /// Reads an image of `n` values from `min` to `max` that is written the one way. The library checks the centroids.
    pub(super) fn read(image: &[u8], n: u64, min: i64, max: i64) -> Option<Self> {
        // Of another family, the library would try formats that nobody here writes.
        if image.get(2) != Some(&FAMILY) {
            return None;
        }
        let mut checked = TDigestMut::deserialize(image).ok()?;
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        let same_measure = checked.k() == K
            && checked.total_weight() == n
            && bits(checked.min_value()) == bits(Some(min as f64))
            && bits(checked.max_value()) == bits(Some(max as f64));
        if !same_measure || checked.serialize() != image {
            return None;
        }
        let centroid = |bytes: &[u8; CENTROID_BYTES]| {
            let [mean, weight] = *bytes.as_chunks::<8>().0 else { return None };
            Some(Centroid { mean: f64::from_le_bytes(mean), weight: u64::from_le_bytes(weight) })
        };
        let centroids = image.get(HEADER_BYTES..)?.as_chunks::<CENTROID_BYTES>().0.iter().map(centroid);
        let descending = image.get(5)? & DESCENDING != 0;
        Some(TDigest {
            centroids: centroids.collect::<Option<_>>()?,
            waiting: Vec::new(),
            n,
            min: min as f64,
            max: max as f64,
            descending,
        })
    }

    fn compressed(&self) -> std::borrow::Cow<'_, TDigest> {
        if self.waiting.is_empty() {
            return std::borrow::Cow::Borrowed(self);
        }
        let mut digest = self.clone();
        digest.compress();
        std::borrow::Cow::Owned(digest)
    }

    /// Clusters all values anew, from one end or from the other in turn.
    fn compress(&mut self) {
        let waiting = self.waiting.drain(..).map(|mean| Centroid { mean, weight: 1 });
        self.centroids.extend(waiting);
        // The stable sort finds the ascending runs and merges them.
        self.centroids.sort_by(|a, b| a.mean.total_cmp(&b.mean));
        // Of a value, how many there are for sure: each of its centroids may have got others' values, but from both sides.
        let mut frequent: Vec<(Centroid, f64)> = Vec::with_capacity(self.centroids.len());
        for same in self.centroids.chunk_by(|a, b| a.mean == b.mean) {
            let weight = same.iter().map(|centroid| centroid.weight).sum::<u64>() as f64;
            frequent.extend(same.iter().map(|centroid| (*centroid, weight)));
        }
        if self.descending {
            frequent.reverse();
        }
        let mut relaxed = 1.0;
        loop {
            self.cluster(&frequent, relaxed);
            if self.centroids.len() <= CENTROIDS_MAX {
                break;
            }
            relaxed *= RELAXED;
        }
        if self.descending {
            self.centroids.reverse();
        }
        self.descending = !self.descending;
    }

    /// Puts neighbours into one centroid as long as it doesn't hold too much; each comes with the weight of its value.
    fn cluster(&mut self, all: &[(Centroid, f64)], relaxed: f64) {
        let n = self.n as f64;
        // What may be in a centroid with so many values before or after it.
        let most = |outside: u64| {
            let (outside, rest) = (outside as f64, (self.n - outside) as f64);
            relaxed * (STEP * (outside * rest).sqrt()).min(SHARE_MAX * n)
        };
        self.centroids.clear();
        let Some((&(mut last, mut last_frequent), rest)) = all.split_first() else { return };
        let mut before = 0;
        for &(centroid, frequent) in rest {
            let weight = last.weight + centroid.weight;
            let most = most(before).min(most(before + weight));
            // A value that fills a centroid by itself has no others among it.
            let apart = last.mean != centroid.mean && (last_frequent >= most || frequent >= most);
            if weight as f64 <= most && !apart {
                let mean = last.mean + (centroid.mean - last.mean) * (centroid.weight as f64 / weight as f64);
                // Rounding doesn't carry it past either.
                let (low, high) = (last.mean.min(centroid.mean), last.mean.max(centroid.mean));
                last = Centroid { mean: mean.clamp(low, high), weight };
                last_frequent = last_frequent.max(frequent);
            } else {
                before += last.weight;
                self.centroids.push(last);
                (last, last_frequent) = (centroid, frequent);
            }
        }
        self.centroids.push(last);
    }

    /// The value at a rank, of which the first is 1: between the middles of two centroids, in proportion.
    fn value_at(&self, rank: f64) -> Option<f64> {
        // A value is in the middle of its place.
        let at = rank - 0.5;
        let (mut left, mut before) = ((0.5, self.min), 0);
        let ends = [(self.n as f64 - 0.5, self.max)];
        let middles = self.centroids.iter().map(|centroid| {
            let middle = before as f64 + centroid.weight as f64 / 2.0;
            before += centroid.weight;
            (middle, centroid.mean)
        });
        for right in middles.chain(ends) {
            if right.0 >= at {
                let part = if right.0 > left.0 { ((at - left.0) / (right.0 - left.0)).clamp(0.0, 1.0) } else { 1.0 };
                return Some(if part == 1.0 { right.1 } else { left.1 + (right.1 - left.1) * part });
            }
            left = right;
        }
        (self.n > 0).then_some(self.max)
    }

    /// Bounds of the value at rank ⌈q·n⌉, in millionths.
    ///
    /// What values a centroid was made of is not known: they lie on both sides of its mean. So the rank is taken half a centroid
    /// further both ways, and from there the next mean outwards. Near a value that is repeated so often that whole centroids are made of
    /// it, others may have swallowed some of it too, and the rank is taken further.
    fn bounds(&self, q: f64) -> Option<(f64, f64)> {
        struct Placed {
            mean: f64,
            weight: f64,
            /// Weight before it and half its own.
            middle: f64,
        }
        let mut before = 0.0;
        let placed = |centroid: &Centroid| {
            let (mean, weight) = (centroid.mean, centroid.weight as f64);
            before += weight;
            Placed { mean, weight, middle: before - weight / 2.0 }
        };
        let centroids: Vec<Placed> = self.centroids.iter().map(placed).collect();
        let rank = q * self.n as f64;
        let at = centroids.partition_point(|centroid| centroid.middle + centroid.weight / 2.0 < rank);
        let weight = centroids.get(at).map_or(0.0, |centroid| centroid.weight);
        // The places of the last centroid before so many centroids' weight to the left of the rank, and of the first after as many
        // to the right.
        let around = |centroids_away: f64| {
            let slack = centroids_away * weight + 1.0;
            let left = centroids.iter().rposition(|centroid| centroid.middle <= rank - slack);
            (left, centroids.iter().position(|centroid| centroid.middle >= rank + slack))
        };
        let (left, right) = around(4.0);
        let near = centroids.get(left.unwrap_or(0)..right.map_or(centroids.len(), |right| right + 1))?;
        let tied = near.windows(2).any(|two| two[0].mean == two[1].mean);
        let (left, right) = around(if tied { 1.5 } else { 0.5 });
        let mean = |at: usize| centroids.get(at).map(|centroid| centroid.mean);
        Some((left.and_then(mean).unwrap_or(self.min), right.and_then(mean).unwrap_or(self.max)))
    }
}
