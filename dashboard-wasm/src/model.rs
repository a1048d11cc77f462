//! What the dashboard knows, and what it does about what happens. It sees no clock and no browser: time comes in with each
//! event, and what is to be done goes out as effects.

use catchment_cells::live::{Message, Mirror};

use crate::backoff;
use crate::change::{Change, change};
use crate::connection::Connection;
use crate::link::Link;
use crate::panel::{Panel, revenue, users};
use crate::range::Range;
use crate::subscriptions::{Answer, Subscriptions};

/// The server's close codes: no valid read key; too busy.
const CLOSED_KEY: u16 = 4401;
const CLOSED_BUSY: u16 = 1013;
/// Between two looks for currencies, at least.
const MEASURES_MS: i64 = 5_000;
/// Between two attempts at questions that were refused, such as of a server that was too busy.
const REFUSED_MS: i64 = 10_000;
const MINUTE_MS: i64 = 60_000;

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
    /// Another range, or another panel, is to be looked at.
    Look(Link),
    /// A question over HTTP has its answer.
    Answered(Reply),
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
    /// Nobody said which measures there are.
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
    /// What the server's clock is ahead of the browser's, in ms.
    ahead: i64,
    currencies: Vec<String>,
    /// The question about the period before that was asked, and what is known of it.
    before: Option<(String, Option<Figures>)>,
    /// When these were asked for last.
    measures_at: i64,
    refused_at: i64,
    /// How many events had come then.
    measures_events: f64,
}

impl Model {
    /// What is to be done about an event. `now` is the browser's clock, in ms; `random` is drawn anew, from 0 to 1.
    pub fn on(&mut self, event: Event, now: i64, random: f64) -> Vec<Effect> {
        match event {
            Event::SignIn(key) => self.sign_in(key),
            Event::SignOut => self.sign_out(None),
            Event::Opened => match &self.key {
                // A key that would break out of the text isn't one.
                Some(key) => vec![Effect::Say(format!("{{\"token\":\"{}\"}}", key.replace(['"', '\\'], "")))],
                None => vec![Effect::Disconnect],
            },
            Event::Received(bytes) => match Message::decode(&bytes) {
                Ok(message) => self.received(message, now),
                Err(_) => {
                    // A server of another version, say, which may be replaced in a while.
                    self.wait(now, random, true);
                    vec![Effect::Disconnect]
                }
            },
            Event::Closed(CLOSED_KEY) => {
                self.sign_out(Some("That read key isn't valid here. Check it, and try again."))
            }
            Event::Closed(code) => {
                self.wait(now, random, code == CLOSED_BUSY);
                Vec::new()
            }
            Event::Network(there) => self.network(there),
            Event::Tick => self.tick(now, random),
            Event::Look(link) => {
                let moved = std::mem::replace(&mut self.link, link).range != link.range;
                let mut effects = vec![Effect::Address(link.fragment())];
                if moved {
                    self.before = None;
                    self.measures_at = 0;
                }
                effects.extend(self.ask(now));
                effects
            }
            Event::Answered(Reply::Before(question, figures)) => {
                if let Some((asked, known)) = &mut self.before
                    && *asked == question
                {
                    *known = Some(figures);
                }
                Vec::new()
            }
            Event::Answered(Reply::Measures(measures)) => {
                // What was seen stays: the panel doesn't vanish when a range without revenue is looked at.
                for currency in revenue::currencies(&measures) {
                    if !self.currencies.contains(&currency) {
                        self.currencies.push(currency);
                    }
                }
                self.ask(now)
            }
            Event::Answered(Reply::NoMeasures) => {
                self.measures_events = f64::NAN;
                Vec::new()
            }
        }
    }

    fn sign_in(&mut self, key: String) -> Vec<Effect> {
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
            return Vec::new();
        }
        *self =
            Model { key: Some(key.into()), link: self.link, connection: Connection::Connecting(0), ..Model::default() };
        vec![Effect::Disconnect, Effect::Forget, Effect::Connect]
    }

    fn sign_out(&mut self, refusal: Option<&'static str>) -> Vec<Effect> {
        *self = Model { refusal, link: self.link, ..Model::default() };
        vec![Effect::Disconnect, Effect::Forget, Effect::Keep(None)]
    }

    fn received(&mut self, message: Message, now: i64) -> Vec<Effect> {
        self.heard = now;
        match message {
            Message::Hello { now: server, client } => {
                (self.ahead, self.client, self.connection) = (server - now, Some(client), Connection::Live);
                let mut effects = vec![Effect::Keep(self.key.clone())];
                effects.extend(self.subscriptions.resume().into_iter().map(Effect::Say));
                effects.extend(self.ask(now));
                effects
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

    fn wait(&mut self, now: i64, random: f64, busy: bool) {
        if self.key.is_none() || self.connection == Connection::Offline {
            return;
        }
        let failed = match self.connection {
            Connection::Connecting(failed) | Connection::Waiting { attempt: failed, .. } => failed,
            _ => 0,
        };
        let attempt = failed + 1 + if busy { 2 } else { 0 };
        self.connection =
            Connection::Waiting { attempt, until: now + i64::from(backoff::wait_ms(attempt - 1, random)) };
    }

    fn network(&mut self, there: bool) -> Vec<Effect> {
        match (self.key.is_some(), there) {
            (false, _) => Vec::new(),
            (true, true) => {
                self.connection = Connection::Connecting(1);
                vec![Effect::Disconnect, Effect::Connect]
            }
            (true, false) => {
                self.connection = Connection::Offline;
                vec![Effect::Disconnect]
            }
        }
    }

    fn tick(&mut self, now: i64, random: f64) -> Vec<Effect> {
        match self.connection {
            Connection::Waiting { attempt, until } if now >= until => {
                self.connection = Connection::Connecting(attempt);
                vec![Effect::Connect]
            }
            connection if connection.is_silent(now, self.heard) => {
                self.wait(now, random, false);
                vec![Effect::Disconnect]
            }
            Connection::Live => {
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
        let mut wanted: Vec<String> = Vec::new();
        for question in Panel::ALL.into_iter().filter_map(|panel| self.question(panel)) {
            if !wanted.contains(&question) {
                wanted.push(question);
            }
        }
        // Where nothing is seen, it makes a difference whether there ever was something.
        let month = users::question(Range::Month);
        if self.silence().is_some() && !wanted.contains(&month) {
            wanted.push(month);
        }
        let said = self.subscriptions.want(&wanted);
        if self.connection != Connection::Live {
            // All of it is said once there is a connection.
            return Vec::new();
        }
        let mut effects: Vec<Effect> = said.into_iter().map(Effect::Say).collect();
        if self.measures_at == 0 {
            self.measures_at = now;
            effects.push(Effect::AskMeasures(self.link.range.when()));
        }
        let before = self.link.range.before(self.minute(now)).map(|span| {
            let money: String =
                self.currencies.iter().map(|currency| format!("&metric={}", revenue::metric(currency))).collect();
            let metrics = users::METRICS.map(|metric| format!("metric={metric}")).join("&");
            format!("{metrics}{money}&{}", span.when())
        });
        if let Some(question) = before
            && self.before.as_ref().is_none_or(|(asked, _)| *asked != question)
        {
            // Until the new figures are there, the old ones are right to a minute.
            let known = self.before.take().and_then(|(_, known)| known);
            self.before = Some((question.clone(), known));
            effects.push(Effect::AskBefore(question));
        }
        effects
    }

    /// A currency that was never seen comes with an event, which may be the last one for long: also what was too soon to ask is
    /// asked in the end.
    fn look_for_measures(&mut self, now: i64) -> Option<Effect> {
        let events = self.mirror(Panel::Users).map_or(0.0, |mirror| users::show(mirror).events.value);
        if events == self.measures_events || now - self.measures_at < MEASURES_MS {
            return None;
        }
        (self.measures_events, self.measures_at) = (events, now);
        Some(Effect::AskMeasures(self.link.range.when()))
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

    /// How a metric of the whole range compares with the period before.
    pub fn change(&self, metric: &str, value: f64) -> Option<Change> {
        let (_, figures) = self.before.as_ref()?;
        let before = figures.as_ref()?.iter().find(|(name, _)| name == metric)?;
        change(value, before.1)
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

    /// When the server last said something, by the browser's clock in ms.
    pub fn heard(&self) -> i64 {
        self.heard
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
