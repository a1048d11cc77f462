use catchment_cells::key::Tier;
use catchment_cells::live::{Changed, RowKey, Update, View};
use catchment_cells::sum::Sum;
use catchment_cells::users::Users;

use super::*;

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
        let mut dashboard = Dashboard::new();
        let effects = dashboard.on(Event::SignIn(" rk_shop_1_x ".into()));
        assert_eq!(effects, [Effect::Disconnect, Effect::Forget, Effect::Connect]);
        assert_eq!(dashboard.on(Event::Opened), [Effect::Say(r#"{"token":"rk_shop_1_x"}"#.into())]);
        let effects = dashboard.hear(Message::Hello { now: NOW, client: "shop".into() });
        (dashboard, effects)
    }
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
    assert_eq!(subscribed(&effects), 9, "all but revenue, of which no currency is known");
    assert!(effects.contains(&Effect::AskMeasures("last=1d".into())));
    let expected = "metric=users&metric=events&metric=page_views&start=2026-11-22T00:00:00Z&end=2026-11-22T10:01:00Z";
    assert_eq!(before(&effects), Some(expected));
    assert_eq!((dashboard.model.client(), dashboard.model.connection()), (Some("shop"), Connection::Live));
}

#[test]
fn a_wrong_key_is_said_and_forgotten() {
    for key in ["", "wk_shop_a.1_x", "hello"] {
        let mut dashboard = Dashboard::new();
        assert_eq!(dashboard.on(Event::SignIn(key.into())), []);
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
    assert_eq!(subscribed(&effects), 9);
    assert_eq!(dashboard.model.connection(), Connection::Live);
    dashboard.on(Event::Closed(1006));
    assert_eq!(dashboard.later(500), [Effect::Connect], "waits are short again after it held");
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
fn without_a_network_nothing_is_tried() {
    let (mut dashboard, _) = Dashboard::signed_in();
    assert_eq!(dashboard.on(Event::Network(false)), [Effect::Disconnect]);
    assert_eq!(dashboard.on(Event::Closed(1006)), []);
    assert_eq!(dashboard.later(100_000), []);
    assert_eq!(dashboard.on(Event::Network(true)), [Effect::Disconnect, Effect::Connect]);
}

#[test]
fn another_range_asks_only_for_what_differs() {
    let (mut dashboard, _) = Dashboard::signed_in();
    let effects = dashboard.on(Event::Look(Link { range: Range::HalfHour, open: None }));
    assert_eq!(effects[0], Effect::Address("#range=30m".into()));
    assert_eq!(subscribed(&effects), 7, "the minutes are there already");
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Say(_))).count(), 7 + 8);
    let effects = dashboard.on(Event::Look(Link { range: Range::HalfHour, open: Some(Panel::Pages) }));
    assert_eq!(subscribed(&effects), 1);
}

#[test]
fn the_period_before_moves_with_the_minutes() {
    let (mut dashboard, _) = Dashboard::signed_in();
    let question = before(&dashboard.later(1_000)).map(str::to_owned);
    assert_eq!(question, None, "it was asked already");
    let asked = "metric=users&metric=events&metric=page_views&start=2026-11-22T00:00:00Z&end=2026-11-22T10:01:00Z";
    let figures = vec![("users".to_owned(), 50.0), ("events".to_owned(), 0.0)];
    dashboard.on(Event::Answered(Reply::Before(asked.into(), figures)));
    assert_eq!(dashboard.model.change("users", 100.0).unwrap().text, "▲ 100%");
    assert_eq!(dashboard.model.change("events", 100.0), None);
    dashboard.hear(Message::Alive { now: dashboard.now + 59_000 });
    assert!(before(&dashboard.later(100)).unwrap().ends_with("end=2026-11-22T10:02:00Z"));
    assert!(dashboard.model.change("users", 100.0).is_some(), "what was known stays until the new one is");
    dashboard.on(Event::Answered(Reply::Before("another".into(), Vec::new())));
    assert!(dashboard.model.change("users", 100.0).is_some());
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
    let sums = vec![Sum::Users(Users::default()), Sum::Count(count), Sum::Count(0)];
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
fn a_new_currency_is_found_with_the_events_that_bring_it() {
    let (mut dashboard, effects) = Dashboard::signed_in();
    dashboard.hear(totals(number(&effects, &users::question(Range::Today)).unwrap(), 3));
    let ask = Effect::AskMeasures("last=1d".into());
    assert_eq!(dashboard.hear(events(3, 0, 1)), [], "just asked");
    let asks = |dashboard: &mut Dashboard| {
        dashboard.hear(Message::Alive { now: NOW });
        dashboard.later(MEASURES_MS).contains(&ask)
    };
    assert!(asks(&mut dashboard), "though nothing came after it");
    assert!(!asks(&mut dashboard), "nothing is new");
    dashboard.on(Event::Answered(Reply::NoMeasures));
    assert!(asks(&mut dashboard));
    dashboard.now += MEASURES_MS;
    assert_eq!(dashboard.hear(events(3, 1, 2)), [ask]);
    let effects = dashboard.on(Event::Answered(Reply::Measures(vec!["revenue_EUR".into()])));
    assert_eq!(subscribed(&effects), 1);
    assert!(before(&effects).unwrap().contains("&metric=sum:revenue_EUR&"));
}

#[test]
fn a_server_that_is_not_understood_is_tried_again_in_a_while() {
    let (mut dashboard, _) = Dashboard::signed_in();
    assert_eq!(dashboard.on(Event::Received(vec![99])), [Effect::Disconnect]);
    assert_eq!(dashboard.later(1_900), []);
    assert_eq!(dashboard.later(100), [Effect::Connect]);
}
