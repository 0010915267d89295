//! Which way a segment's pages are written, by how often the log is synced.
//!
//! A store into a mapped page costs nothing once the page is there and may be stored into. But each sync takes that right away
//! again, from every processor that has it, and the next store is a page fault. Where a sync follows on every record or
//! two, writing the record by a call costs less than that; where more of them share a sync, the calls cost more
//! (`docs/adr/0031-pages-of-the-log.md`). So it is watched how many records go into the log between syncs. What is decided
//! here is about speed alone.

use vault_core::vfs::Syncs;

/// Records after which it is looked again how often the log is synced.
const LOOK_RECORDS: u64 = 64;
/// Up to so many records a sync they are written by calls.
const CALLS_RECORDS_A_SYNC: u64 = 4;

/// Watches how often the log is synced. Lives behind the commit lock.
#[derive(Debug)]
pub(super) struct Watch {
    expected: Syncs,
    /// Records since the last look, and how often the log had been synced then.
    records: u64,
    syncs: u64,
}

impl Watch {
    /// With nothing known yet but how often the log has been synced.
    pub(super) const fn new(syncs: u64) -> Self {
        Self {
            expected: Syncs::Few,
            records: 0,
            syncs,
        }
    }

    /// What a map is to be told that is filled from here on.
    pub(super) const fn expected(&self) -> Syncs {
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
        (self.records, self.syncs) = (0, syncs);
        let expected = if often { Syncs::Many } else { Syncs::Few };
        let changed = expected != self.expected;
        self.expected = expected;
        changed.then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_log_that_is_hardly_synced_is_filled_by_copying() {
        for records_a_sync in [u64::MAX, 60_000, 16] {
            let (mut watch, mut syncs) = (Watch::new(7), 7);
            assert_eq!(watch.expected(), Syncs::Few);
            assert_eq!(add(&mut watch, &mut syncs, 100_000, records_a_sync), []);
        }
    }

    #[test]
    fn a_log_that_is_synced_all_the_time_is_written_by_calls_and_only_while_it_is() {
        for records_a_sync in [1, 2, 3] {
            let (mut watch, mut syncs) = (Watch::new(0), 0);
            let told = add(&mut watch, &mut syncs, 7_000, records_a_sync);
            assert_eq!(told, [Syncs::Many], "{records_a_sync}");
            // The next segment is told the same from its first record on.
            assert_eq!(watch.expected(), Syncs::Many);
            let told = add(&mut watch, &mut syncs, 2 * LOOK_RECORDS, u64::MAX);
            assert_eq!(told, [Syncs::Few]);
        }
    }
}
