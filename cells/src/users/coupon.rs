//! What is kept of one user.

/// Bits of a coupon's address.
const ADDRESS_BITS: u32 = 26;
/// DataSketches' default seed: with another one, sets could not be merged with theirs.
const SEED: u64 = 9001;

/// A user's hash: 26 bits of address, and above them a value from 1 to 63 that is v with a probability of 2⁻ᵛ. The same
/// as DataSketches' coupon of the same u64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coupon(u32);

impl Coupon {
    /// The coupon of a user's hash.
    pub fn of(user: u64) -> Self {
        let (h1, h2) = murmur3(user);
        let value = h2.leading_zeros().min(62) + 1;
        Coupon(value << ADDRESS_BITS | h1 as u32 & ((1 << ADDRESS_BITS) - 1))
    }

    /// A coupon out of its bits; `None` where the value is 0.
    pub(super) fn from_bits(bits: u32) -> Option<Self> {
        (bits >> ADDRESS_BITS != 0).then_some(Coupon(bits))
    }

    /// A coupon out of its parts; `None` where the value is 0.
    pub(super) fn from_parts(address: u32, value: u8) -> Option<Self> {
        Coupon::from_bits(u32::from(value) << ADDRESS_BITS | address & ((1 << ADDRESS_BITS) - 1))
    }

    /// value · 2²⁶ + address.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// 1 to 63.
    pub(super) fn value(self) -> u8 {
        (self.0 >> ADDRESS_BITS) as u8
    }
}

/// MurmurHash3_x64_128 of the eight little-endian bytes: all tail, no block.
fn murmur3(key: u64) -> (u64, u64) {
    let k1 = key.wrapping_mul(0x87c3_7b91_1142_53d5).rotate_left(31).wrapping_mul(0x4cf5_ad43_2745_937f);
    let length = 8;
    let h1 = (SEED ^ k1) ^ length;
    let h2 = SEED ^ length;
    let h1 = h1.wrapping_add(h2);
    let h2 = h2.wrapping_add(h1);
    let (h1, h2) = (mix(h1), mix(h2));
    let h1 = h1.wrapping_add(h2);
    (h1, h2.wrapping_add(h1))
}

fn mix(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ k >> 33
}
