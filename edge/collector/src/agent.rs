//! What a `User-Agent` tells: families only, for versions would make too many values.

use std::borrow::Cow;
use std::sync::LazyLock;

use catchment_cells::codec::{DecodeError, Reader, put_str};

use crate::limits::AGENT_NAME_BYTES_MAX;

/// A class of devices. The numbers are stored: final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Device {
    /// A browser on neither of the others.
    Desktop = 1,
    /// A telephone.
    Mobile = 2,
    /// A tablet.
    Tablet = 3,
}

/// The name of a family. Those of stored requests may be of other times than the tables here.
type Name = Cow<'static, str>;

/// What an agent is, as far as it tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agent {
    /// The class of the device.
    pub device: Option<Device>,
    /// The browser, such as `Firefox`.
    pub browser: Option<Name>,
    /// The operating system, such as `Windows`.
    pub os: Option<Name>,
    /// The bot that it is: a crawler, a monitor, or a browser that says that nobody looks at it. A program that fetches by a library of
    /// HTTP is none: so do the servers that send events of people.
    pub bot: Option<Name>,
}

/// The headers by which browsers say what their agent no longer does (Sec-CH-UA, W3C User-Agent Client Hints).
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// `Sec-CH-UA`: the brands.
    pub brands: &'a str,
    /// `Sec-CH-UA-Platform`: the operating system, quoted.
    pub platform: &'a str,
}

/// Of what is in an agent, the first decides: browsers name those that they are to be taken for as well.
const BROWSERS: &[(&str, &str)] = &[
    ("Electron/", "Electron"),
    ("FBAN/", "Facebook"),
    ("FBAV/", "Facebook"),
    ("FB_IAB", "Facebook"),
    ("Instagram ", "Instagram"),
    ("musical_ly", "TikTok"),
    ("BytedanceWebview", "TikTok"),
    ("TikTok", "TikTok"),
    ("Snapchat", "Snapchat"),
    ("[Pinterest/", "Pinterest"),
    ("[LinkedInApp]", "LinkedIn"),
    (" Line/", "Line"),
    ("MicroMessenger/", "WeChat"),
    ("GSA/", "Google app"),
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("Edge/", "Edge"),
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("OPiOS/", "Opera"),
    ("OPX/", "Opera"),
    ("Opera", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("YaBrowser/", "Yandex Browser"),
    ("YaSearchBrowser/", "Yandex Browser"),
    ("Vivaldi/", "Vivaldi"),
    ("Brave/", "Brave"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("Ddg/", "DuckDuckGo"),
    ("UCBrowser/", "UC Browser"),
    ("UBrowser/", "UC Browser"),
    ("MiuiBrowser/", "Mi Browser"),
    ("HuaweiBrowser/", "Huawei Browser"),
    ("HeyTapBrowser/", "HeyTap Browser"),
    ("VivoBrowser/", "Vivo Browser"),
    ("QQBrowser/", "QQ Browser"),
    ("Whale/", "Whale"),
    ("coc_coc_browser/", "Coc Coc"),
    ("Silk/", "Silk"),
    ("Avast/", "Avast"),
    ("AVG/", "AVG"),
    ("Focus/", "Firefox"),
    ("Klar/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("SeaMonkey/", "SeaMonkey"),
    ("PaleMoon/", "Pale Moon"),
    ("Firefox/", "Firefox"),
    ("MSIE ", "Internet Explorer"),
    ("Trident/", "Internet Explorer"),
    ("CriOS/", "Chrome"),
    ("; wv)", "Android WebView"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Version/", "Safari"),
    ("Mobile/", "iOS WebView"),
];

/// As above.
const SYSTEMS: &[(&str, &str)] = &[
    ("Windows Phone", "Windows Phone"),
    ("Xbox", "Xbox"),
    ("Windows", "Windows"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("iPod", "iOS"),
    ("OpenHarmony", "HarmonyOS"),
    ("HarmonyOS", "HarmonyOS"),
    ("KAIOS/", "KaiOS"),
    ("Tizen", "Tizen"),
    ("Web0S", "webOS"),
    ("webOS", "webOS"),
    ("PlayStation", "PlayStation"),
    ("PLAYSTATION", "PlayStation"),
    ("Nintendo", "Nintendo"),
    ("Android", "Android"),
    ("Macintosh", "macOS"),
    ("CrOS", "Chrome OS"),
    ("FreeBSD", "FreeBSD"),
    ("OpenBSD", "OpenBSD"),
    ("Linux", "Linux"),
    ("X11", "Linux"),
];

/// What `Sec-CH-UA-Platform` may say.
const PLATFORMS: &[(&str, &str)] = &[
    ("Android", "Android"),
    ("Chrome OS", "Chrome OS"),
    ("Chromium OS", "Chrome OS"),
    ("iOS", "iOS"),
    ("Linux", "Linux"),
    ("macOS", "macOS"),
    ("Windows", "Windows"),
];

/// What a bot is called that says so, and that nobody knows.
pub(crate) const OTHER_BOT: &str = "other";

impl Agent {
    /// What an agent, and the hints beside it, tell.
    pub fn of(agent: &str, hints: Hints<'_>) -> Self {
        let (mut known_by, mut bot, mut browser, mut system) = (0, None, usize::MAX, usize::MAX);
        for text in TEXTS.within(agent.as_bytes()) {
            match text.says {
                Says::Bot(name) if text.bytes.len() > known_by => (known_by, bot) = (text.bytes.len(), Some(name)),
                Says::Bot(_) => {}
                Says::Browser(rank) => browser = browser.min(rank),
                Says::System(rank) => system = system.min(rank),
            }
        }
        let headless = hints.brands.contains("\"HeadlessChrome\"").then_some("HeadlessChrome");
        let bot = bot.or(headless).or_else(|| says_bot(agent).then_some(OTHER_BOT));
        let mut found = Agent { bot: bot.map(Cow::Borrowed), ..Agent::default() };
        if !is_browser(agent) {
            return found;
        }
        found.device = agent.starts_with("Mozilla/").then(|| Device::of(agent));
        let name = |names: &[(&str, &'static str)], rank: usize| names.get(rank).map(|(_, name)| Cow::Borrowed(*name));
        found.browser = name(BROWSERS, browser);
        found.os = name(SYSTEMS, system);
        // Before Chrome was on Android.
        if found.os.as_deref() == Some("Android") && found.browser.as_deref() == Some("Safari") {
            found.browser = Some("Android Browser".into());
        }
        if found.browser.as_deref() == Some("Chrome") && hints.brands.contains("\"Brave\"") {
            found.browser = Some("Brave".into());
        }
        if found.os.is_none() {
            let said = hints.platform.trim_matches('"');
            found.os = PLATFORMS.iter().find(|(known, _)| *known == said).map(|(_, name)| Cow::Borrowed(*name));
        }
        found
    }

    /// The same of who sent a request. What is no browser, and has no `Origin` as a page's requests have, is a server, whatever it calls itself:
    /// a bot of a chat sends what people did there.
    pub fn of_sender(agent: &str, hints: Hints<'_>, has_origin: bool) -> Self {
        let found = Agent::of(agent, hints);
        if has_origin || is_browser(agent) { found } else { Agent { bot: None, ..found } }
    }

    /// Writes `u8 device`, and where names are, too, `str browser ‖ str os ‖ str bot`, empty where there is none.
    pub(crate) fn encode(&self, with_names: bool, out: &mut Vec<u8>) {
        out.push(self.device.map_or(0, |device| device as u8));
        if with_names {
            self.names().for_each(|name| put_str(out, name));
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, with_names: bool) -> Result<Self, DecodeError> {
        let device = match reader.u8()? {
            0 => None,
            number => Some(Device::numbered(number).ok_or(DecodeError::Malformed("device"))?),
        };
        let mut agent = Agent { device, ..Agent::default() };
        if with_names {
            for name in [&mut agent.browser, &mut agent.os, &mut agent.bot] {
                *name = named(reader.str(AGENT_NAME_BYTES_MAX)?);
            }
        }
        Ok(agent)
    }

    /// Its names: of browser, system and bot; empty where there is none.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [&self.browser, &self.os, &self.bot].into_iter().map(|name| name.as_deref().unwrap_or_default())
    }
}

/// A name that is not empty, as it was kept.
pub(crate) fn named(text: &str) -> Option<Name> {
    (!text.is_empty()).then(|| Cow::Owned(text.to_owned()))
}

impl Device {
    /// The class of a browser's agent.
    fn of(agent: &str) -> Self {
        if agent.contains("iPad") || agent.contains("Tablet") {
            Device::Tablet
        } else if agent.contains("Mobi") {
            Device::Mobile
        } else if agent.contains("Android") {
            Device::Tablet
        } else {
            Device::Desktop
        }
    }

    /// The class that is stored as a number.
    pub(crate) fn numbered(number: u8) -> Option<Self> {
        [Device::Desktop, Device::Mobile, Device::Tablet].into_iter().find(|device| *device as u8 == number)
    }

    /// The dimension's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Device::Desktop => "desktop",
            Device::Mobile => "mobile",
            Device::Tablet => "tablet",
        }
    }
}

/// Whether an agent begins as those of browsers do, and of apps that show pages.
fn is_browser(agent: &str) -> bool {
    ["Mozilla/", "Opera/", "Dalvik/"].iter().any(|begin| agent.starts_with(begin))
}

/// Whether a word ends in `bot`, `crawler` or `spider`; Cubot makes phones.
fn says_bot(agent: &str) -> bool {
    agent.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| {
        let ends = |with: &str| {
            word.len() >= with.len() && word.as_bytes()[word.len() - with.len()..].eq_ignore_ascii_case(with.as_bytes())
        };
        ["bot", "crawler", "spider"].into_iter().any(ends) && !ends("cubot")
    })
}

/// Texts that tell something where an agent has them, by the hash of their first two bytes.
#[derive(Debug)]
struct Texts {
    texts: Vec<Text>,
    /// Where those of each hash begin, and in the end where the last one's end.
    begins: Vec<u16>,
}

#[derive(Debug)]
struct Text {
    bytes: &'static [u8],
    /// Only at the agent's begin, or its end.
    at_begin: bool,
    at_end: bool,
    says: Says,
}

/// What a text says of the agent it is in.
#[derive(Debug, Clone, Copy)]
enum Says {
    /// The bot; the longest text is right.
    Bot(&'static str),
    /// The rank in `BROWSERS`, the least of which is right.
    Browser(usize),
    /// The rank in `SYSTEMS`.
    System(usize),
}

static TEXTS: LazyLock<Texts> = LazyLock::new(|| {
    let said =
        |(text, _): &(&'static str, _), says| Text { bytes: text.as_bytes(), at_begin: false, at_end: false, says };
    let browsers = BROWSERS.iter().zip(0..).map(|(row, rank)| said(row, Says::Browser(rank)));
    let systems = SYSTEMS.iter().zip(0..).map(|(row, rank)| said(row, Says::System(rank)));
    let bots = include_str!("../data/bots.tsv").lines().flat_map(texts_of_bot);
    Texts::of(bots.chain(browsers).chain(systems).collect())
});

/// The texts of a line.
fn texts_of_bot(line: &'static str) -> impl Iterator<Item = Text> {
    let bare = |text: &'static str| text.trim_matches(['^', '$']);
    let name = line.split('\t').next().map(bare).unwrap_or_default();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ')');
    line.split('\t').map(move |text| Text {
        bytes: bare(text).as_bytes(),
        at_begin: text.starts_with('^'),
        at_end: text.ends_with('$'),
        says: Says::Bot(name),
    })
}

impl Texts {
    const HASHES: usize = 4_096;

    /// Those of two bytes at the least.
    fn of(mut texts: Vec<Text>) -> Self {
        let hash_of = |text: &Text| Self::hash(text.bytes[0], text.bytes[1]);
        texts.retain(|text| text.bytes.len() > 1);
        texts.sort_by_key(hash_of);
        let begins = (0..=Self::HASHES).map(|hash| texts.partition_point(|text| hash_of(text) < hash) as u16).collect();
        Texts { texts, begins }
    }

    fn hash(one: u8, next: u8) -> usize {
        (usize::from(one) * 31 + usize::from(next)) % Self::HASHES
    }

    /// Those that an agent has.
    fn within<'a>(&'a self, agent: &'a [u8]) -> impl Iterator<Item = &'a Text> {
        agent.windows(2).enumerate().flat_map(move |(at, pair)| {
            let hash = Self::hash(pair[0], pair[1]);
            let texts = usize::from(self.begins[hash])..usize::from(self.begins[hash + 1]);
            self.texts[texts].iter().filter(move |text| text.is_at(agent, at))
        })
    }
}

impl Text {
    fn is_at(&self, agent: &[u8], at: usize) -> bool {
        agent[at..].starts_with(self.bytes)
            && (!self.at_begin || at == 0)
            && (!self.at_end || at + self.bytes.len() == agent.len())
    }
}

#[cfg(test)]
mod tests;
