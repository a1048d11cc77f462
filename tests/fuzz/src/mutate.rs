//! Changes to inputs, by a seed: for the runs that libFuzzer doesn't drive.

/// A generator of pseudo-random numbers: SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One less than `n`, or 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }
}

/// Bytes that formats care about.
const TELLING: &[&[u8]] = &[
    &[0],
    &[1],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0xff; 8],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0, 0, 0, 0, 0, 0, 0xf8, 0x7f],
    b"-",
    b"0",
    b"1e308",
    b"9223372036854775808",
    b"\"",
    b"{",
    b"[",
    b"\\ud800",
    b"_",
    b".",
];

/// Changes an input one to four times, in the ways in which libFuzzer does; `other` is another one to borrow from.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], bytes_max: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        let len = 1 + random.below(8);
        let end = (at + len).min(input.len());
        match random.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = random.number() as u8,
            2 => _ = input.drain(at..end),
            3 => {
                let telling = TELLING[random.below(TELLING.len())];
                input.splice(at..at, telling.iter().copied());
            }
            4 => {
                let telling = TELLING[random.below(TELLING.len())];
                input.splice(at..(at + telling.len()).min(input.len()), telling.iter().copied());
            }
            5 => {
                let from = random.below(other.len());
                let piece = &other[from..(from + 1 + random.below(64)).min(other.len())];
                input.splice(at..end, piece.iter().copied());
            }
            _ => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
        }
    }
    input.truncate(bytes_max);
}
