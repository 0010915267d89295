//! Which way the pages of a segment are written, by how often the log is synced.
//!
//! A page of a mapped file costs twice: when it is first touched, and when a sync has written it, because the next store to
//! it is a fault again, and the right to store had to be taken from every processor. Measured for records of 140 bytes on two
//! processors (`docs/adr/0031-pages-of-the-log.md` has the rest):
//!
//! - Hardly any syncs: a record costs 62 ns in pages of 4 KiB, most of it faults, and 21 in pages of 2 MiB. But a sync writes
//!   a large page whole, 470 µs instead of 100.
//! - A sync for every few records: a call to write each is cheaper than the faults that it saves. It also marks what it has
//!   written in small, so that a sync of a large page is none the slower.
//!
//! So it is watched how much goes into the log between syncs. Decisions here are about speed alone.

use vault_core::vfs::Syncs;

/// Where this many bytes went into a segment for each sync, the next one has large pages. They save 0.3 ns a byte and cost
/// 370 µs a sync: they pay from 1.3 MB on.
const LARGE_PAGES_BYTES_A_SYNC: u64 = 4 << 20;
/// Shorter segments have small pages: they would be a few large ones.
const LARGE_PAGES_SEGMENT_BYTES: u64 = 4 << 20;
/// A segment with large pages that was synced more often is written by calls to its end.
const LARGE_PAGES_SYNCS_MAX: u64 = 8;
/// Records after which it is looked again how often the log is synced.
const LOOK_RECORDS: u64 = 64;
/// Up to so many records a sync they are written by calls.
const CALLS_RECORDS_A_SYNC: u64 = 32;

/// Watches how often the log is synced. Lives behind the commit lock.
#[derive(Debug)]
pub(super) struct Watch {
    /// What the map of the current segment was told last.
    expected: Syncs,
    large_pages: bool,
    /// How far the log reached, and how often it had been synced, when the current segment began.
    began: (u64, u64),
    /// Records since the last look, and how often the log had been synced then.
    records: u64,
    syncs: u64,
}

impl Watch {
    /// From a log position on, with nothing known yet.
    pub(super) const fn new(position: u64, syncs: u64) -> Self {
        Self {
            expected: Syncs::Some,
            large_pages: false,
            began: (position, syncs),
            records: 0,
            syncs,
        }
    }

    /// A segment of `capacity` bytes begins at `position`, with the log synced `syncs` times so far. Gives what its map is to
    /// be told: as it was with the one before.
    pub(super) fn begin(&mut self, position: u64, syncs: u64, capacity: u64) -> Syncs {
        let bytes = position - self.began.0;
        let seldom = bytes >= (syncs - self.began.1).saturating_mul(LARGE_PAGES_BYTES_A_SYNC);
        self.large_pages = seldom && capacity >= LARGE_PAGES_SEGMENT_BYTES;
        self.began = (position, syncs);
        if self.large_pages {
            self.expected = Syncs::Few;
        } else if self.expected == Syncs::Few {
            self.expected = Syncs::Some;
        }
        self.expected
    }

    /// A record is about to be added; `syncs` says how often the log was synced so far. Gives what the map is to be told, where
    /// that has changed.
    #[inline]
    pub(super) fn record(&mut self, syncs: impl FnOnce() -> u64) -> Option<Syncs> {
        self.records += 1;
        if self.records < LOOK_RECORDS {
            return None;
        }
        self.look(syncs())
    }

    fn look(&mut self, syncs: u64) -> Option<Syncs> {
        let often = (syncs - self.syncs) * CALLS_RECORDS_A_SYNC >= self.records;
        let too_often = self.large_pages && syncs - self.began.1 > LARGE_PAGES_SYNCS_MAX;
        (self.records, self.syncs) = (0, syncs);
        let expected = if often || too_often {
            Syncs::Many
        } else if self.large_pages {
            Syncs::Few
        } else {
            Syncs::Some
        };
        let changed = expected != self.expected;
        self.expected = expected;
        changed.then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 64 << 20;
    const RECORD: u64 = 140;

    /// Adds records with a sync after every so many of them. Gives what the map was told.
    fn add(watch: &mut Watch, syncs: &mut u64, records: u64, records_a_sync: u64) -> Vec<Syncs> {
        let mut told = Vec::new();
        for n in 1..=records {
            told.extend(watch.record(|| *syncs));
            *syncs += u64::from(n % records_a_sync == 0);
        }
        told
    }

    #[test]
    fn a_log_without_syncs_gets_large_pages_once_its_segments_are_long() {
        let mut watch = Watch::new(7, 3);
        assert_eq!(watch.begin(7, 3, 1 << 20), Syncs::Some);
        assert_eq!(watch.begin(7 + (1 << 20), 3, SEGMENT), Syncs::Few);
        assert_eq!(add(&mut watch, &mut 3, 10_000, u64::MAX), []);
    }

    #[test]
    fn a_log_that_is_synced_all_the_time_is_written_by_calls() {
        for records_a_sync in [1, 16] {
            let (mut watch, mut syncs) = (Watch::new(0, 0), 0);
            assert_eq!(watch.begin(0, 0, 1 << 20), Syncs::Some);
            let told = add(&mut watch, &mut syncs, 7_000, records_a_sync);
            assert_eq!(told, [Syncs::Many], "{records_a_sync}");
            // And so is the next segment, from its first record on.
            let next = watch.begin(7_000 * RECORD, syncs, SEGMENT);
            assert_eq!(next, Syncs::Many);
            assert_eq!(add(&mut watch, &mut syncs, 7_000, u64::MAX), [Syncs::Some]);
        }
    }

    #[test]
    fn large_pages_are_not_synced_for_long() {
        // The fill before had none, and then they come: one by one, or after hundreds of records.
        for records_a_sync in [1, 500] {
            let (mut watch, mut syncs) = (Watch::new(0, 0), 0);
            assert_eq!(watch.begin(0, 0, 1 << 20), Syncs::Some);
            assert_eq!(watch.begin(1 << 20, 0, SEGMENT), Syncs::Few);
            let told = add(&mut watch, &mut syncs, 50 * records_a_sync.max(64), records_a_sync);
            assert_eq!(told, [Syncs::Many], "{records_a_sync}");
            let position = (1 << 20) + 50 * records_a_sync.max(64) * RECORD;
            let next = watch.begin(position, syncs, SEGMENT);
            assert_ne!(next, Syncs::Few, "{records_a_sync}");
        }
    }

    #[test]
    fn a_sync_now_and_then_changes_nothing() {
        let (mut watch, mut syncs) = (Watch::new(0, 0), 0);
        watch.begin(0, 0, 1 << 20);
        watch.begin(1 << 20, 0, SEGMENT);
        let records = SEGMENT / RECORD;
        // One sync in 8 MiB or so, as flushes ask for.
        assert_eq!(add(&mut watch, &mut syncs, records, 60_000), []);
        let next = watch.begin((1 << 20) + SEGMENT, syncs, SEGMENT);
        assert_eq!(next, Syncs::Few);
    }
}
