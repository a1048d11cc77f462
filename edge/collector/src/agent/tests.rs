use proptest::prelude::*;

use super::*;

const NONE: &str = "";

fn of(agent: &str) -> Agent {
    Agent::of(agent, Hints::default())
}

#[test]
fn agents_of_today_are_known() {
    let desktop = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)";
    let mac = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)";
    let phone = "Mozilla/5.0 (Linux; Android 10; K)";
    let iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)";
    let webkit = "AppleWebKit/537.36 (KHTML, like Gecko)";
    for (agent, expected) in [
        (format!("{desktop} {webkit} Chrome/141.0.0.0 Safari/537.36"), ["desktop", "Chrome", "Windows", NONE]),
        (format!("{mac} {webkit} Chrome/141.0.0.0 Safari/537.36"), ["desktop", "Chrome", "macOS", NONE]),
        (format!("{phone} {webkit} Chrome/141.0.0.0 Mobile Safari/537.36"), ["mobile", "Chrome", "Android", NONE]),
        (format!("{phone} {webkit} Chrome/141.0.0.0 Safari/537.36"), ["tablet", "Chrome", "Android", NONE]),
        (format!("{iphone} CriOS/141.0.7390.41 Mobile/15E148 Safari/604.1"), ["mobile", "Chrome", "iOS", NONE]),
        (format!("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {webkit} Chrome/141.0.0.0 Safari/537.36"), ["desktop", "Chrome", "Chrome OS", NONE]),
        (format!("Mozilla/5.0 (X11; Linux x86_64) {webkit} Chrome/141.0.0.0 Safari/537.36"), ["desktop", "Chrome", "Linux", NONE]),
        (format!("{desktop} {webkit} Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0"), ["desktop", "Edge", "Windows", NONE]),
        (format!("{phone} {webkit} Chrome/141.0.0.0 Mobile Safari/537.36 EdgA/141.0.0.0"), ["mobile", "Edge", "Android", NONE]),
        (format!("{iphone} Version/18.0 EdgiOS/141.0.3537.60 Mobile/15E148 Safari/605.1.15"), ["mobile", "Edge", "iOS", NONE]),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0".into(), ["desktop", "Firefox", "Windows", NONE]),
        ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0".into(), ["desktop", "Firefox", "Linux", NONE]),
        ("Mozilla/5.0 (Android 15; Mobile; rv:143.0) Gecko/143.0 Firefox/143.0".into(), ["mobile", "Firefox", "Android", NONE]),
        ("Mozilla/5.0 (Android 15; Tablet; rv:143.0) Gecko/143.0 Firefox/143.0".into(), ["tablet", "Firefox", "Android", NONE]),
        (format!("{iphone} FxiOS/143.0 Mobile/15E148 Safari/605.1.15"), ["mobile", "Firefox", "iOS", NONE]),
        (format!("{mac} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15"), ["desktop", "Safari", "macOS", NONE]),
        (format!("{iphone} Version/26.0 Mobile/15E148 Safari/604.1"), ["mobile", "Safari", "iOS", NONE]),
        ("Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1".into(), ["tablet", "Safari", "iOS", NONE]),
        (format!("{iphone} Mobile/15E148"), ["mobile", "iOS WebView", "iOS", NONE]),
        (format!("{iphone} GSA/390.0.8 Mobile/15E148 Safari/604.1"), ["mobile", "Google app", "iOS", NONE]),
        (format!("{iphone} Mobile/22A3354 [FBAN/FBIOS;FBAV/485.0.0.35;FBBV/650000]"), ["mobile", "Facebook", "iOS", NONE]),
        (format!("{iphone} Mobile/22A3354 Instagram 350.0.0.20.95 (iPhone14,5; iOS 18_0)"), ["mobile", "Instagram", "iOS", NONE]),
        (format!("{phone} {webkit} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36"), ["mobile", "Samsung Internet", "Android", NONE]),
        (format!("Mozilla/5.0 (Linux; Android 14; SM-S918B; wv) {webkit} Version/4.0 Chrome/141.0.7390.44 Mobile Safari/537.36"), ["mobile", "Android WebView", "Android", NONE]),
        ("Mozilla/5.0 (Linux; U; Android 4.0.3; de-ch; HTC) AppleWebKit/534.30 (KHTML, like Gecko) Version/4.0 Mobile Safari/534.30".into(), ["mobile", "Android Browser", "Android", NONE]),
        (format!("{desktop} {webkit} Chrome/140.0.0.0 Safari/537.36 OPR/124.0.0.0"), ["desktop", "Opera", "Windows", NONE]),
        ("Opera/9.80 (Android; Opera Mini/36.2/119.132; U; id) Presto/2.12.423 Version/12.16".into(), [NONE, "Opera", "Android", NONE]),
        (format!("{desktop} {webkit} Chrome/140.0.0.0 YaBrowser/25.8.0.0 Safari/537.36"), ["desktop", "Yandex Browser", "Windows", NONE]),
        (format!("{phone} {webkit} Chrome/140.0.0.0 Mobile DuckDuckGo/5 Safari/537.36"), ["mobile", "DuckDuckGo", "Android", NONE]),
        (format!("Mozilla/5.0 (Linux; Android 9; KFMAWI) {webkit} Silk/130.1 like Chrome/130.0.0.0 Safari/537.36"), ["tablet", "Silk", "Android", NONE]),
        (format!("Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) {webkit} Chrome/141.0.0.0 Mobile Safari/537.36"), ["mobile", "Chrome", "Android", NONE]),
        ("Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko".into(), ["desktop", "Internet Explorer", "Windows", NONE]),
        (format!("Mozilla/5.0 (SMART-TV; LINUX; Tizen 7.0) {webkit} SamsungBrowser/5.0 Chrome/94.0.4606.31 TV Safari/537.36"), ["desktop", "Samsung Internet", "Tizen", NONE]),
        (format!("{mac} {webkit} Code/1.99.0 Chrome/132.0.0.0 Electron/34.0 Safari/537.36"), ["desktop", "Electron", "macOS", "Code/1"]),
        // Bots, of which many say that they are browsers.
        (format!("Mozilla/5.0 {webkit}; compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/141.0.0.0 Safari/537.36"), ["desktop", "Chrome", NONE, "Googlebot"]),
        ("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)".into(), ["desktop", NONE, NONE, "bingbot"]),
        (format!("Mozilla/5.0 {webkit}; compatible; GPTBot/1.2; +https://openai.com/gptbot)"), ["desktop", NONE, NONE, "GPTBot"]),
        (format!("Mozilla/5.0 {webkit}; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)"), ["desktop", NONE, NONE, "ClaudeBot"]),
        (format!("Mozilla/5.0 {webkit}; compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)"), ["desktop", NONE, NONE, "PerplexityBot"]),
        (format!("{mac} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15 (Applebot/0.1; +http://www.apple.com/go/applebot)"), ["desktop", "Safari", "macOS", "Applebot"]),
        ("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)".into(), [NONE, NONE, NONE, "facebookexternalhit"]),
        (format!("Mozilla/5.0 (X11; Linux x86_64) {webkit} HeadlessChrome/141.0.0.0 Safari/537.36"), ["desktop", "Chrome", "Linux", "HeadlessChrome"]),
        ("Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)".into(), ["desktop", NONE, NONE, "UptimeRobot"]),
        ("Mozilla/5.0 (compatible; Nobody-Knows-Bot/0.1)".into(), ["desktop", NONE, NONE, "other"]),
        // Programs, by which servers send events of people, too.
        ("curl/8.16.0".into(), [NONE; 4]),
        ("Wget/1.25.0".into(), [NONE; 4]),
        ("python-requests/2.32.5".into(), [NONE; 4]),
        ("Go-http-client/2.0".into(), [NONE; 4]),
        ("axios/1.12.2".into(), [NONE; 4]),
        ("node".into(), [NONE; 4]),
        ("okhttp/5.1.0".into(), [NONE; 4]),
        ("Stripe/1.0 (+https://stripe.com/docs/webhooks)".into(), [NONE; 4]),
        ("Dalvik/2.1.0 (Linux; U; Android 13; Pixel 7)".into(), [NONE, NONE, "Android", NONE]),
        (String::new(), [NONE; 4]),
        ("é".into(), [NONE; 4]),
    ] {
        let known = of(&agent);
        let [browser, os, bot] = [&known.browser, &known.os, &known.bot].map(|name| name.as_deref().unwrap_or_default());
        assert_eq!([known.device.map_or("", Device::as_str), browser, os, bot], expected, "{agent}");
    }
}

#[test]
fn hints_say_what_an_agent_does_not() {
    let chrome =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
    for (agent, brands, platform, expected) in [
        (
            chrome,
            r#""Brave";v="141", "Not?A_Brand";v="8", "Chromium";v="141""#,
            "\"Linux\"",
            [Some("Brave"), Some("Linux"), None],
        ),
        (
            chrome,
            r#""HeadlessChrome";v="141", "Chromium";v="141""#,
            "",
            [Some("Chrome"), Some("Linux"), Some("HeadlessChrome")],
        ),
        ("Mozilla/5.0 Firefox/143.0", "", "\"Chromium OS\"", [Some("Firefox"), Some("Chrome OS"), None]),
        ("Mozilla/5.0 Firefox/143.0", "", "\"What anyone likes\"", [Some("Firefox"), None, None]),
    ] {
        let known = Agent::of(agent, Hints { brands, platform });
        assert_eq!([&known.browser, &known.os, &known.bot].map(Option::as_deref), expected, "{brands} {platform}");
    }
}

#[test]
fn a_server_is_no_bot_whatever_it_is_called() {
    let discord = "DiscordBot (https://github.com/discord/discord.js, 14.22.1)";
    let adsbot = "AdsBot-Google (+http://www.google.com/adsbot.html)";
    let crawler = "Mozilla/5.0 (compatible; Nobody-Knows-Bot/0.1)";
    for (agent, has_origin, is_bot) in
        [(discord, false, false), ("MyShop-bot/1.0", false, false), (adsbot, true, true), (crawler, false, true)]
    {
        assert!(of(agent).bot.is_some(), "{agent} as an event's own");
        assert_eq!(Agent::of_sender(agent, Hints::default(), has_origin).bot.is_some(), is_bot, "{agent}");
    }
}

#[test]
fn each_bot_is_known_by_its_texts_under_a_name_that_a_header_takes() {
    let mut lines = 0;
    for line in include_str!("../../data/bots.tsv").lines() {
        lines += 1;
        for text in line.split('\t') {
            let bare = text.trim_matches(['^', '$']);
            let bot = of(bare).bot.unwrap_or_else(|| panic!("{text:?} is no bot"));
            assert!(bot.len() <= AGENT_NAME_BYTES_MAX && !bot.is_empty(), "{bot:?}");
            assert!(bot.bytes().all(|byte| (b' '..0x7f).contains(&byte) && byte != b'|'), "{bot:?}");
        }
    }
    assert!(lines > 1_000);
}

proptest! {
    #[test]
    fn any_agent_is_kept_as_it_is_told(
        agent in "(Mozilla/5.0|Opera/|)( ?(Windows|iPad|Chrome/1|Goog|lebot/|bot|SSL Labs|é|\\PC)){0,9}",
        brands in any::<String>(),
        platform in any::<String>(),
    ) {
        let known = Agent::of(&agent, Hints { brands: &brands, platform: &platform });
        let mut bytes = Vec::new();
        known.encode(true, &mut bytes);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(Agent::decode(&mut reader, true), Ok(known));
        prop_assert!(reader.finish().is_ok());
    }
}
