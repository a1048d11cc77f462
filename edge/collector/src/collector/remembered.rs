//! The ids that are remembered: a ring of rows, and what of it is moved to the spilled ones.

use catchment_cells::route::is_backfill;

use super::Collector;
use crate::ids::IdsBounds;
use crate::limits::{IDS_KEPT_MS, IDS_ROW_FULL, IDS_ROW_MS, IDS_ROWS_MAX, SPILLED_ROWS, SWEPT_ROWS};
use crate::rows::{IdsRow, SpilledGroup, SpilledRow};

/// What is known of a row of the ring of ids.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingRow {
    n: u64,
    last_received_at: i64,
    ids: usize,
}

/// A round that moves all ids of the ring, as it was at the beginning, to the spilled rows, one row after the other. The ring's rows go in the
/// end, so that a restart, which begins anew, finds each id at one place at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The next spilled row.
    next: u64,
    /// The ring's rows before this one are done with in the end.
    ring_end: u64,
}

impl Collector {
    /// Remembers as many ids as these say.
    pub(crate) fn bound_ids(&mut self, bounds: IdsBounds) {
        self.bounds = bounds;
    }

    /// Takes up a row of ids; the rows come in their order.
    pub fn restore_ids(&mut self, row: IdsRow) {
        row.ids.iter().for_each(|&id| self.ids.insert(id));
        self.ids_rows.push_back(RingRow { n: row.n, last_received_at: row.last_received_at, ids: row.ids.len() });
        self.ids_in_ring += row.ids.len();
        self.received_by = self.received_by.max(row.last_received_at);
        self.ids_last = Some(row);
    }

    /// Whether so many more events could be remembered.
    pub fn has_room_for(&self, events: usize) -> bool {
        let in_ring = self.ids_in_ring + self.open.ids.len() + events;
        self.meta.ids_next - self.meta.ids_first + 1 < IDS_ROWS_MAX && in_ring <= self.bounds.ring_max
    }

    /// Ids in memory.
    pub fn ids_in_memory(&self) -> usize {
        self.ids.in_memory()
    }

    /// The number of a row of ids whose events would by now be too late: read it, and [`forget`](Self::forget) it.
    pub fn expired_ids(&self, now: i64) -> Option<u64> {
        let &RingRow { n, last_received_at, .. } = self.ids_rows.front()?;
        // The row that is still added to stays.
        let done = self.ids_last.as_ref().is_none_or(|last| last.n != n);
        (done && last_received_at < self.ids_kept_from(now)).then_some(n)
    }

    /// Ids of events that were received before are forgotten. A backfill, which lets any time in, forgets nothing.
    fn ids_kept_from(&self, now: i64) -> i64 {
        if is_backfill(self.meta.producer.shard()) {
            return i64::MIN;
        }
        // What isn't cut is applied again after a restart, and must meet the same ids: it counts as now.
        self.open.first_received_at.map_or(now, |received_at| received_at.min(now)) - IDS_KEPT_MS
    }

    /// Forgets the oldest row of ids.
    pub fn forget(&mut self, row: &IdsRow) {
        self.ids.remove_all(&row.ids);
        self.leave_ring_before(row.n + 1);
    }

    /// The number of the next row to [`spill`](Self::spill) into; `None`: this cut spills no more. What is spilled has to be in the ring, so
    /// this is for after a cut, and within its transaction.
    pub fn next_to_spill(&mut self) -> Option<u64> {
        if self.is_spilled_full() {
            return None;
        }
        if self.round.is_none() && self.ids_in_ring >= self.bounds.spill_from {
            // No more is added to the last row: it goes with those before it.
            self.ids_last = None;
            self.round = Some(Round { next: 0, ring_end: self.meta.ids_next });
        }
        let Round { next, ring_end } = self.round.as_mut()?;
        let arrived = self.ids_in_ring.saturating_sub(self.bounds.spill_from) as u64;
        let due = (SPILLED_ROWS * arrived / self.bounds.spill_within as u64).min(SPILLED_ROWS);
        while *next < due {
            *next += 1;
            if self.ids.has_young(*next - 1) {
                return Some(*next - 1);
            }
        }
        if *next == SPILLED_ROWS {
            let ring_end = *ring_end;
            self.leave_ring_before(ring_end);
            self.round = None;
        }
        None
    }

    /// Moves ids from memory to a spilled row, which is to be written then. It forgets those of events that would be too late by now.
    pub fn spill(&mut self, row: &mut SpilledRow, now: i64) {
        let before = row.len();
        row.forget(self.ids_kept_from(now));
        let ids = self.ids.take_young(row);
        if !ids.is_empty() {
            let received_by = row.groups.last().map_or(self.received_by, |last| last.received_by.max(self.received_by));
            row.groups.push(SpilledGroup { received_by, ids });
        }
        self.note_spilled(row, before);
    }

    /// Whether no more is spilled until some are forgotten.
    fn is_spilled_full(&self) -> bool {
        self.meta.spilled >= self.bounds.spilled_max as u64
    }

    /// Some spilled rows to [`sweep`](Self::sweep), if no more can be spilled: they may have ids whose events would by now be too late.
    pub fn to_sweep(&self, now: i64) -> Vec<u64> {
        let rows = if self.is_spilled_full() { SWEPT_ROWS } else { 0 };
        self.ids.spilled_before(self.ids_kept_from(now)).take(rows).collect()
    }

    /// Forgets what it can of a spilled row. Whether it has to be written.
    pub fn sweep(&mut self, row: &mut SpilledRow, now: i64) -> bool {
        let before = row.len();
        row.forget(self.ids_kept_from(now));
        self.note_spilled(row, before);
        row.len() < before
    }

    fn note_spilled(&mut self, row: &SpilledRow, ids_before: usize) {
        self.ids.note(row);
        self.meta.spilled = self.meta.spilled.saturating_add(row.len() as u64).saturating_sub(ids_before as u64);
    }

    fn leave_ring_before(&mut self, end: u64) {
        while let Some(row) = self.ids_rows.pop_front_if(|row| row.n < end) {
            self.ids_in_ring -= row.ids;
        }
        self.meta.ids_first = self.meta.ids_first.max(end);
    }

    /// The last row with the new ids, or a new row.
    pub(super) fn next_ids_row(
        &mut self,
        ids: Vec<u64>,
        first_received_at: i64,
        last_received_at: i64,
    ) -> Option<IdsRow> {
        if ids.is_empty() {
            return None;
        }
        let last = self
            .ids_last
            .take()
            .filter(|last| last.ids.len() < IDS_ROW_FULL && last_received_at - last.first_received_at < IDS_ROW_MS);
        let mut row = last.unwrap_or_else(|| {
            let n = self.meta.ids_next;
            self.meta.ids_next += 1;
            self.ids_rows.push_back(RingRow { n, last_received_at, ids: 0 });
            IdsRow { n, first_received_at, last_received_at, ids: Vec::new() }
        });
        self.ids_in_ring += ids.len();
        row.ids.extend(ids);
        row.ids.sort_unstable();
        row.last_received_at = last_received_at;
        if let Some(known) = self.ids_rows.back_mut() {
            known.last_received_at = last_received_at;
            known.ids = row.ids.len();
        }
        self.ids_last = Some(row.clone());
        Some(row)
    }
}
