//! The JSON that senders mostly write, in one pass: an object of texts without escapes, numbers and literals, and such an object as its
//! properties. What is none of that is left to serde_json, which also says what is no JSON: whatever is read here, it reads the same.

use std::borrow::Cow;

use super::{Field, Fields, Scalar};

/// Reads the fields of an event; `false` for what serde_json is to read instead.
pub(super) fn fields<'a>(json: &'a str, fields: &mut Fields<'a>) -> bool {
    let mut scan = Scan { json, at: 0 };
    let read = scan.object(|scan, name| {
        match Field::of(name) {
            // Most are texts, which take no detour.
            Some(field) if scan.peek()? == b'"' => fields.put_text(field, Cow::Borrowed(scan.text()?)),
            Some(field) => fields.put(field, scan.scalar()?),
            None if (name == "properties" || name == "metadata") && scan.peek()? == b'{' => {
                scan.object(|scan, name| {
                    fields.put_property(Cow::Borrowed(name), scan.scalar()?);
                    Some(())
                })?;
            }
            None => drop(scan.scalar()?),
        }
        Some(())
    });
    read.is_some() && scan.peek().is_none()
}

struct Scan<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.json.as_bytes().get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.text()?;
            self.expect(b':')?;
            member(self, name)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// A text without escapes.
    fn text(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let rest = &self.json[self.at..];
        let end = plain_bytes(rest.as_bytes());
        self.at += end + 1;
        (*rest.as_bytes().get(end)? == b'"').then(|| &rest[..end])
    }

    fn scalar(&mut self) -> Option<Scalar<'a>> {
        match self.peek()? {
            b'"' => Some(Scalar::Text(Cow::Borrowed(self.text()?))),
            b'n' => self.literal("null", Scalar::Null),
            b't' => self.literal("true", Scalar::Bool(true)),
            b'f' => self.literal("false", Scalar::Bool(false)),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn literal(&mut self, word: &str, value: Scalar<'a>) -> Option<Scalar<'a>> {
        let there = self.json[self.at..].starts_with(word);
        self.at += word.len();
        there.then_some(value)
    }

    fn number(&mut self) -> Option<Scalar<'a>> {
        let rest = &self.json[self.at..];
        let end = rest.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))?;
        self.at += end;
        let number = &rest[..end];
        // So many digits fit an i64.
        if end < 19 && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Scalar::Integer(number.bytes().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'))));
        }
        serde_json::from_str(number).ok()
    }
}

/// Bytes before the first that ends a text or may not stand in it: a quote, a backslash, a control character.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let (eights, rest) = bytes.as_chunks::<8>();
    for (n, eight) in eights.iter().enumerate() {
        let eight = u64::from_le_bytes(*eight);
        // The high bit of each byte that is less than the other one, as far as the first; later ones may have been borrowed from.
        let less = |bytes: u64, than: u8| bytes.wrapping_sub(ONES * u64::from(than)) & !bytes;
        let is = |byte: u8| less(eight ^ (ONES * u64::from(byte)), 1);
        let found = (less(eight, b' ') | is(b'"') | is(b'\\')) & (ONES * 0x80);
        if found != 0 {
            return 8 * n + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = rest.iter().take_while(|&&byte| byte >= b' ' && byte != b'"' && byte != b'\\').count();
    8 * eights.len() + plain
}
