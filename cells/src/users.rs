//! stub
use crate::codec::*;
/// c
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coupon(u32);
impl Coupon {
    /// o
    pub fn of(u: u64) -> Self {
        Coupon((u as u32 & 0x3ffffff) | 1 << 26)
    }
}
/// u
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Users(Vec<u32>);
impl Users {
    /// i
    pub fn insert(&mut self, c: Coupon) {
        if let Err(i) = self.0.binary_search(&c.0) {
            self.0.insert(i, c.0)
        }
    }
    /// m
    pub fn merge(&mut self, o: &Users) {
        for c in &o.0 {
            self.insert(Coupon(*c))
        }
    }
    /// m
    pub fn memory_bytes(&self) -> usize {
        self.0.len() * 4
    }
    /// e
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(0);
        put_uv(out, self.0.len() as u64);
        for c in &self.0 {
            out.extend_from_slice(&c.to_le_bytes())
        }
    }
    /// d
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        let n = r.count(4)?;
        let mut v = vec![];
        for _ in 0..n {
            v.push(r.u32()?)
        }
        Ok(Users(v))
    }
}
