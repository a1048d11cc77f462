//! What the dashboard knows, and what it does about what happens. It sees no clock and no browser: time comes in with each
//! event, and what is to be done goes out as effects.

use catchment_cells::live::{Message, Mirror};

use crate::backoff;
use crate::calendar;
use crate::change::{Change, change};
use crate::connection::Connection;
use crate::link::Link;
use crate::panel::{Panel, revenue, users};
use crate::range::Range;
use crate::subscriptions::{Answer, Question, Subscriptions};

/// The server's close codes: no valid read key; what was said isn't understood; too busy.
const CLOSED_KEY: u16 = 4401;
const CLOSED_PROTOCOL: u16 = 4400;
const CLOSED_BUSY: u16 = 1013;
/// Between two looks for currencies, at least: at first, and when none was new for long.
const MEASURES_MS: i64 = 5_000;
/// See [`MEASURES_MS`].
const MEASURES_MAX_MS: i64 = 80_000;
/// A connection that isn't made by then won't be.
const CONNECT_MS: i64 = 10_000;
/// One that lasted so long held: what failed before it is past.
const HELD_MS: i64 = 10_000;
/// Between two attempts while the browser says that there is no network, which isn't always so.
const OFFLINE_MS: i64 = 15_000;
/// Between two attempts at questions that were refused, such as of a server that was too busy.
const REFUSED_MS: i64 = 10_000;
const MINUTE_MS: i64 = 60_000;
/// The minutes that the period before may have begun earlier than it does now.
const BEFORE_OFF: i64 = 3;

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// A read key was given, by hand, by a link or by an earlier visit of this tab.
    SignIn(String),
    /// Enough seen.
    SignOut,
    /// The socket is open.
    Opened,
    /// The socket brought a message.
    Received(Vec<u8>),
    /// The socket is closed, with its code.
    Closed(u16),
    /// The browser has a network again, or lost it.
    Network(bool),
    /// Time passes.
    Tick,
    /// The page is hidden, or seen again.
    Hidden(bool),
    /// Another range, or another panel, is to be looked at.
    Look(Link),
    /// A question over HTTP has its answer, for somebody who had that key.
    Answered(String, Reply),
}

/// Values by metric.
pub type Figures = Vec<(String, f64)>;

/// An answer over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The figures of the period before, by metric, and the question they answer.
    Before(String, Figures),
    /// The names of measures.
    Measures(Vec<String>),
    /// None to the question about the period before.
    NoBefore(String),
    /// None to the question which measures there are.
    NoMeasures,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Open a socket; there is none.
    Connect,
    /// Close it, if there is one, and hear no more of it.
    Disconnect,
    /// Say something on it.
    Say(String),
    /// Show nothing any more of what was seen: it was for another key.
    Forget,
    /// Keep the key for this tab, or forget it.
    Keep(Option<String>),
    /// Ask for the figures of the period before.
    AskBefore(String),
    /// Ask which measures there are, in a range.
    AskMeasures(String),
    /// What is looked at belongs into the address.
    Address(String),
}

/// Nothing to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// In the range that is looked at.
    Here,
    /// For a month: nobody sends yet.
    Ever,
}

/// What the dashboard knows.
#[derive(Debug, Default)]
pub struct Model {
    /// The read key.
    key: Option<String>,
    /// Why there is none any more.
    refusal: Option<&'static str>,
    /// Whose figures are seen.
    client: Option<String>,
    link: Link,
    subscriptions: Subscriptions,
    connection: Connection,
    /// When the server last said something, by the browser's clock in ms.
    heard: i64,
    /// When the connection's state began.
    since: i64,
    /// Attempts that failed since a connection last held.
    failed: u32,
    /// The server says what this page doesn't understand, or the other way round.
    outdated: bool,
    /// Nobody looks.
    hidden: bool,
    /// What the server's clock is ahead of the browser's, in ms.
    ahead: i64,
    currencies: Vec<String>,
    before: Option<Before>,
    /// Of each minute, when this page asks for the period before, in ms: not all pages at once.
    offset: i64,
    measures: Measures,
    refused_at: i64,
}

/// The period before.
#[derive(Debug)]
struct Before {
    /// What was asked of it last.
    question: String,
    /// In which minute, of those that begin at the page's offset, and of how many currencies.
    asked: (i64, usize),
    /// The minute that it starts with.
    start: i64,
    /// What is known, and the minute that this starts with.
    known: Option<(i64, Figures)>,
}

/// The look for currencies.
#[derive(Debug, Default)]
struct Measures {
    /// When they were asked for last; never in this range, if not at all.
    at: Option<i64>,
    /// How many sales there were then; what is asked in vain is asked again.
    sales: Option<f64>,
    /// There was an answer.
    known: bool,
    /// So many times in a row nothing was new.
    vain: u32,
}

impl Measures {
    fn wait_ms(&self) -> i64 {
        (MEASURES_MS << self.vain.min(8)).min(MEASURES_MAX_MS)
    }
}

impl Model {
    /// What is to be done about an event. `now` is the browser's clock, in ms; `random` is drawn anew, from 0 to 1.
    pub fn on(&mut self, event: Event, now: i64, random: f64) -> Vec<Effect> {
        match event {
            Event::SignIn(key) => self.sign_in(key, now, random),
            Event::SignOut => self.sign_out(None),
            Event::Opened => match &self.key {
                Some(key) => {
                    // Told anew, where it is another one.
                    calendar::reset_clock();
                    // A key that would break out of the text isn't one.
                    vec![Effect::Say(format!("{{\"token\":\"{}\"}}", key.replace(['"', '\\'], "")))]
                }
                None => vec![Effect::Disconnect],
            },
            Event::Received(bytes) => match Message::decode(&bytes) {
                Ok(message) => self.received(message, now),
                Err(_) => {
                    self.outdated = true;
                    self.wait(now, random, backoff::LAST);
                    vec![Effect::Disconnect]
                }
            },
            Event::Closed(CLOSED_KEY) => {
                self.sign_out(Some("That read key isn't valid here. Check it, and try again."))
            }
            Event::Closed(code) => {
                self.outdated |= code == CLOSED_PROTOCOL;
                let steps = match code {
                    CLOSED_PROTOCOL => backoff::LAST,
                    CLOSED_BUSY => 3,
                    _ => 1,
                };
                self.wait(now, random, steps);
                Vec::new()
            }
            Event::Network(there) => self.network(there, now),
            Event::Hidden(hidden) => {
                self.hidden = hidden;
                self.tick(now, random)
            }
            Event::Tick => self.tick(now, random),
            Event::Look(link) => {
                let moved = std::mem::replace(&mut self.link, link).range != link.range;
                let mut effects = vec![Effect::Address(link.fragment())];
                if moved {
                    (self.before, self.measures) = (None, Measures::default());
                }
                effects.extend(self.ask(now));
                effects
            }
            Event::Answered(key, _) if self.key.as_ref() != Some(&key) => Vec::new(),
            Event::Answered(_, reply) => self.answered(reply, now),
        }
    }

    fn answered(&mut self, reply: Reply, now: i64) -> Vec<Effect> {
        match reply {
            Reply::Before(question, figures) => {
                if let Some(before) = self.before.as_mut().filter(|before| before.question == question) {
                    before.known = Some((before.start, figures));
                }
                Vec::new()
            }
            // Asked once more with the next minute, though the question may be the same.
            Reply::NoBefore(question) => {
                if let Some(before) = self.before.as_mut().filter(|before| before.question == question) {
                    before.question.clear();
                }
                Vec::new()
            }
            Reply::Measures(measures) => {
                // What was seen stays: the panel doesn't vanish when a range without revenue is looked at.
                let is_new = revenue::learn(&mut self.currencies, &measures);
                self.measures.vain = if is_new { 0 } else { self.measures.vain + 1 };
                self.measures.known = true;
                self.ask(now)
            }
            Reply::NoMeasures => {
                (self.measures.sales, self.measures.vain) = (None, self.measures.vain + 1);
                Vec::new()
            }
        }
    }

    fn sign_in(&mut self, key: String, now: i64, random: f64) -> Vec<Effect> {
        let key = key.trim();
        self.refusal = match key {
            "" => Some("Paste a read key: it begins with rk_."),
            key if key.starts_with("wk_") => {
                Some("That is a write key, which belongs into your page. A read key begins with rk_.")
            }
            key if !key.starts_with("rk_") => Some("That isn't a read key: one begins with rk_."),
            _ => None,
        };
        if self.refusal.is_some() {
            // A link's key is kept before anybody has looked at it.
            return vec![Effect::Keep(self.key.clone())];
        }
        *self = Model {
            key: Some(key.into()),
            link: self.link,
            hidden: self.hidden,
            connection: Connection::Connecting(0),
            since: now,
            offset: (random * MINUTE_MS as f64) as i64,
            ..Model::default()
        };
        vec![Effect::Disconnect, Effect::Forget, Effect::Connect]
    }

    fn sign_out(&mut self, refusal: Option<&'static str>) -> Vec<Effect> {
        *self = Model { refusal, link: self.link, hidden: self.hidden, ..Model::default() };
        vec![Effect::Disconnect, Effect::Forget, Effect::Keep(None)]
    }

    fn received(&mut self, message: Message, now: i64) -> Vec<Effect> {
        self.heard = now;
        match message {
            Message::Hello { now: server, client } => {
                (self.ahead, self.client) = (server - now, Some(client));
                (self.connection, self.since) = (Connection::Live, now);
                let mut effects = vec![Effect::Keep(self.key.clone())];
                effects.extend(self.subscriptions.resume().into_iter().map(Effect::Say));
                effects.extend(self.ask(now));
                effects
            }
            Message::Clock { time_zone, offsets } => {
                calendar::set_clock(time_zone, offsets);
                Vec::new()
            }
            Message::Alive { now: server } => {
                self.ahead = server - now;
                Vec::new()
            }
            message => {
                let mut effects: Vec<Effect> = self.subscriptions.take(message).into_iter().map(Effect::Say).collect();
                effects.extend(self.look_for_measures(now));
                effects
            }
        }
    }

    /// Waits before the next attempt: `steps` longer than before the last one.
    fn wait(&mut self, now: i64, random: f64, steps: u32) {
        if self.key.is_none() || self.connection == Connection::Offline {
            return;
        }
        self.failed = (self.failed + steps).min(backoff::LAST);
        let until = now + i64::from(backoff::wait_ms(self.failed - 1, random));
        (self.connection, self.since) = (Connection::Waiting { attempt: self.failed, until }, now);
    }

    fn network(&mut self, there: bool, now: i64) -> Vec<Effect> {
        if self.key.is_none() {
            return Vec::new();
        }
        self.since = now;
        if there {
            self.connection = Connection::Connecting(1);
            vec![Effect::Disconnect, Effect::Connect]
        } else {
            self.connection = Connection::Offline;
            vec![Effect::Disconnect]
        }
    }

    fn tick(&mut self, now: i64, random: f64) -> Vec<Effect> {
        match self.connection {
            Connection::Waiting { attempt, until } if now >= until => {
                (self.connection, self.since) = (Connection::Connecting(attempt), now);
                vec![Effect::Connect]
            }
            Connection::Connecting(_) if now - self.since >= CONNECT_MS => {
                self.wait(now, random, 1);
                vec![Effect::Disconnect]
            }
            Connection::Offline if now - self.since >= OFFLINE_MS => {
                self.since = now;
                vec![Effect::Disconnect, Effect::Connect]
            }
            connection if connection.is_silent(now, self.heard) => {
                self.wait(now, random, 1);
                vec![Effect::Disconnect]
            }
            Connection::Live => {
                if now - self.since >= HELD_MS {
                    (self.failed, self.outdated) = (0, false);
                }
                let mut effects = self.ask(now);
                effects.extend(self.look_for_measures(now));
                if now - self.refused_at >= REFUSED_MS {
                    self.refused_at = now;
                    effects.extend(self.subscriptions.retry().into_iter().map(Effect::Say));
                }
                effects
            }
            _ => Vec::new(),
        }
    }

    /// Subscribes to what is looked at, and asks for what isn't kept up to date; nothing that was asked already.
    fn ask(&mut self, now: i64) -> Vec<Effect> {
        let mut wanted: Vec<Question> = Vec::new();
        let sets = self.question(Panel::Active);
        for text in Panel::ALL.into_iter().filter_map(|panel| self.question(panel)) {
            let question = Question { sets: sets.as_ref() == Some(&text), text };
            if !wanted.contains(&question) {
                wanted.push(question);
            }
        }
        // Where nothing is seen, it makes a difference whether there ever was something.
        let month = Question { text: users::question(Range::Month), sets: false };
        if self.silence().is_some() && !wanted.contains(&month) {
            wanted.push(month);
        }
        let said = self.subscriptions.want(&wanted);
        if self.connection != Connection::Live {
            // All of it is said once there is a connection.
            return Vec::new();
        }
        let mut effects: Vec<Effect> = said.into_iter().map(Effect::Say).collect();
        if self.measures.at.is_none() {
            effects.push(self.ask_measures(now));
        }
        effects.extend(self.ask_before(now));
        effects
    }

    /// Asks for the period before, once a minute while somebody looks.
    fn ask_before(&mut self, now: i64) -> Option<Effect> {
        let span = self.link.range.before(self.minute(now)).filter(|_| !self.hidden)?;
        let metrics = users::METRICS.map(|metric| format!("metric={metric}")).join("&");
        let money: String =
            self.currencies.iter().map(|currency| format!("&metric={}", revenue::metric(currency))).collect();
        let question = format!("{metrics}{money}&{}", span.when());
        let asked = (self.minute(now - self.offset), self.currencies.len());
        if let Some(before) = &mut self.before {
            if before.question == question {
                before.asked = asked;
            }
            if before.asked == asked {
                return None;
            }
        }
        // Until the new figures are there, the old ones are right to a minute.
        let known = self.before.take().and_then(|before| before.known);
        self.before = Some(Before { question: question.clone(), asked, start: span.start, known });
        Some(Effect::AskBefore(question))
    }

    fn ask_measures(&mut self, now: i64) -> Effect {
        (self.measures.at, self.measures.sales) = (Some(now), Some(self.sales()));
        Effect::AskMeasures(self.link.range.when())
    }

    /// How many sales there were in the range.
    pub fn sales(&self) -> f64 {
        self.mirror(Panel::Users).map_or(0.0, |mirror| users::show(mirror).sales.value)
    }

    /// A currency that was never seen comes with a sale, which may be the last one for long: also what was too soon to ask is
    /// asked in the end.
    fn look_for_measures(&mut self, now: i64) -> Option<Effect> {
        let is_due = self.measures.at.is_none_or(|at| now - at >= self.measures.wait_ms());
        (is_due && !self.hidden && self.measures.sales != Some(self.sales())).then(|| self.ask_measures(now))
    }

    fn question(&self, panel: Panel) -> Option<String> {
        panel.question(self.link.range, self.link.open, &self.currencies)
    }

    /// What is known for a panel.
    pub fn answer(&self, panel: Panel) -> &Answer {
        match self.question(panel) {
            Some(question) => self.subscriptions.answer(&question),
            None => &Answer::Awaited,
        }
    }

    /// A panel's figures, if they are there.
    pub fn mirror(&self, panel: Panel) -> Option<&Mirror> {
        match self.answer(panel) {
            Answer::Known(_, mirror) if mirror.version() > 0 => Some(mirror),
            _ => None,
        }
    }

    /// Whether there is nothing to see, once that is known.
    pub fn silence(&self) -> Option<Silence> {
        let is_empty = |answer: &Answer| match answer {
            Answer::Known(_, mirror) if mirror.version() > 0 => Some(users::show(mirror).events.value == 0.0),
            _ => None,
        };
        match (is_empty(self.answer(Panel::Users))?, self.subscriptions.answer(&users::question(Range::Month))) {
            (false, _) => None,
            (true, month) if is_empty(month) == Some(true) => Some(Silence::Ever),
            (true, _) => Some(Silence::Here),
        }
    }

    /// How a metric of the whole range compares with the period before; a day that has just begun isn't compared with one that
    /// is over.
    pub fn change(&self, metric: &str, value: f64, now: i64) -> Option<Change> {
        let (start, figures) = self.before.as_ref()?.known.as_ref()?;
        let span = self.link.range.before(self.minute(now))?;
        if (span.start - start).abs() > BEFORE_OFF {
            return None;
        }
        let (_, before) = figures.iter().find(|(name, _)| name == metric)?;
        change(value, *before)
    }

    /// Whether somebody is signed in, or about to be.
    pub fn is_signed_in(&self) -> bool {
        self.key.is_some()
    }

    /// The read key, for questions over HTTP.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What is wrong with the key that was given.
    pub fn refusal(&self) -> Option<&'static str> {
        self.refusal
    }

    /// Whose figures are seen.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// What is looked at.
    pub fn link(&self) -> Link {
        self.link
    }

    /// The range that is looked at.
    pub fn range(&self) -> Range {
        self.link.range
    }

    /// The connection.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// How long ago the newest event came, in ms.
    pub fn newest(&self, now: i64) -> Option<i64> {
        self.subscriptions.as_of().map(|as_of| (now + self.ahead).saturating_sub(as_of))
    }

    /// Whether page and server don't understand each other.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Whether it is known which currencies there are.
    pub fn is_money_known(&self) -> bool {
        self.measures.known
    }

    /// The currencies that were seen.
    pub fn currencies(&self) -> &[String] {
        &self.currencies
    }

    /// The present minute, by the server's clock.
    pub fn minute(&self, now: i64) -> i64 {
        (now + self.ahead).div_euclid(MINUTE_MS)
    }
}

#[cfg(test)]
mod tests;
