//! Files for spreadsheets: RFC 4180.

/// Characters that make a spreadsheet take a text for a formula. Whoever can send an event could write one.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A field.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// What someone may have sent.
    Text(String),
    /// What we counted.
    Number(f64),
    /// What isn't known.
    None,
}

/// A header and records, each line ended by CR LF.
pub fn table<const N: usize>(header: [&str; N], records: impl IntoIterator<Item = [Field; N]>) -> String {
    let mut out = String::new();
    line(&mut out, header.map(|name| Field::Text(name.into())));
    records.into_iter().for_each(|record| line(&mut out, record));
    out
}

fn line<const N: usize>(out: &mut String, fields: [Field; N]) {
    for (i, field) in fields.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match field {
            Field::Text(text) => out.push_str(&quoted(&text)),
            Field::Number(number) => out.push_str(&number.to_string()),
            Field::None => {}
        }
    }
    out.push_str("\r\n");
}

fn quoted(text: &str) -> String {
    let text = if text.starts_with(FORMULA) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field: Field, expected: &str) {
        assert_eq!(table(["name"], [[field]]), format!("name\r\n{expected}\r\n"));
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        check(Field::Text("/a".into()), "/a");
        check(Field::Text("a,b".into()), "\"a,b\"");
        check(Field::Text("say \"hi\"".into()), "\"say \"\"hi\"\"\"");
        check(Field::Text("two\nlines".into()), "\"two\nlines\"");
        check(Field::Number(12.5), "12.5");
        check(Field::Number(1e9), "1000000000");
        check(Field::None, "");
    }

    #[test]
    fn nothing_sent_becomes_a_formula() {
        check(Field::Text("=1+1".into()), "'=1+1");
        check(Field::Text("@x,y".into()), "\"'@x,y\"");
        check(Field::Number(-3.0), "-3");
    }
}
