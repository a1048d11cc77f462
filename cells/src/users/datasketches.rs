//! The images by which DataSketches libraries exchange HyperLogLog sketches of lg_k 12, HLL_8.

use super::registers::{REGISTERS, Registers};
use super::{Coupon, Form, Users};
use crate::codec::{DecodeError, Reader};

const SERIAL_VERSION: u8 = 1;
const FAMILY: u8 = 7;
const LG_K: u8 = 12;

/// Preamble, in u32s, of each mode.
const LIST_PREAMBLE: u8 = 2;
const SET_PREAMBLE: u8 = 3;
const HLL_PREAMBLE: u8 = 10;

const LIST: u8 = 0;
const SET: u8 = 1;
const HLL: u8 = 2;
/// The upper half of the mode byte: eight bits a register.
const HLL_8: u8 = 2 << 2;

/// lg of a list's room.
const LIST_LG_ROOM: u8 = 3;
/// lg of the least room of a set of coupons.
const SET_LG_ROOM_MIN: u8 = 5;
/// lg of the greatest.
const SET_LG_ROOM_MAX: u8 = 9;
/// Coupons of a full set; images of more are registers.
pub(super) const SET_COUPONS_MAX: usize = (1 << SET_LG_ROOM_MAX) / 4 * 3;

const EMPTY: u8 = 4;
const COMPACT: u8 = 8;
/// The history is not known: estimate by the registers alone.
const OUT_OF_ORDER: u8 = 16;

impl Users {
    /// An image that the DataSketches libraries of Java, C++ and Python open.
    pub fn to_datasketches(&self) -> Vec<u8> {
        let header = |preamble, lg_room, flags, n, mode| {
            vec![preamble, SERIAL_VERSION, FAMILY, LG_K, lg_room, flags, n, mode | HLL_8]
        };
        let put_coupons = |mut image: Vec<u8>, coupons: &[Coupon]| {
            coupons.iter().for_each(|coupon| image.extend_from_slice(&coupon.bits().to_le_bytes()));
            image
        };
        match &self.0 {
            Form::Coupons(coupons) if coupons.len() < 1 << LIST_LG_ROOM => {
                let flags = if coupons.is_empty() { EMPTY | COMPACT } else { COMPACT };
                put_coupons(header(LIST_PREAMBLE, LIST_LG_ROOM, flags, coupons.len() as u8, LIST), coupons)
            }
            Form::Coupons(coupons) if coupons.len() <= SET_COUPONS_MAX => {
                let lg_room = (SET_LG_ROOM_MIN..SET_LG_ROOM_MAX)
                    .find(|lg_room| coupons.len() <= (1 << lg_room) / 4 * 3)
                    .unwrap_or(SET_LG_ROOM_MAX);
                let mut image = header(SET_PREAMBLE, lg_room, COMPACT, 0, SET);
                image.extend_from_slice(&(coupons.len() as u32).to_le_bytes());
                put_coupons(image, coupons)
            }
            form => {
                let registers = match form {
                    Form::Coupons(coupons) => &Registers::of(coupons),
                    Form::Registers(registers) => registers,
                };
                let mut image = header(HLL_PREAMBLE, 0, OUT_OF_ORDER, 0, HLL);
                let values = registers.values();
                // Σ 2⁻ᵛ, in two parts so that none is lost beside the other; the accumulator of the history stays 0.
                let sum = |of: &dyn Fn(u8) -> bool| -> f64 {
                    values.iter().filter(|&&value| of(value)).map(|&value| 0.5f64.powi(value.into())).sum()
                };
                let zeros = values.iter().filter(|&&value| value == 0).count() as u32;
                for number in [0.0, sum(&|value| value < 32), sum(&|value| value >= 32)] {
                    image.extend_from_slice(&number.to_le_bytes());
                }
                image.extend_from_slice(&zeros.to_le_bytes());
                image.extend_from_slice(&0u32.to_le_bytes());
                image.extend_from_slice(values);
                image
            }
        }
    }

    /// Reads such an image, compact or updatable, of lg_k 12 and HLL_8. What it says of its history is passed over. Where it holds
    /// registers, so does the set, of however few users: which they were can't be told any more.
    pub fn from_datasketches(image: &[u8]) -> Result<Users, DecodeError> {
        let mut reader = Reader::new(image);
        let [preamble, version, family, lg_k, lg_room, flags, n, mode] = reader.array()?;
        if version != SERIAL_VERSION {
            return Err(DecodeError::Version(version));
        }
        if family != FAMILY || lg_k != LG_K {
            return Err(DecodeError::Malformed("not a HyperLogLog sketch of lg_k 12"));
        }
        let users = match (mode ^ HLL_8, preamble) {
            (LIST, LIST_PREAMBLE) if lg_room == LIST_LG_ROOM => read_coupons(&mut reader, n.into(), lg_room, flags)?,
            (SET, SET_PREAMBLE) if (SET_LG_ROOM_MIN..=SET_LG_ROOM_MAX).contains(&lg_room) => {
                let n = reader.u32()? as usize;
                read_coupons(&mut reader, n, lg_room, flags)?
            }
            (HLL, HLL_PREAMBLE) => {
                reader.bytes(4 * (usize::from(HLL_PREAMBLE) - 2))?;
                let values = Box::new(reader.array::<REGISTERS>()?);
                Users(Form::Registers(Registers::from_values(values)?))
            }
            _ => return Err(DecodeError::Malformed("mode of a HyperLogLog sketch")),
        };
        reader.finish()?;
        Ok(users)
    }
}

/// Reads `n` coupons: one after the other in a compact image, else in a table of 2^`lg_room` with zeros between them.
fn read_coupons(reader: &mut Reader<'_>, n: usize, lg_room: u8, flags: u8) -> Result<Users, DecodeError> {
    let room = 1 << lg_room;
    if n > SET_COUPONS_MAX.min(room) {
        return Err(DecodeError::Malformed("too many coupons"));
    }
    let compact = flags & COMPACT != 0;
    let slots = if compact { n } else { room };
    let mut coupons = Vec::with_capacity(n);
    for slot in reader.bytes(slots * size_of::<u32>())?.as_chunks::<4>().0 {
        match u32::from_le_bytes(*slot) {
            0 if !compact => {}
            bits => coupons.push(Coupon::from_bits(bits).ok_or(DecodeError::Malformed("coupon"))?),
        }
    }
    coupons.sort_unstable();
    coupons.dedup();
    if coupons.len() != n {
        return Err(DecodeError::Malformed("number of coupons"));
    }
    Ok(Users(Form::Coupons(coupons)))
}
