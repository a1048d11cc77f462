//! What an event's fields count as: what it says by itself goes before what the headers of its request tell, and what data know of both.

use std::collections::BTreeMap;

use crate::agent::{Agent, Device, Hints, OTHER_BOT};
use crate::channel::Origin;
use crate::event::{Event, Field};
use crate::request::{Request, Visitor};

/// The agents that events of one request bring along: each is looked at once.
#[derive(Debug, Default)]
pub(crate) struct Agents(BTreeMap<String, Agent>);

/// An event with all that is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enriched<'a> {
    event: &'a Event<'a>,
    /// Who sent it, where that is whose event it is.
    visitor: Option<&'a Visitor>,
    agent: Option<&'a Agent>,
    channel: Option<&'static str>,
    source: Option<&'a str>,
}

impl Agents {
    fn of(&mut self, agent: &str) -> &Agent {
        if !self.0.contains_key(agent) {
            self.0.insert(agent.to_owned(), Agent::of(agent, Hints::default()));
        }
        &self.0[agent]
    }
}

impl<'a> Enriched<'a> {
    /// An event that brings its agent along was sent by a server, as one of a backfill was: headers tell nothing of whose it is.
    pub(crate) fn of(event: &'a Event<'a>, request: &'a Request, agents: &'a mut Agents) -> Self {
        let own = event.text(Field::UserAgent);
        let visitor = (!request.claims.backfill && own.is_none()).then_some(&request.visitor);
        let agent = match own {
            Some(own) => Some(agents.of(own)),
            None => visitor.map(|visitor| &visitor.agent),
        };
        let origin = Origin {
            referrer: event.text(Field::Referrer),
            utm_source: event.text(Field::UtmSource),
            utm_medium: event.text(Field::UtmMedium),
            click: event.text(Field::Click),
            entry: event.text(Field::Entry) == Some("true"),
        };
        let (channel, source) = origin.told().unzip();
        Enriched { event, visitor, agent, channel, source: source.flatten() }
    }

    /// What a field counts as.
    pub(crate) fn value(&self, field: Field) -> Option<&'a str> {
        let agent = self.agent;
        let own = self.event.text(field);
        match field {
            Field::Bot => match own {
                Some("false") => None,
                Some("true") => agent.and_then(|agent| agent.bot.as_deref()).or(Some(OTHER_BOT)),
                Some(name) => Some(name),
                None => agent?.bot.as_deref(),
            },
            _ if own.is_some() => own,
            Field::Country => self.visitor?.country.as_ref().and_then(|code| str::from_utf8(code).ok()),
            Field::Device => agent?.device.map(Device::as_str),
            Field::Browser => agent?.browser.as_deref(),
            Field::Os => agent?.os.as_deref(),
            Field::Channel => self.channel,
            Field::Source => self.source,
            _ => None,
        }
    }
}
