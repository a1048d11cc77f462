//! What an aggregator keeps of producers, and what it is asked.

use std::sync::LazyLock;

use catchment_aggregator_core::marks::decide;
use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::question::{Granularity, parameters};
use catchment_aggregator_core::{Answer, Decision, Mark, Memtable, Plan, Question, Said, Token};
use catchment_cells::ClientId;
use catchment_cells::credential::ReadKey;
use catchment_cells::frame::{self, open};
use catchment_cells::live::parse_cursor;
use jiff::tz::TimeZone;

use crate::hand::SECRET;
use crate::seeds::golden;
use crate::split_length;

/// When questions are asked, in ms: some hours after what the golden frame is about.
const NOW: i64 = 1_680_010_000_000;

/// A producer's mark: has one form, and knows its own frame again.
pub(crate) fn mark(bytes: &[u8]) -> bool {
    let Ok(mark) = Mark::decode(bytes) else { return false };
    assert_eq!(mark.encode(), bytes);
    let mut header = frame::peek(&golden()).expect("the golden frame");
    header.seq = mark.seq;
    assert_eq!(decide(Some(&mark), &header, &mark.chain()), Decision::Duplicate);
    if let Some(next) = mark.seq.checked_add(1) {
        header.seq = next;
        header.prev = mark.chain();
        assert_eq!(decide(Some(&mark), &header, &[7; 16]), Decision::Store);
        let after = Mark::after(Some(&mark), &header, [7; 16]);
        assert_eq!(Mark::decode(&after.encode()), Ok(after));
    }
    true
}

/// The golden frame's cells.
static CELLS: LazyLock<Memtable> = LazyLock::new(|| {
    let golden = golden();
    let key = SECRET.frame_key(&frame::peek(&golden).expect("the golden frame").producer);
    let mut memtable = Memtable::default();
    memtable.merge(open(&golden, &key).and_then(|opened| Ok(opened.cells()?)).expect("the golden frame"));
    memtable
});

/// A cube's row: `u16 length ‖ key ‖ value`. It has one form.
pub(crate) fn cube(bytes: &[u8]) -> bool {
    let Some((key, value)) = split_length(bytes) else { return false };
    let Ok((client, cube)) = Cube::decode_row(key, value) else { return false };
    assert_eq!(cube.encode_row(&client), (key.to_vec(), value.to_vec()));
    true
}

/// What a reader of live views says, from its first message on: where it is a question, this is understood and answered.
pub(crate) fn said(bytes: &[u8]) -> bool {
    LazyLock::force(&CELLS);
    let Ok(text) = str::from_utf8(bytes) else { return false };
    if let Some(Token { token }) = Token::read(text) {
        return ReadKey::parse(&SECRET, &token).is_ok();
    }
    match Said::read(text) {
        Some(Said::Subscribe { question, cursor, .. }) => {
            let _ = cursor.as_deref().and_then(parse_cursor);
            ask(&question);
            true
        }
        Some(Said::Unsubscribe { .. }) => true,
        None => false,
    }
}

/// A query string.
pub(crate) fn question(bytes: &[u8]) -> bool {
    LazyLock::force(&CELLS);
    str::from_utf8(bytes).is_ok_and(ask)
}

/// A query string: understood, planned, and answered from some cells.
fn ask(query: &str) -> bool {
    let parameters = parameters(query);
    let pairs = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let zone = TimeZone::UTC;
    let Ok(question) = Question::parse(pairs, NOW, &zone) else { return false };
    assert!(question.start < question.end);
    for minute in [question.start, question.end - 1] {
        let bucket = question.bucket(minute, &zone);
        let long = question.granularity == Granularity::All || minute - bucket < 366 * 24 * 60;
        assert!(bucket <= minute && long, "{minute} is in bucket {bucket}");
    }
    let Ok(plan) = Plan::new(question, &[], &zone) else { return false };
    // Spans tile the range.
    let (mut at, end) = (plan.question.start, plan.question.end);
    for span in &plan.spans {
        assert!(span.from == at && span.from < span.to);
        at = span.to;
    }
    assert_eq!(at, end);
    let client = ClientId::new("shop").expect("a client's id");
    let cube = plan.cube.name.to_string();
    let mut answer = Answer::new(plan.at(NOW));
    for (minute, values, cell) in CELLS.scan(&client, &cube, at.min(i64::MIN + 1), end) {
        if answer.add(minute, values, cell).is_err() {
            break;
        }
    }
    if let Ok(rows) = answer.rows() {
        assert!(rows.iter().all(|row| row.figures.len() == answer.plan().question.metrics.len()));
    }
    true
}
