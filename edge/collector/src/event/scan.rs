//! The JSON that senders mostly write: an object on one line, of texts without escapes, numbers and literals, and such an object as its
//! properties. What is none of that is left to serde_json, which also says what is no JSON: whatever is read here, it reads the same.

use std::borrow::Cow;

use memchr::memchr;

use super::{Field, Fields, Scalar};

/// Reads the fields of an event; `false` for what serde_json is to read instead.
pub(super) fn fields<'a>(json: &'a str, fields: &mut Fields<'a>) -> bool {
    if !is_plain(json.as_bytes()) {
        return false;
    }
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
                b' ' => self.at += 1,
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

    /// A text: as there are no escapes, it ends with the next quote.
    fn text(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        let end = start + memchr(b'"', self.json.as_bytes().get(start..)?)?;
        self.at = end + 1;
        self.json.get(start..end)
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
        let rest = &self.json.as_bytes()[self.at..];
        let (mut digits, mut integer) = (0, 0i64);
        while let Some(digit @ b'0'..=b'9') = rest.get(digits) {
            integer = integer.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            digits += 1;
        }
        // So many digits fit an i64.
        let is_short = (1..19).contains(&digits) && (digits == 1 || rest[0] != b'0');
        if is_short && !matches!(rest.get(digits), Some(b'.' | b'e' | b'E')) {
            self.at += digits;
            return Some(Scalar::Integer(integer));
        }
        let of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let start = self.at;
        self.at += rest.iter().take_while(|byte| of_number(byte)).count();
        serde_json::from_str(self.json.get(start..self.at)?).ok()
    }
}

/// Whether there are neither backslashes nor control characters, which may not stand in texts and are blanks elsewhere.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let (eights, rest) = bytes.as_chunks::<8>();
    // The high bit of a byte is set where it is less than the other one, or where a lower byte was, which it borrowed from.
    let less = |bytes: u64, than: u8| bytes.wrapping_sub(ONES * u64::from(than)) & !bytes;
    let odd = eights
        .iter()
        .map(|eight| u64::from_le_bytes(*eight))
        .fold(0, |odd, eight| odd | less(eight, b' ') | less(eight ^ (ONES * u64::from(b'\\')), 1));
    odd & (ONES * 0x80) == 0 && rest.iter().all(|&byte| byte >= b' ' && byte != b'\\')
}
