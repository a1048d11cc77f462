//! stub
use crate::codec::*;
/// d
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Digest(Vec<i64>);
impl Digest {
    /// n
    pub fn new() -> Self {
        Digest(vec![])
    }
    /// r
    pub fn record(&mut self, v: i64) {
        let i = self.0.partition_point(|x| *x < v);
        self.0.insert(i, v)
    }
    /// m
    pub fn merge(&mut self, o: &Digest) {
        for v in &o.0 {
            self.record(*v)
        }
    }
    /// m
    pub fn memory_bytes(&self) -> usize {
        self.0.len() * 8
    }
    /// e
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_uv(out, self.0.len() as u64);
        for v in &self.0 {
            put_iv(out, *v)
        }
    }
    /// d
    pub fn decode(r: &mut Reader<'_>, _n: u64, _min: i64, _max: i64) -> Result<Option<Self>, DecodeError> {
        if r.u8()? == 0 {
            return Ok(None);
        }
        let n = r.count(1)?;
        let mut v = vec![];
        for _ in 0..n {
            v.push(r.iv()?)
        }
        Ok(Some(Digest(v)))
    }
}
