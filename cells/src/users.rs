//! Different users of a cell: their coupons while these are few, else HyperLogLog registers. One form for one set of users,
//! whatever the order and grouping in which it was gathered. The grammar is in docs/FORMATS.md.

mod coupon;
mod datasketches;
mod registers;

pub use self::coupon::Coupon;
use self::registers::{REGISTERS, Registers};
use crate::codec::{DecodeError, Reader, put_uv};
use crate::estimate::Estimate;
use crate::limits::USERS_COUPONS_MAX;

/// The form's first byte on the wire: final.
const COUPONS: u8 = 0;
const REGISTER_IMAGE: u8 = 1;

/// Coupons from which two users with one coupon are likely enough to leave room for: below, one in 100,000 sets has such a pair.
const COLLIDING_COUPONS: usize = 64;

/// A set of users that can be merged and counted, not listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Users(Form);

#[derive(Debug, Clone, PartialEq)]
enum Form {
    /// Ascending, each once, at most [`USERS_COUPONS_MAX`].
    Coupons(Vec<Coupon>),
    /// Of more than [`USERS_COUPONS_MAX`] coupons.
    Registers(Registers),
}

impl Default for Users {
    fn default() -> Self {
        Users(Form::Coupons(Vec::new()))
    }
}

impl Users {
    /// Adds a user.
    pub fn insert(&mut self, coupon: Coupon) {
        match &mut self.0 {
            Form::Registers(registers) => registers.insert(coupon),
            Form::Coupons(coupons) => {
                if let Err(at) = coupons.binary_search(&coupon) {
                    coupons.insert(at, coupon);
                    self.settle();
                }
            }
        }
    }

    /// Adds another set's users.
    pub fn merge(&mut self, other: &Users) {
        match (&mut self.0, &other.0) {
            (Form::Registers(ours), Form::Registers(theirs)) => ours.merge(theirs),
            (Form::Registers(ours), Form::Coupons(theirs)) => theirs.iter().for_each(|&coupon| ours.insert(coupon)),
            (Form::Coupons(ours), Form::Registers(theirs)) => {
                let mut registers = theirs.clone();
                ours.iter().for_each(|&coupon| registers.insert(coupon));
                self.0 = Form::Registers(registers);
            }
            (Form::Coupons(_), Form::Coupons(theirs)) if theirs.len() == 1 => self.insert(theirs[0]),
            (Form::Coupons(ours), Form::Coupons(theirs)) if ours.is_empty() => ours.extend_from_slice(theirs),
            (Form::Coupons(ours), Form::Coupons(theirs)) => {
                ours.extend_from_slice(theirs);
                // The stable sort finds the two ascending runs and merges them.
                ours.sort();
                ours.dedup();
                self.settle();
            }
        }
    }

    /// What is new since an earlier state of this set: merged into that one, it gives this one. `None` where the earlier one
    /// has users that this one hasn't, or where the whole set is the shorter answer.
    pub fn since(&self, earlier: &Users) -> Option<Users> {
        let new = match (&earlier.0, &self.0) {
            (Form::Coupons(earlier), Form::Coupons(ours)) => {
                let new: Vec<Coupon> =
                    ours.iter().copied().filter(|coupon| earlier.binary_search(coupon).is_err()).collect();
                (earlier.len() + new.len() == ours.len()).then_some(new)
            }
            (Form::Registers(earlier), Form::Registers(ours)) => ours.since(earlier),
            _ => None,
        };
        new.map(|new| Users(Form::Coupons(new)))
    }

    /// Whether it has no users.
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Form::Coupons(coupons) if coupons.is_empty())
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Coupons(coupons) => coupons.capacity() * size_of::<Coupon>(),
            Form::Registers(_) => REGISTERS,
        }
    }

    /// How many users there are.
    ///
    /// Few are known exactly, but for two that share a coupon: `upper` leaves room for one such pair. Many are estimated
    /// by their registers.
    pub fn estimate(&self) -> Estimate {
        match &self.0 {
            Form::Coupons(coupons) => {
                let value = coupons.len() as f64;
                let room = if coupons.len() < COLLIDING_COUPONS { 0.0 } else { 1.0 };
                Estimate { upper: value + room, ..Estimate::exact(value) }
            }
            Form::Registers(registers) => registers.estimate(),
        }
    }

    /// Writes the set.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Coupons(coupons) => encode_coupons(coupons, out),
            Form::Registers(registers) => encode_registers(registers, out),
        }
    }

    /// Reads what [`encode`](Self::encode) wrote; there is one form for each set.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            COUPONS => {
                let n = reader.count(1)?;
                if n > USERS_COUPONS_MAX {
                    return Err(DecodeError::Malformed("too many coupons"));
                }
                let mut coupons = Vec::with_capacity(n);
                let mut least = 0u64;
                for _ in 0..n {
                    let bits = least.checked_add(reader.uv()?).and_then(|bits| u32::try_from(bits).ok());
                    let coupon = bits.and_then(Coupon::from_bits).ok_or(DecodeError::Malformed("coupon"))?;
                    coupons.push(coupon);
                    least = u64::from(coupon.bits()) + 1;
                }
                Ok(Users(Form::Coupons(coupons)))
            }
            REGISTER_IMAGE => Ok(Users(Form::Registers(Registers::unpack(reader)?))),
            _ => Err(DecodeError::Malformed("unknown form of users")),
        }
    }

    /// Passes over what [`encode`](Self::encode) wrote.
    pub fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match reader.u8()? {
            COUPONS => {
                for _ in 0..reader.count(1)? {
                    reader.uv()?;
                }
                Ok(())
            }
            REGISTER_IMAGE => Registers::skip(reader),
            _ => Err(DecodeError::Malformed("unknown form of users")),
        }
    }

    /// Changes to registers once there are too many coupons.
    fn settle(&mut self) {
        if let Form::Coupons(coupons) = &self.0
            && coupons.len() > USERS_COUPONS_MAX
        {
            self.0 = Form::Registers(Registers::of(coupons));
        }
    }
}

/// Writes the set of these coupons, which it sorts.
pub(crate) fn encode_all(coupons: &mut Vec<Coupon>, out: &mut Vec<u8>) {
    coupons.sort_unstable();
    coupons.dedup();
    if coupons.len() > USERS_COUPONS_MAX {
        encode_registers(&Registers::of(coupons), out);
    } else {
        encode_coupons(coupons, out);
    }
}

fn encode_coupons(coupons: &[Coupon], out: &mut Vec<u8>) {
    out.push(COUPONS);
    put_uv(out, coupons.len() as u64);
    // The least coupon that may follow.
    let mut least = 0;
    for coupon in coupons {
        put_uv(out, u64::from(coupon.bits() - least));
        least = coupon.bits().wrapping_add(1);
    }
}

fn encode_registers(registers: &Registers, out: &mut Vec<u8>) {
    out.push(REGISTER_IMAGE);
    registers.pack(out);
}

#[cfg(test)]
mod tests;
