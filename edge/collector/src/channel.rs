//! How a visitor came: by which channel, and from which source.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a source is: its channel and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) channel: &'static str,
    pub(crate) name: &'static str,
}

/// What an event says of where its visitor comes from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origin<'a> {
    pub(crate) referrer: Option<&'a str>,
    pub(crate) utm_source: Option<&'a str>,
    pub(crate) utm_medium: Option<&'a str>,
    /// The name of a parameter that [`is_click`].
    pub(crate) click: Option<&'a str>,
    /// Whether the visitor has come from elsewhere, by link or not.
    pub(crate) entry: bool,
}

/// The source of those who come by themselves.
const DIRECT: Source = Source { channel: "direct", name: "(direct)" };
/// The channel of a link that says its source, of which nothing more is known.
const CAMPAIGN: &str = "campaign";

/// The parameters by which those who sold a click know it again, and who they are. What a network adds to any link of its own is not paid for.
const CLICKS: &[(&str, &str, bool)] = &[
    ("gclid", "google", true),
    ("gbraid", "google", true),
    ("wbraid", "google", true),
    ("msclkid", "bing", true),
    ("yclid", "yandex", true),
    ("ttclid", "tiktok", true),
    ("twclid", "twitter", true),
    ("li_fat_id", "linkedin", true),
    ("rdt_cid", "reddit", true),
    ("fbclid", "facebook", false),
    ("igshid", "instagram", false),
];

/// What a medium means that has such a part: in order, since `paid_social` is paid.
const MEDIA: &[(&str, &str)] = &[
    ("paid", "paid"),
    ("cpc", "paid"),
    ("ppc", "paid"),
    ("cpm", "paid"),
    ("cpv", "paid"),
    ("cpa", "paid"),
    ("display", "paid"),
    ("banner", "paid"),
    ("retargeting", "paid"),
    ("mail", "email"),
    ("newsletter", "email"),
    ("social", "social"),
    ("organic", "search"),
    ("referral", "referral"),
    ("affiliate", "referral"),
];

/// Hosts, and names of sources in lower case.
struct Known {
    hosts: HashMap<&'static str, Source>,
    names: HashMap<String, Source>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut known = Known { hosts: HashMap::new(), names: HashMap::new() };
    for line in include_str!("../data/referrers.tsv").lines() {
        let mut fields = line.split('\t');
        let (Some(channel), Some(name), Some(hosts)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let source = Source { channel, name };
        known.hosts.extend(hosts.split(' ').map(|host| (host, source)));
        // A company that has a search engine is known for that.
        let name = name.to_lowercase();
        if known.names.get(&name).is_none_or(|other| other.channel != "search") {
            known.names.insert(name, source);
        }
    }
    known
});

/// Whether a parameter of an address tells who sold the click.
pub(crate) fn is_click(parameter: &str) -> bool {
    CLICKS.iter().any(|(name, ..)| *name == parameter)
}

impl<'a> Origin<'a> {
    /// The channel, and the source if it is known; `None` for an event that is no entry.
    pub(crate) fn told(self) -> Option<(&'static str, Option<&'a str>)> {
        let click = self.click.and_then(|click| CLICKS.iter().find(|(name, ..)| *name == click));
        let tagged = self.utm_source.or(click.map(|(_, source, _)| *source));
        let source = tagged.or(self.referrer);
        let known = source.and_then(Source::of);
        let of_medium = self.utm_medium.and_then(channel_of_medium);
        let channel = match (of_medium, click, known, source) {
            (Some(channel), ..) => channel,
            (_, Some((_, _, true)), ..) => "paid",
            (_, _, Some(known), _) => known.channel,
            (.., Some(_)) => {
                if tagged.is_some() {
                    CAMPAIGN
                } else {
                    "referral"
                }
            }
            (.., None) if self.utm_medium.is_some() => CAMPAIGN,
            (.., None) if self.entry => return Some((DIRECT.channel, Some(DIRECT.name))),
            (.., None) => return None,
        };
        Some((channel, known.map(|known| known.name).or(source)))
    }
}

fn channel_of_medium(medium: &str) -> Option<&'static str> {
    let medium = medium.to_ascii_lowercase();
    MEDIA.iter().find(|(part, _)| medium.contains(part)).map(|(_, channel)| *channel)
}

impl Source {
    /// The source of a host, or of such a name.
    fn of(text: &str) -> Option<Source> {
        let text = text.strip_prefix("www.").unwrap_or(text).to_ascii_lowercase();
        let exact = KNOWN.hosts.get(&*text).or_else(|| KNOWN.names.get(&text)).or_else(|| of_any_country(&text));
        exact.copied().or_else(|| {
            // Other hosts of the same site: of a search engine's they are other things.
            let parents = text.match_indices('.').map(|(at, _)| &text[at + 1..]);
            parents.filter_map(|parent| KNOWN.hosts.get(parent)).find(|source| source.channel != "search").copied()
        })
    }
}

/// `google.*` for `google.com.tr`.
fn of_any_country(host: &str) -> Option<&'static Source> {
    let label = host.strip_suffix(|c: char| c.is_ascii_lowercase()).and(host.rfind('.'))?;
    let name = &host[..label];
    let name = name.strip_suffix(".com").or(name.strip_suffix(".co")).unwrap_or(name);
    KNOWN.hosts.get(&*format!("{name}.*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(
        referrer: &'static str,
        utm: [&'static str; 2],
        click: &'static str,
        entry: bool,
    ) -> Option<(&'static str, &'static str)> {
        let some = |text: &'static str| (!text.is_empty()).then_some(text);
        let [utm_source, utm_medium] = utm.map(some);
        Origin { referrer: some(referrer), utm_source, utm_medium, click: some(click), entry }
            .told()
            .map(|(channel, source)| (channel, source.unwrap_or_default()))
    }

    #[test]
    fn a_referrer_is_the_source_that_it_belongs_to() {
        for (referrer, channel, source) in [
            ("google.com", "search", "Google"),
            ("www.google.de", "search", "Google"),
            ("google.co.uk", "search", "Google"),
            ("google.com.tr", "search", "Google"),
            ("images.google.fr", "search", "Google Images"),
            ("bing.com", "search", "Bing"),
            ("duckduckgo.com", "search", "DuckDuckGo"),
            ("search.brave.com", "search", "Brave Search"),
            ("ecosia.org", "search", "Ecosia"),
            ("kagi.com", "search", "Kagi"),
            ("mail.google.com", "email", "Gmail"),
            ("com.google.android.gm", "email", "Gmail"),
            ("docs.google.com", "referral", "docs.google.com"),
            ("gemini.google.com", "ai", "Gemini"),
            ("chatgpt.com", "ai", "ChatGPT"),
            ("perplexity.ai", "ai", "Perplexity"),
            ("claude.ai", "ai", "Claude"),
            ("copilot.microsoft.com", "ai", "Copilot"),
            ("t.co", "social", "Twitter"),
            ("x.com", "social", "Twitter"),
            ("l.facebook.com", "social", "Facebook"),
            ("m.facebook.com", "social", "Facebook"),
            ("old.reddit.com", "social", "Reddit"),
            ("news.ycombinator.com", "social", "Hacker News"),
            ("lnkd.in", "social", "LinkedIn"),
            ("bsky.app", "social", "Bluesky"),
            ("blog.example", "referral", "blog.example"),
            ("google.evil.example", "referral", "google.evil.example"),
            ("notgoogle.com", "referral", "notgoogle.com"),
            ("google.", "referral", "google."),
            (".", "referral", "."),
        ] {
            assert_eq!(told(referrer, ["", ""], "", true), Some((channel, source)), "{referrer}");
        }
    }

    #[test]
    fn a_campaign_says_more_than_a_referrer() {
        for (referrer, utm, click, entry, expected) in [
            ("", ["", ""], "", false, None),
            ("", ["", ""], "", true, Some(("direct", "(direct)"))),
            ("google.com", ["", ""], "gclid", true, Some(("paid", "Google"))),
            ("", ["", ""], "msclkid", true, Some(("paid", "Bing"))),
            ("", ["", ""], "fbclid", true, Some(("social", "Facebook"))),
            ("", ["Google", "cpc"], "", true, Some(("paid", "Google"))),
            ("google.com", ["spring", "Email"], "", true, Some(("email", "spring"))),
            ("", ["facebook", "paid_social"], "", true, Some(("paid", "Facebook"))),
            ("", ["chatgpt.com", ""], "", true, Some(("ai", "ChatGPT"))),
            ("blog.example", ["partner", ""], "", true, Some(("campaign", "partner"))),
            ("", ["", "newsletter"], "", true, Some(("email", ""))),
            ("", ["", "flyer"], "", true, Some(("campaign", ""))),
        ] {
            assert_eq!(told(referrer, utm, click, entry), expected, "{referrer} {utm:?} {click}");
        }
    }

    #[test]
    fn each_host_of_the_table_has_one_source() {
        let table = include_str!("../data/referrers.tsv");
        let hosts: Vec<&str> = table.lines().flat_map(|line| line.split('\t').nth(2).unwrap().split(' ')).collect();
        assert_eq!(KNOWN.hosts.len(), hosts.len());
        let channels = ["ai", "email", "paid", "referral", "search", "social"];
        assert!(table.lines().all(|line| channels.contains(&line.split('\t').next().unwrap())));
    }
}
