//! A view: a question whose answer is kept up to date, and what its readers are told of it.
//!
//! Cells are added as frames bring them. [`View::publish`] compares what readers should see with what they were told last,
//! and says the difference; its pace is [`View::next_at`]'s: the first change at once, then as often as the budgets let it.
//! A reader that missed updates is told all that changed since ([`View::since`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use catchment_cells::frame::Section;
use catchment_cells::live::{Changed, RowKey, Update};
use catchment_cells::sum::Sum;
use thiserror::Error;

use crate::answer::{Answer, TooMuch, TopGroups};
use crate::limits::{
    GONE_MAX, SNAPSHOT_BYTES_MAX, UPDATE_BURST_BYTES, UPDATE_BYTES_PER_S, UPDATE_EVERY_MS, UPDATE_PAUSE_MS_MAX,
    VIEW_ROWS_MAX,
};

/// One view.
#[derive(Debug)]
pub struct View {
    id: u64,
    answer: Answer,
    as_of: Option<i64>,
    /// Readers merge users themselves; else they get estimates.
    sets: bool,
    /// What readers were told: its version, and the rows.
    version: u64,
    rows: BTreeMap<RowKey, Told>,
    top: TopGroups,
    /// Rows that are no more, with the version that took them away.
    gone: VecDeque<(u64, RowKey)>,
    /// The newest version of those that the list had no room for.
    forgotten: u64,
    /// The range, and `as_of`, that readers were told.
    range: (i64, i64),
    told_as_of: Option<i64>,
    /// Buckets that may have changed since; `None`: any.
    touched: Option<BTreeSet<i64>>,
    is_changed: bool,
    next_at: i64,
    /// Bytes that were sent beyond what the budget allows, as of when, in ms.
    owed: i64,
    owed_at: i64,
}

/// A row as readers know it.
#[derive(Debug)]
struct Told {
    sums: Vec<Sum>,
    /// The version that last changed it.
    version: u64,
}

/// A view that is more than a view may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ViewError {
    /// It takes too much memory, or has too many rows.
    #[error(
        "the question has too much to say for a live view: narrow its range, ask for coarser buckets or for fewer groups"
    )]
    TooMuch,
}

impl From<TooMuch> for ViewError {
    fn from(_: TooMuch) -> Self {
        ViewError::TooMuch
    }
}

impl View {
    /// A view that starts from an answer; readers know nothing of it before the first [`publish`](View::publish).
    /// With `sets`, readers merge users themselves.
    pub fn new(id: u64, answer: Answer, as_of: Option<i64>, sets: bool) -> View {
        View {
            id,
            answer,
            as_of,
            sets,
            version: 0,
            rows: BTreeMap::new(),
            top: None,
            gone: VecDeque::new(),
            forgotten: 0,
            range: (0, 0),
            told_as_of: None,
            touched: None,
            is_changed: true,
            next_at: i64::MIN,
            owed: 0,
            owed_at: 0,
        }
    }

    /// Which.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The version that readers were told.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The answer beneath.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Adds a frame's cells of the view's client; `cut_at` is the frame's, in ms. Says whether any of them concern it.
    pub fn add(&mut self, section: &Section, cut_at: i64) -> Result<bool, ViewError> {
        let plan = self.answer.plan();
        let (start, end) = plan.range();
        let Some(cube) = section.get(&plan.cube.name) else { return Ok(false) };
        let mut is_concerned = false;
        for (minute, cells) in cube.buckets.range(start..end) {
            if let Some(touched) = &mut self.touched {
                let plan = self.answer.plan();
                touched.insert(plan.question.bucket(*minute, &plan.zone));
            }
            for (values, cell) in cells {
                is_concerned |= self.answer.add(*minute, values, cell)?;
            }
        }
        if is_concerned {
            self.as_of = self.as_of.max(Some(cut_at));
            self.is_changed = true;
        }
        Ok(is_concerned)
    }

    /// Goes on from another answer: of a window that has moved, or of a store that was asked anew.
    pub fn replace(&mut self, answer: Answer, as_of: Option<i64>) {
        self.answer = answer;
        self.as_of = self.as_of.max(as_of);
        self.touched = None;
        self.is_changed = true;
    }

    /// When there may be something to publish, in ms; `None` if nothing has changed.
    pub fn next_at(&self) -> Option<i64> {
        self.is_changed.then_some(self.next_at)
    }

    /// Doesn't publish before a time, in ms: what has cost much is not done often.
    pub fn wait_until(&mut self, at: i64) {
        self.next_at = self.next_at.max(at);
    }

    /// When the question's window moves, in ms; `None` if it doesn't.
    pub fn moves_at(&self) -> Option<i64> {
        let question = &self.answer.plan().question;
        question.last.is_some().then(|| question.end.saturating_mul(60_000))
    }

    /// What has changed since the last time, as the message that says so to all readers; `None` if nothing has.
    pub fn publish(&mut self, now: i64) -> Result<Option<Vec<u8>>, ViewError> {
        if !std::mem::take(&mut self.is_changed) {
            return Ok(None);
        }
        let (from, to) = (self.version, self.version + 1);
        let top = self.answer.top();
        // Who is told apart decides what the rest is, in every bucket.
        let touched = self.touched.replace(BTreeSet::new()).filter(|_| top == self.top);
        let buckets: Vec<i64> = match &touched {
            Some(touched) => touched.iter().copied().collect(),
            None => self.answer.buckets().collect(),
        };
        let mut is_there = BTreeSet::new();
        let mut rows = Vec::new();
        for bucket in buckets {
            for (group, sums) in self.answer.groups(bucket, &top) {
                let key = RowKey { bucket, group: group.map(Into::into) };
                let sums = if self.sets { sums } else { Cow::Owned(sums.iter().map(Sum::estimated).collect()) };
                is_there.insert(key.clone());
                let told = self.rows.get(&key);
                if told.is_some_and(|told| *told.sums == *sums) {
                    continue;
                }
                let news = told.and_then(|told| news(&told.sums, &sums));
                rows.push(Changed {
                    key,
                    whole: news.is_none(),
                    sums: news.unwrap_or_else(|| sums.clone().into_owned()),
                });
                self.rows.insert(rows[rows.len() - 1].key.clone(), Told { sums: sums.into_owned(), version: to });
            }
        }
        let gone: Vec<RowKey> = match &touched {
            Some(touched) => touched.iter().flat_map(|bucket| self.told_in(*bucket)).collect(),
            None => self.rows.keys().cloned().collect(),
        };
        let gone: Vec<RowKey> = gone.into_iter().filter(|key| !is_there.contains(key)).collect();
        for key in &gone {
            self.rows.remove(key);
            self.gone.push_back((to, key.clone()));
        }
        while self.gone.len() > GONE_MAX {
            self.forgotten = self.gone.pop_front().map_or(0, |(version, _)| version);
        }
        self.top = top;
        if self.rows.len() > VIEW_ROWS_MAX {
            return Err(ViewError::TooMuch);
        }
        let is_first = from == 0;
        let question = &self.answer.plan().question;
        let range = (question.start, question.end);
        let has_moved = std::mem::replace(&mut self.range, range) != range;
        self.told_as_of = self.as_of;
        if rows.is_empty() && gone.is_empty() && !has_moved {
            self.next_at = now + UPDATE_EVERY_MS;
            return Ok(None);
        }
        self.version = to;
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        let message = self.update(from, gone, rows);
        if is_first && message.len() > SNAPSHOT_BYTES_MAX {
            return Err(ViewError::TooMuch);
        }
        if !is_first {
            let earned = (now - self.owed_at).max(0).saturating_mul(UPDATE_BYTES_PER_S) / 1_000;
            self.owed = (self.owed - earned).max(0) + message.len() as i64;
            self.owed_at = now;
            let pause = (self.owed - UPDATE_BURST_BYTES) * 1_000 / UPDATE_BYTES_PER_S;
            self.next_at = now + pause.clamp(UPDATE_EVERY_MS, UPDATE_PAUSE_MS_MAX);
        }
        Ok(Some(message))
    }

    /// A version that readers were told, if all that changed since is remembered; else 0.
    pub fn remembered(&self, version: u64) -> u64 {
        if (self.forgotten..=self.version).contains(&version) { version } else { 0 }
    }

    /// All that changed since a version that readers were told, as one message; from version 0, or from one that is not
    /// remembered any more, all there is.
    pub fn since(&self, version: u64) -> Result<Vec<u8>, ViewError> {
        let version = self.remembered(version);
        let missed = self.gone.iter().filter(|(at, key)| version > 0 && *at > version && !self.rows.contains_key(key));
        let gone = missed.map(|(_, key)| key.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let rows = self.rows.iter().filter(|(_, told)| told.version > version).map(|(key, told)| Changed {
            key: key.clone(),
            whole: true,
            sums: told.sums.clone(),
        });
        let message = self.update(version, gone, rows.collect());
        if message.len() > SNAPSHOT_BYTES_MAX { Err(ViewError::TooMuch) } else { Ok(message) }
    }

    /// The rows of a bucket that readers know.
    fn told_in(&self, bucket: i64) -> impl Iterator<Item = RowKey> {
        let of = |bucket| RowKey { bucket, group: None };
        self.rows.range(of(bucket)..of(bucket.saturating_add(1))).map(|(key, _)| key.clone())
    }

    fn update(&self, from: u64, gone: Vec<RowKey>, rows: Vec<Changed>) -> Vec<u8> {
        let ((start, end), as_of) = (self.range, self.told_as_of);
        let update = Update { view: self.id, from, to: self.version, start, end, as_of, gone, rows };
        catchment_cells::live::Message::Update(update).encode()
    }
}

/// What makes the present sums of the earlier ones: users that are new, and the rest as it is. `None` where only the whole does.
fn news(earlier: &[Sum], now: &[Sum]) -> Option<Vec<Sum>> {
    let pairs = earlier.iter().zip(now.iter());
    pairs
        .map(|(earlier, now)| match (earlier, now) {
            (Sum::Users(earlier), Sum::Users(now)) => now.since(earlier).map(Sum::Users),
            _ => Some(now.clone()),
        })
        .collect()
}
