//! The questions that are kept up to date over one connection. The page says which it wants; the difference is sent.

use catchment_cells::live::{Message, Mirror, Update, View};

/// A question that is kept up to date, or about to be.
#[derive(Debug)]
struct Subscription {
    number: u64,
    question: Question,
    answer: Answer,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// As the metrics API has it.
    pub text: String,
    /// Whether users travel as sets, which can be united here, and not as the small estimates of them.
    pub sets: bool,
}

/// What a question's answer is.
#[derive(Debug)]
pub enum Answer {
    /// On its way.
    Awaited,
    /// Here, and kept up to date: the number of its view, and what is known of it.
    Known(u64, Box<Mirror>),
    /// None, and why: a status as HTTP has them.
    Refused(u16, String),
}

/// From here on, a status says that it is the server's fault, which may pass.
const PASSING: u16 = 500;
/// The status of what isn't understood here.
const NOT_UNDERSTOOD: u16 = 400;

/// All subscriptions of a connection, and of the next one after it.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// Never given twice, so that what comes late for one that is gone isn't taken for another's.
    last: u64,
    list: Vec<Subscription>,
}

impl Subscriptions {
    /// Makes the wanted questions those that are subscribed to: what to say for that, while connected.
    pub fn want(&mut self, questions: &[Question]) -> Vec<String> {
        let mut said = Vec::new();
        self.list.retain(|subscription| {
            let kept = questions.contains(&subscription.question);
            if !kept {
                said.push(format!("{{\"unsubscribe\":{}}}", subscription.number));
            }
            kept
        });
        for question in questions {
            if !self.list.iter().any(|subscription| subscription.question == *question) {
                let number = self.number();
                let subscription = Subscription { number, question: question.clone(), answer: Answer::Awaited };
                said.push(subscription.subscribe());
                self.list.push(subscription);
            }
        }
        said
    }

    /// What to say on a new connection, so that each answer goes on from where it is.
    pub fn resume(&self) -> Vec<String> {
        self.list.iter().map(Subscription::subscribe).collect()
    }

    /// Asks once more what was refused for something that passes; a question that is wrong stays so.
    pub fn retry(&mut self) -> Vec<String> {
        let Subscriptions { last, list } = self;
        let refused =
            list.iter_mut().filter(|subscription| matches!(subscription.answer, Answer::Refused(PASSING.., _)));
        refused.map(|subscription| subscription.again(last)).collect()
    }

    /// Takes in what the server says of views: what to say in return.
    pub fn take(&mut self, message: Message) -> Vec<String> {
        match message {
            Message::View(view) => return self.view(&view),
            Message::Update(update) => return self.update(&update),
            Message::Refused { subscription, status, detail } => {
                if let Some(subscription) = self.numbered(subscription) {
                    subscription.answer = Answer::Refused(status, detail);
                }
            }
            Message::Hello { .. } | Message::Clock { .. } | Message::Alive { .. } => {}
        }
        Vec::new()
    }

    /// A question's answer.
    pub fn answer(&self, question: &str) -> &Answer {
        let found = self.list.iter().find(|subscription| subscription.question.text == question);
        found.map_or(&Answer::Awaited, |subscription| &subscription.answer)
    }

    /// When the newest event came of which anything is known, in ms by the server's clock.
    pub fn as_of(&self) -> Option<i64> {
        let as_of = |subscription: &Subscription| match &subscription.answer {
            Answer::Known(_, mirror) => mirror.as_of(),
            _ => None,
        };
        self.list.iter().filter_map(as_of).max()
    }

    fn view(&mut self, view: &View) -> Vec<String> {
        let Some(subscription) = self.numbered(view.subscription) else { return Vec::new() };
        // Resumed: what is known of it goes on.
        if matches!(&subscription.answer, Answer::Known(number, _) if *number == view.view) {
            return Vec::new();
        }
        match Mirror::new(view) {
            Ok(mirror) => {
                subscription.answer = Answer::Known(view.view, Box::new(mirror));
                Vec::new()
            }
            Err(error) => {
                subscription.answer = Answer::Refused(NOT_UNDERSTOOD, error.to_string());
                vec![format!("{{\"unsubscribe\":{}}}", subscription.number)]
            }
        }
    }

    fn update(&mut self, update: &Update) -> Vec<String> {
        let Subscriptions { last, list } = self;
        let mut said = Vec::new();
        for subscription in list {
            if let Answer::Known(view, mirror) = &mut subscription.answer
                && *view == update.view
                && mirror.apply(update.clone()).is_err()
            {
                // Something is missing in between: from the start, without a cursor.
                said.push(format!("{{\"unsubscribe\":{}}}", subscription.number));
                said.push(subscription.again(last));
            }
        }
        said
    }

    fn numbered(&mut self, number: u64) -> Option<&mut Subscription> {
        self.list.iter_mut().find(|subscription| subscription.number == number)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Subscription {
    /// Questions are made here, of words that need no escapes; so are cursors.
    fn subscribe(&self) -> String {
        let cursor = match &self.answer {
            Answer::Known(_, mirror) if mirror.version() > 0 => format!(",\"cursor\":\"{}\"", mirror.cursor()),
            _ => String::new(),
        };
        let sets = if self.question.sets { ",\"sets\":true" } else { "" };
        format!("{{\"subscribe\":{},\"question\":\"{}\"{sets}{cursor}}}", self.number, self.question.text)
    }

    fn again(&mut self, last: &mut u64) -> String {
        *last += 1;
        (self.number, self.answer) = (*last, Answer::Awaited);
        self.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::tests::{counts, view};

    fn questions(texts: &[&str]) -> Vec<Question> {
        texts.iter().map(|text| Question { text: (*text).to_owned(), sets: false }).collect()
    }

    fn rows(subscriptions: &Subscriptions, question: &str) -> usize {
        match subscriptions.answer(question) {
            Answer::Known(_, mirror) => mirror.rows().len(),
            answer => panic!("{question} is {answer:?}"),
        }
    }

    #[test]
    fn the_difference_is_said() {
        let mut subscriptions = Subscriptions::default();
        let said = subscriptions.want(&questions(&["a", "b"]));
        assert_eq!(said, [r#"{"subscribe":1,"question":"a"}"#, r#"{"subscribe":2,"question":"b"}"#]);
        assert_eq!(subscriptions.want(&questions(&["b", "a"])), [""; 0]);
        let said = subscriptions.want(&questions(&["b", "c"]));
        assert_eq!(said, [r#"{"unsubscribe":1}"#, r#"{"subscribe":3,"question":"c"}"#]);
    }

    #[test]
    fn answers_are_kept_up_to_date_and_resumed() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(&questions(&["a"]));
        assert!(matches!(subscriptions.answer("a"), Answer::Awaited));
        subscriptions.take(Message::View(view(1, 9)));
        subscriptions.take(Message::Update(counts(9, 0, &[("/", 3)])));
        subscriptions.take(Message::Update(counts(9, 1, &[("/a", 1)])));
        assert_eq!(rows(&subscriptions, "a"), 2);
        let resume = subscriptions.resume();
        assert_eq!(resume, [r#"{"subscribe":1,"question":"a","cursor":"9-2"}"#]);
        subscriptions.take(Message::View(view(1, 9)));
        assert_eq!(rows(&subscriptions, "a"), 2, "the same view goes on");
        subscriptions.take(Message::View(view(1, 10)));
        assert_eq!(rows(&subscriptions, "a"), 0, "another view begins anew");
    }

    #[test]
    fn sets_are_asked_for_where_they_are_united() {
        let said = Subscriptions::default().want(&[Question { text: "a".into(), sets: true }]);
        assert_eq!(said, [r#"{"subscribe":1,"question":"a","sets":true}"#]);
    }

    #[test]
    fn a_gap_begins_anew() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(&questions(&["a"]));
        subscriptions.take(Message::View(view(1, 9)));
        subscriptions.take(Message::Update(counts(9, 0, &[("/", 3)])));
        let said = subscriptions.take(Message::Update(counts(9, 5, &[("/", 4)])));
        assert_eq!(said, [r#"{"unsubscribe":1}"#, r#"{"subscribe":2,"question":"a"}"#]);
        subscriptions.take(Message::View(view(1, 9)));
        assert!(matches!(subscriptions.answer("a"), Answer::Awaited), "what comes late is nobody's");
    }

    #[test]
    fn what_is_refused_is_asked_again_where_that_can_help() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(&questions(&["a", "b"]));
        subscriptions.take(Message::Refused { subscription: 1, status: 503, detail: "busy".into() });
        subscriptions.take(Message::Refused { subscription: 2, status: 422, detail: "too much".into() });
        assert!(matches!(subscriptions.answer("a"), Answer::Refused(503, detail) if detail == "busy"));
        assert_eq!(subscriptions.retry(), [r#"{"subscribe":3,"question":"a"}"#]);
        assert!(matches!(subscriptions.answer("b"), Answer::Refused(422, _)));
    }

    #[test]
    fn a_view_that_is_not_understood_is_given_back() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(&questions(&["a"]));
        let unknown = View { metrics: vec!["mood".into()], ..view(1, 9) };
        assert_eq!(subscriptions.take(Message::View(unknown)), [r#"{"unsubscribe":1}"#]);
        assert!(matches!(subscriptions.answer("a"), Answer::Refused(..)));
    }

    #[test]
    fn the_newest_event_of_any_view_counts() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(&questions(&["a", "b"]));
        assert_eq!(subscriptions.as_of(), None);
        for (number, as_of) in [(1, 2_000), (2, 1_000)] {
            subscriptions.take(Message::View(view(number, number)));
            let update = Update { as_of: Some(as_of), ..counts(number, 0, &[("/", 1)]) };
            subscriptions.take(Message::Update(update));
        }
        assert_eq!(subscriptions.as_of(), Some(2_000));
    }
}
