//! What whole addresses tell: of a page its path and how its visitor came, of a referrer its host.

use std::borrow::Cow;

use catchment_cells::limits::VALUE_BYTES_MAX;

use super::{Field, Fields};
use crate::channel::is_click;

/// An address with a host.
struct Url<'a> {
    /// All before the query.
    before: &'a str,
    /// Whether it is a site's, whose pages are paths. An app's tells its screens apart as it likes, and often by the host.
    is_site: bool,
    host: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Url<'a> {
    /// Reads `scheme://authority/path?query#fragment`.
    fn read(text: &'a str) -> Option<Self> {
        let (scheme, _) = text.split_once("://")?;
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return None;
        }
        let is_site = ["http", "https"].iter().any(|site| scheme.eq_ignore_ascii_case(site));
        let text = text.split('#').next().unwrap_or_default();
        let (before, query) = text.split_once('?').unwrap_or((text, ""));
        let rest = before.get(scheme.len() + "://".len()..).unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        Some(Url { before, is_site, host: host.strip_prefix("www.").unwrap_or(host), path, query })
    }
}

impl<'a> Fields<'a> {
    /// Takes addresses apart: a page is a site's path, or an app's address, without the query, which may name whoever has it; a referrer is
    /// another site's host. What the event says by itself stays. Lenient fields with more than can be taken are absent.
    pub(super) fn take_apart(&mut self) {
        let page = self.texts[Field::Page as usize].take_if(|page| Url::read(page).is_some());
        let address = page.or_else(|| self.texts[Field::Url as usize].take());
        if let Some(address) = &address
            && let Some(url) = Url::read(address)
        {
            let page = match url.path {
                _ if !url.is_site => url.before,
                "" => "/",
                path => path,
            };
            self.put_missing(Field::Page, page);
            for (name, value) in form_urlencoded::parse(url.query.as_bytes()) {
                match &*name {
                    "utm_source" => self.put_missing(Field::UtmSource, &value),
                    "utm_medium" => self.put_missing(Field::UtmMedium, &value),
                    "utm_campaign" => self.put_missing(Field::UtmCampaign, &value),
                    click if is_click(click) => self.put_missing(Field::Click, click),
                    _ => {}
                }
            }
        }
        let own = address.as_deref().and_then(Url::read);
        if let Some(referrer) = &mut self.texts[Field::Referrer as usize]
            && let Some(url) = Url::read(referrer)
        {
            let within = own.is_some_and(|own| own.host.eq_ignore_ascii_case(url.host));
            let host = Some(url.host.to_ascii_lowercase()).filter(|host| !host.is_empty() && !within);
            self.texts[Field::Referrer as usize] = host.map(Cow::Owned);
        }
        for text in &mut self.texts[Field::Browser as usize..] {
            text.take_if(|text| text.len() > VALUE_BYTES_MAX);
        }
    }

    /// Sets a text that the event doesn't have, if it fits.
    fn put_missing(&mut self, field: Field, text: &str) {
        let fits = !text.is_empty() && (text.len() <= VALUE_BYTES_MAX || field == Field::Page);
        if fits && self.texts[field as usize].is_none() && self.wrong & field.bit() == 0 {
            self.texts[field as usize] = Some(Cow::Owned(text.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    fn read(fields: &str) -> Event<'_> {
        Event::read(fields, None).unwrap()
    }

    #[test]
    fn a_whole_address_is_a_page_and_says_how_its_visitor_came() {
        let base = r#""event_id":"a","event_type":"t","timestamp":1700000000000"#;
        let long = format!("https://shop.example/long?{}", "q".repeat(4_000));
        for (fields, expected) in [
            (r#""page":"/a?utm_source=x""#.to_owned(), [Some("/a?utm_source=x"), None, None, None, None, None]),
            (
                r#""page":"https://shop.example/a%20b?token=secret&utm_source=News+letter&utm_medium=email&utm_campaign=s%C3%BCd#top""#.into(),
                [Some("/a%20b"), Some("News letter"), Some("email"), Some("süd"), None, None],
            ),
            (
                r#""url":"http://www.shop.example?gclid=1&utm_source=","utm_source":"own","referrer":"https://shop.example/b""#.into(),
                [Some("/"), Some("own"), None, None, Some("gclid"), None],
            ),
            (
                r#""url":"https://shop.example/a","page":"home","referrer":"https://WWW.google.com:443/search?q=x""#.into(),
                [Some("home"), None, None, None, None, Some("www.google.com")],
            ),
            (
                r#""referrer":"android-app://com.google.android.gm/""#.into(),
                [None, None, None, None, None, Some("com.google.android.gm")],
            ),
            (r#""referrer":"news.example""#.into(), [None, None, None, None, None, Some("news.example")]),
            (r#""url":"not an address","utm_medium":[1]"#.into(), [None; 6]),
            (format!(r#""url":"{long}","browser":"{long}""#), [Some("/long"), None, None, None, None, None]),
            (
                r#""page":"myapp://a/b?token=secret&utm_source=x#top","referrer":"MyApp://a""#.into(),
                [Some("myapp://a/b"), Some("x"), None, None, None, None],
            ),
            (r#""url":"myapp://a""#.into(), [Some("myapp://a"), None, None, None, None, None]),
            (r#""page":"HTTPS://shop.example/a""#.into(), [Some("/a"), None, None, None, None, None]),
            (r#""page":"://x""#.into(), [Some("://x"), None, None, None, None, None]),
        ] {
            let json = format!("{{{base},{fields}}}");
            let event = read(&json);
            let of = [Field::Page, Field::UtmSource, Field::UtmMedium, Field::UtmCampaign, Field::Click, Field::Referrer];
            assert_eq!(of.map(|field| event.text(field)), expected, "{fields}");
            assert_eq!((event.text(Field::Url), event.text(Field::Browser)), (None, None), "{fields}");
        }
    }

    #[test]
    fn what_rejected_nothing_rejects_nothing() {
        let long = "x".repeat(1_000);
        for value in ["[]", "{\"a\":1}", "null", "7", "true", "\"\"", &format!("{long:?}")] {
            for name in
                ["url", "user_agent", "browser", "os", "bot", "utm_medium", "click", "entry", "channel", "source"]
            {
                read(&format!(r#"{{"event_id":"a","event_type":"t","timestamp":1,"{name}":{value}}}"#));
                let json =
                    format!(r#"{{"event_id":"a","event_type":"t","timestamp":1,"properties":{{"{name}":{value}}}}}"#);
                assert_eq!(read(&json).measures().len(), usize::from(value == "7"), "{json}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_address_leaves_its_query_behind(
            host in "[a-zé.:@-]{0,12}",
            path in "(/[a-z%é]{0,4}){0,3}",
            query in "[a-z&=%+#?é]{0,40}",
            referrer in "[a-z:/?#@.é]{0,30}",
        ) {
            let event = serde_json::json!({
                "event_id": "a", "event_type": "t", "timestamp": 1, "referrer": referrer,
                "page": format!("https://{host}{path}?{query}"),
            })
            .to_string();
            let event = Event::read(&event, None).unwrap();
            prop_assert_eq!(event.text(Field::Page), Some(if path.is_empty() { "/" } else { &path }));
        }
    }
}
