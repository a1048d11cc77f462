//! What an aggregator keeps of producers, and what it is asked.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use catchment_aggregator_core::block::Decoded;
use catchment_aggregator_core::dictionary::Dictionary;
use catchment_aggregator_core::marks::decide;
use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::question::parameters;
use catchment_aggregator_core::runs::{fold, split_row_key};
use catchment_aggregator_core::{Answer, Decision, Mark, Memtable, Plan, Question, Said, Token};
use catchment_cells::ClientId;
use catchment_cells::cell::Wanted;
use catchment_cells::codec::DecodeError;
use catchment_cells::credential::ReadKey;
use catchment_cells::frame::{self, open};
use catchment_cells::key::{Tier, put_bucket, series};
use catchment_cells::live::parse_cursor;
use catchment_cells::merged::Merged;
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

/// A dictionary of values: `u8 0 or 1 ‖ dictionary`. It has one form.
pub(crate) fn dictionary(bytes: &[u8]) -> bool {
    let Some((is_folding, bytes)) = bytes.split_first() else { return false };
    let Ok(dictionary) = Dictionary::decode(bytes, *is_folding > 0) else { return false };
    assert_eq!(dictionary.encode(), bytes);
    true
}

/// Two blocks of a stretch: `u16 length ‖ block ‖ block`. Folded into one run they have the events of both, and are read as they are written.
pub(crate) fn stretch(bytes: &[u8]) -> bool {
    let Some((one, other)) = split_length(bytes) else { return false };
    let events = |blocks: &[(i64, &[u8])]| {
        let mut events = BTreeMap::new();
        for (first, block) in blocks {
            let wanted = Wanted { users: true, measures: true };
            let Some(decoded) = Decoded::read(*first, block, wanted, i64::MIN..i64::MAX)? else { continue };
            decoded.visit(i64::MIN, i64::MAX, |bucket, _, cell| {
                let events: &mut u64 = events.entry(bucket).or_default();
                *events = events.saturating_add(cell.count);
                Ok::<_, DecodeError>(())
            })?;
        }
        Ok::<_, DecodeError>(events)
    };
    let Ok(unfolded) = events(&[(0, one), (0, other)]) else { return false };
    let series = series(&ClientId::new("shop").expect("it is one"), "page", Tier::Minute);
    let key = |run: u64| {
        let mut key = series.clone();
        put_bucket(&mut key, 0);
        [key, run.to_be_bytes().into()].concat()
    };
    let Ok(folded) = fold(&[(key(1), one), (key(2), other)]) else { return false };
    let folded: Vec<(i64, &[u8])> =
        folded.put.iter().map(|(key, block)| (split_row_key(key).expect("it was written").1, &block[..])).collect();
    assert_eq!(events(&folded).expect("they were written"), unfolded);
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

/// A query string, or JSON.
pub(crate) fn question(bytes: &[u8]) -> bool {
    LazyLock::force(&CELLS);
    if let Ok(json) = serde_json::from_slice(bytes) {
        return Question::from_json(&json, NOW, &TimeZone::UTC).is_ok_and(answer);
    }
    str::from_utf8(bytes).is_ok_and(ask)
}

/// A query string: understood, and then answered.
fn ask(query: &str) -> bool {
    let parameters = parameters(query);
    let pairs = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Question::parse(pairs, NOW, &TimeZone::UTC).is_ok_and(answer)
}

/// A question: planned, and answered from some cells.
fn answer(question: Question) -> bool {
    let zone = TimeZone::UTC;
    assert!(question.start < question.end);
    let range = (question.start, question.end);
    for minute in [question.start, question.end - 1] {
        let bucket = question.bucket(minute, &zone);
        let next = question.granularity.next(bucket, range, &zone);
        assert!(bucket <= minute && minute < next, "{minute} is in bucket {bucket} before {next}");
    }
    let takes_cells = question.check_cells().is_ok();
    let Ok(plan) = Plan::new(question, &[], &zone) else { return false };
    // Spans tile what is read.
    let (from, end) = plan.range();
    let mut at = from;
    for span in &plan.spans {
        assert!(span.from == at && span.from < span.to);
        at = span.to;
    }
    assert!(at == end && from <= plan.question.start);
    let before = plan.before().expect("all of its tiers are kept").map(|before| read(Answer::new(before)));
    let answer = read(Answer::new(plan.at(NOW).expect("all of its tiers are kept")));
    let rows = answer.rows_beside(before.as_ref(), &|| true);
    let question = &answer.plan().question;
    for row in rows.iter().flatten() {
        assert_eq!((row.figures.len(), row.group.len()), (question.metrics.len(), question.group_by.len()));
        for figure in row.figures.iter().flatten() {
            assert!(figure.lower <= figure.value && figure.value <= figure.upper, "{figure:?}");
        }
    }
    if takes_cells && let Ok(merged) = read(Answer::new(plan).keeping_cells()).merged(Some(NOW)) {
        let read = Merged::decode(&merged.encode()).expect("what we write");
        assert_eq!(read.encode(), merged.encode());
    }
    true
}

/// Adds all cells that there are.
fn read(mut answer: Answer) -> Answer {
    let client = ClientId::new("shop").expect("a client's id");
    let cube = answer.plan().cube.name.to_string();
    for (minute, values, cell) in CELLS.scan(&client, &cube, i64::MIN + 1, answer.plan().question.end) {
        if answer.add(minute, values, cell).is_err() {
            break;
        }
    }
    answer
}
