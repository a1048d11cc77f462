use catchment_cells::key::Tier;
use catchment_cells::live::{Changed, RowKey, Update, View};
use catchment_cells::sum::Sum;
use catchment_cells::users::Users;

use super::*;
use crate::calendar::Date;

/// 2026-11-23T10:00:00Z.
const NOW: i64 = 29_923_800 * MINUTE_MS;

/// A dashboard, and its browser's clock.
struct Dashboard {
    model: Model,
    now: i64,
}

impl Dashboard {
    fn new() -> Dashboard {
        Dashboard { model: Model::default(), now: NOW }
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.model.on(event, self.now, 1.0)
    }

    fn hear(&mut self, message: Message) -> Vec<Effect> {
        self.on(Event::Received(message.encode()))
    }

    fn later(&mut self, ms: i64) -> Vec<Effect> {
        self.now += ms;
        self.on(Event::Tick)
    }

    fn signed_in() -> (Dashboard, Vec<Effect>) {
        Dashboard::signed_in_with(0.0)
    }

    /// With another number drawn.
    fn signed_in_with(random: f64) -> (Dashboard, Vec<Effect>) {
        let mut dashboard = Dashboard::new();
        let effects = dashboard.model.on(Event::SignIn(" rk_shop_1_x ".into()), NOW, random);
        assert_eq!(effects, [Effect::Disconnect, Effect::Forget, Effect::Connect]);
        assert_eq!(dashboard.on(Event::Opened), [Effect::Say(r#"{"token":"rk_shop_1_x"}"#.into())]);
        let effects = dashboard.hear(Message::Hello { now: NOW, client: "shop".into() });
        (dashboard, effects)
    }
}

fn answer(reply: Reply) -> Event {
    Event::Answered("rk_shop_1_x".into(), reply)
}

fn subscribed(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Say(text) if text.starts_with("{\"subscribe\""))).count()
}

fn before(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::AskBefore(question) => Some(question.as_str()),
        _ => None,
    })
}

#[test]
fn signing_in_asks_for_every_panel() {
    let (dashboard, effects) = Dashboard::signed_in();
    assert_eq!(effects[0], Effect::Keep(Some("rk_shop_1_x".into())));
    assert_eq!(subscribed(&effects), 10, "all but revenue, of which no currency is known");
    let sets = |effect: &&Effect| matches!(effect, Effect::Say(text) if text.contains("\"sets\":true"));
    assert_eq!(effects.iter().filter(sets).count(), 1, "only the active users are a union made here");
    assert!(effects.contains(&Effect::AskMeasures("last=1d".into())));
    let expected = "metric=users&metric=events&metric=page_views&metric=count:revenue&start=2026-11-22T00:00:00Z&end=2026-11-22T10:01:00Z";
    assert_eq!(before(&effects), Some(expected));
    assert_eq!((dashboard.model.client(), dashboard.model.connection()), (Some("shop"), Connection::Live));
}

#[test]
fn a_wrong_key_is_said_and_forgotten() {
    for key in ["", "wk_shop_a.1_x", "hello"] {
        let mut dashboard = Dashboard::new();
        assert_eq!(dashboard.on(Event::SignIn(key.into())), [Effect::Keep(None)]);
        assert!(dashboard.model.refusal().is_some() && !dashboard.model.is_signed_in());
    }
    let mut dashboard = Dashboard::new();
    dashboard.on(Event::SignIn("rk_shop_1_x".into()));
    assert_eq!(dashboard.on(Event::Closed(CLOSED_KEY)), [Effect::Disconnect, Effect::Forget, Effect::Keep(None)]);
    assert!(dashboard.model.refusal().is_some() && !dashboard.model.is_signed_in());
    assert_eq!(dashboard.later(60_000), [], "it isn't tried again");
}

#[test]
fn nothing_of_one_key_is_left_for_the_next() {
    let (mut dashboard, effects) = Dashboard::signed_in();
    dashboard.hear(totals(number(&effects, &users::question(Range::Today)).unwrap(), 3));
    dashboard.hear(events(3, 0, 7));
    assert!(dashboard.model.mirror(Panel::Users).is_some());
    let effects = dashboard.on(Event::SignIn("rk_other_1_y".into()));
    assert_eq!(effects, [Effect::Disconnect, Effect::Forget, Effect::Connect]);
    assert!(dashboard.model.mirror(Panel::Users).is_none() && dashboard.model.client().is_none());
    assert_eq!(dashboard.on(Event::SignOut), [Effect::Disconnect, Effect::Forget, Effect::Keep(None)]);
}

#[test]
fn a_lost_connection_comes_back_where_it_was() {
    let (mut dashboard, _) = Dashboard::signed_in();
    assert_eq!(dashboard.on(Event::Closed(1006)), []);
    assert_eq!(dashboard.model.connection().word(), "reconnecting");
    assert_eq!(dashboard.later(400), []);
    assert_eq!(dashboard.later(100), [Effect::Connect]);
    dashboard.on(Event::Closed(1006));
    assert_eq!(dashboard.later(500), [], "the second wait is longer");
    assert_eq!(dashboard.later(500), [Effect::Connect]);
    dashboard.on(Event::Opened);
    let effects = dashboard.hear(Message::Hello { now: dashboard.now, client: "shop".into() });
    assert_eq!(subscribed(&effects), 10);
    assert_eq!(dashboard.model.connection(), Connection::Live);
    dashboard.on(Event::Closed(1006));
    assert_eq!(dashboard.later(1_500), [], "one that broke at once didn't hold");
    assert_eq!(dashboard.later(500), [Effect::Connect]);
    dashboard.hear(Message::Hello { now: dashboard.now, client: "shop".into() });
    dashboard.later(HELD_MS / 2);
    dashboard.hear(Message::Alive { now: dashboard.now });
    dashboard.later(HELD_MS / 2);
    dashboard.on(Event::Closed(1006));
    assert_eq!(dashboard.later(500), [Effect::Connect], "waits are short again after it held");
}

#[test]
fn a_connection_that_is_not_made_is_given_up() {
    let (mut dashboard, _) = Dashboard::signed_in();
    dashboard.on(Event::Closed(1006));
    assert_eq!(dashboard.later(500), [Effect::Connect]);
    dashboard.on(Event::Opened);
    assert_eq!(dashboard.later(CONNECT_MS - 1), [], "no hello yet");
    assert_eq!(dashboard.later(1), [Effect::Disconnect]);
    assert_eq!(dashboard.later(1_000), [Effect::Connect]);
}

#[test]
fn a_silent_connection_is_given_up() {
    let (mut dashboard, _) = Dashboard::signed_in();
    dashboard.later(6_000);
    dashboard.hear(Message::Alive { now: dashboard.now });
    assert!(!dashboard.later(6_000).contains(&Effect::Disconnect));
    assert_eq!(dashboard.later(2_000), [Effect::Disconnect]);
    assert_eq!(dashboard.later(500), [Effect::Connect]);
}

#[test]
fn a_browser_that_says_offline_may_be_wrong() {
    let (mut dashboard, _) = Dashboard::signed_in();
    assert_eq!(dashboard.on(Event::Network(false)), [Effect::Disconnect]);
    assert_eq!(dashboard.on(Event::Closed(1006)), []);
    assert_eq!(dashboard.later(OFFLINE_MS - 1), []);
    assert_eq!(dashboard.later(1), [Effect::Disconnect, Effect::Connect]);
    assert_eq!(dashboard.model.connection(), Connection::Offline, "until somebody answers");
    assert_eq!(dashboard.later(1), []);
    dashboard.hear(Message::Hello { now: NOW, client: "shop".into() });
    assert_eq!(dashboard.model.connection(), Connection::Live);
    dashboard.on(Event::Network(false));
    assert_eq!(dashboard.on(Event::Network(true)), [Effect::Disconnect, Effect::Connect]);
}

#[test]
fn another_range_asks_only_for_what_differs() {
    let (mut dashboard, _) = Dashboard::signed_in();
    let effects = dashboard.on(Event::Look(Link { range: Range::HalfHour, open: None }));
    assert_eq!(effects[0], Effect::Address("#range=30m".into()));
    assert_eq!(subscribed(&effects), 8, "the minutes are there already");
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Say(_))).count(), 8 + 9);
    let effects = dashboard.on(Event::Look(Link { range: Range::HalfHour, open: Some(Panel::Pages) }));
    assert_eq!(subscribed(&effects), 1);
}

#[test]
fn the_period_before_moves_with_the_minutes() {
    let (mut dashboard, effects) = Dashboard::signed_in();
    let asked = before(&effects).unwrap().to_owned();
    assert_eq!(before(&dashboard.later(1_000)), None, "it was asked already");
    let figures = vec![("users".to_owned(), 50.0), ("events".to_owned(), 0.0)];
    dashboard.on(answer(Reply::Before(asked, figures)));
    let change = |dashboard: &Dashboard, metric| dashboard.model.change(metric, 100.0, dashboard.now);
    assert_eq!(change(&dashboard, "users").unwrap().text, "▲ 100%");
    assert_eq!(change(&dashboard, "events"), None);
    dashboard.hear(Message::Alive { now: dashboard.now + 59_000 });
    assert!(before(&dashboard.later(100)).unwrap().ends_with("end=2026-11-22T10:02:00Z"));
    assert!(change(&dashboard, "users").is_some(), "what was known stays until the new one is");
    dashboard.on(answer(Reply::Before("another".into(), Vec::new())));
    assert!(change(&dashboard, "users").is_some());
}

#[test]
fn not_all_pages_ask_for_the_period_before_at_once_and_none_that_is_hidden() {
    let (mut dashboard, effects) = Dashboard::signed_in_with(0.5);
    let asked = before(&effects).unwrap().to_owned();
    let mut alive = |ms: i64| {
        dashboard.now += ms;
        let now = dashboard.now;
        let mut effects = dashboard.hear(Message::Alive { now });
        effects.extend(dashboard.later(0));
        effects
    };
    assert_eq!(before(&alive(29_000)), None);
    assert_eq!(before(&alive(2_000)), None, "still what was asked");
    assert!(before(&alive(58_000)).is_none());
    assert!(before(&alive(2_000)).is_some_and(|question| *question != asked));
    dashboard.on(Event::Hidden(true));
    dashboard.now += 120_000;
    dashboard.hear(Message::Alive { now: dashboard.now });
    assert_eq!(before(&dashboard.later(0)), None);
    assert!(before(&dashboard.on(Event::Hidden(false))).is_some());
}

#[test]
fn a_question_about_the_period_before_that_failed_is_asked_again() {
    let (mut dashboard, effects) = Dashboard::signed_in();
    dashboard.on(Event::Look(Link { range: Range::Days(Date(20_000), Date(20_001)), open: None }));
    let asked = "metric=users&metric=events&metric=page_views&metric=count:revenue&start=2024-10-02T00:00:00Z&end=2024-10-04T00:00:00Z";
    dashboard.on(answer(Reply::NoBefore(asked.into())));
    assert_eq!(before(&dashboard.later(1_000)), None, "not at once");
    dashboard.hear(Message::Alive { now: dashboard.now + 60_000 });
    assert_eq!(before(&dashboard.later(1_000)), Some(asked));
    assert!(before(&effects).is_some());
}

#[test]
fn a_new_day_is_not_compared_with_one_that_is_over() {
    let (mut dashboard, effects) = Dashboard::signed_in();
    let asked = before(&effects).unwrap().to_owned();
    dashboard.on(answer(Reply::Before(asked, vec![("users".to_owned(), 50.0)])));
    let midnight = NOW + 14 * 60 * MINUTE_MS;
    assert!(dashboard.model.change("users", 1.0, midnight - 1).is_some());
    assert_eq!(dashboard.model.change("users", 1.0, midnight), None);
}

#[test]
fn a_reply_to_another_key_is_nobodys() {
    let (mut dashboard, _) = Dashboard::signed_in();
    let measures = || Reply::Measures(vec!["revenue_EUR".into()]);
    assert_eq!(dashboard.on(Event::Answered("rk_other_1_y".into(), measures())), []);
    assert!(dashboard.model.currencies().is_empty() && !dashboard.model.is_money_known());
    dashboard.on(answer(measures()));
    assert!(dashboard.model.is_money_known());
    assert_eq!(dashboard.model.currencies(), ["EUR"]);
}

/// The number under which a question was subscribed to.
fn number(effects: &[Effect], question: &str) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Say(text) if text.contains(&format!("\"{question}\"")) => {
            text.strip_prefix("{\"subscribe\":")?.split(',').next()?.parse().ok()
        }
        _ => None,
    })
}

/// The view of a range's totals, and an update of it.
fn totals(subscription: u64, view: u64) -> Message {
    let metrics = users::METRICS.map(str::to_owned).to_vec();
    Message::View(View { subscription, view, metrics, cube: "event_type".into(), tier: Tier::Day })
}

fn events(view: u64, from: u64, count: u64) -> Message {
    update(view, from, count, 0)
}

fn update(view: u64, from: u64, count: u64, sales: u64) -> Message {
    let sums = vec![Sum::Users(Users::default()), Sum::Count(count), Sum::Count(0), Sum::Count(sales)];
    let rows = vec![Changed { key: RowKey { bucket: 0, group: None }, whole: true, sums }];
    Message::Update(Update { view, from, to: from + 1, start: 0, end: 1, as_of: None, gone: Vec::new(), rows })
}

#[test]
fn silence_is_told_from_a_quiet_day() {
    let (mut dashboard, effects) = Dashboard::signed_in();
    assert_eq!(dashboard.model.silence(), None, "not known yet");
    dashboard.hear(totals(number(&effects, &users::question(Range::Today)).unwrap(), 3));
    dashboard.hear(events(3, 0, 0));
    assert_eq!(dashboard.model.silence(), Some(Silence::Here));
    let effects = dashboard.later(250);
    dashboard.hear(totals(number(&effects, &users::question(Range::Month)).unwrap(), 4));
    dashboard.hear(events(4, 0, 0));
    assert_eq!(dashboard.model.silence(), Some(Silence::Ever));
    dashboard.hear(events(4, 1, 9));
    assert_eq!(dashboard.model.silence(), Some(Silence::Here));
    dashboard.hear(events(3, 1, 1));
    assert_eq!(dashboard.model.silence(), None);
    assert!(
        dashboard.later(250).iter().any(|effect| matches!(effect, Effect::Say(text) if text.contains("unsubscribe")))
    );
}

#[test]
fn a_new_currency_is_found_with_the_sale_that_brings_it() {
    let (mut dashboard, effects) = Dashboard::signed_in();
    dashboard.hear(totals(number(&effects, &users::question(Range::Today)).unwrap(), 3));
    let ask = Effect::AskMeasures("last=1d".into());
    dashboard.on(answer(Reply::Measures(Vec::new())));
    assert_eq!(dashboard.hear(events(3, 0, 1)), []);
    let asks = |dashboard: &mut Dashboard, ms: i64| {
        dashboard.now += ms;
        dashboard.hear(Message::Alive { now: NOW });
        dashboard.later(0).contains(&ask)
    };
    assert!(!asks(&mut dashboard, 2 * MEASURES_MS), "nothing was sold");
    assert_eq!(dashboard.hear(update(3, 1, 2, 1)), std::slice::from_ref(&ask));
    dashboard.on(answer(Reply::NoMeasures));
    assert!(!asks(&mut dashboard, MEASURES_MS), "not at once");
    assert!(asks(&mut dashboard, 3 * MEASURES_MS), "but again, though nothing came after it");
    let effects = dashboard.on(answer(Reply::Measures(vec!["revenue_EUR".into()])));
    assert_eq!(subscribed(&effects), 1);
    assert!(before(&effects).unwrap().contains("&metric=sum:revenue_EUR&"));
    assert!(!asks(&mut dashboard, MEASURES_MAX_MS), "no sale since");
}

#[test]
fn sales_that_bring_nothing_new_are_looked_at_ever_more_seldom() {
    let (mut dashboard, effects) = Dashboard::signed_in();
    dashboard.hear(totals(number(&effects, &users::question(Range::Today)).unwrap(), 3));
    let mut asked = 0;
    for second in 0..600 {
        dashboard.now += 1_000;
        let mut effects = dashboard.hear(update(3, second, second, second));
        effects.extend(dashboard.later(0));
        if effects.iter().any(|effect| matches!(effect, Effect::AskMeasures(_))) {
            asked += 1;
            dashboard.on(answer(Reply::Measures(vec!["revenue_EUR".into()])));
        }
    }
    assert!((5..=13).contains(&asked), "{asked} times in ten minutes");
}

#[test]
fn a_server_that_is_not_understood_is_tried_again_in_a_while() {
    let (mut dashboard, _) = Dashboard::signed_in();
    assert_eq!(dashboard.on(Event::Received(vec![99])), [Effect::Disconnect]);
    assert!(dashboard.model.is_outdated());
    assert_eq!(dashboard.later(14_900), []);
    assert_eq!(dashboard.later(100), [Effect::Connect]);
    dashboard.on(Event::Closed(CLOSED_PROTOCOL));
    assert_eq!(dashboard.later(14_900), []);
}
