//! Gaps: stretches of a keyspace's keys of which a reader has found every one deleted.
//!
//! A reader that comes to deleted keys has to step over the tombstone of each. Where half of a store was deleted, or a queue
//! is drained at one end, every seek would step over the same tombstones again until a compaction has removed them. So a
//! cursor that has stepped over many leaves word of it, and the next one goes to the other end at once.
//!
//! # What a gap says
//! `[first, end)` with a sequence number *s*: no reader at *s* or later sees anything in there. It is a fact about the data, not
//! about a view: flushes and compactions don't touch it, and only a write that brings a value can end it. So
//! - a reader older than *s* makes no use of it;
//! - a write of anything but a delete into it cuts it in two, before that write becomes visible ([`Gaps::written`]);
//! - an ingest, and locking, end all gaps of the keyspace ([`Gaps::clear`]).
//!
//! Only deletes count, of single keys and of ranges. What has expired is gone by the clock, which may be set back.
//!
//! # How one is left without missing a write
//! Between the moment that a reader stands at and the moment at which it leaves word, others may have written into the gap.
//! 1. With the commit lock in hand, the reader puts the gap down as *watched*, for readers from the last number on that was given out: of
//!    those between its own moment and now it knows nothing. It only tries the lock: should a writer have it, no
//!    gap is left this time. From here on every write into it is noted.
//! 2. Writes before that are in memtables, put there under the same lock: the reader looks for newer values in them. Where the
//!    last number that was given out is its own there are none; where tables have come or gone since its view, it leaves no gap;
//!    and where a known gap is only made longer, just what is added to it is looked at.
//! 3. If nothing was found, and nothing noted meanwhile, the gap is used from here on.
//!
//! Bounded: [`GAPS_MAX`] gaps with keys of up to [`KEY_BYTES_MAX`]. One that is written into again and again without being of use to
//! anybody in between is let go.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use vault_core::SequenceNumber;

use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, MutexGuard};

/// Gaps of one keyspace. Each write of a value looks through them as long as there are any.
const GAPS_MAX: usize = 32;
/// Longer keys are not worth keeping.
const KEY_BYTES_MAX: usize = 1 << 10;

/// The gaps of one keyspace.
#[derive(Default)]
pub(crate) struct Gaps {
    /// How many there are, watched ones included. Changed under the lock of `list`.
    count: AtomicU64,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    /// By `first`. Those that are used never overlap.
    gaps: Vec<Gap>,
    next_id: u64,
}

#[derive(Debug, Clone)]
struct Gap {
    id: u64,
    first: Vec<u8>,
    /// Excluded.
    end: Vec<u8>,
    /// Readers from here on see nothing in it.
    sequence: SequenceNumber,
    /// Whether it is certain that nothing was written into it.
    used: bool,
    /// Whether anybody made use of it since it was last written into.
    of_use: bool,
}

impl Gap {
    fn contains(&self, key: &[u8]) -> bool {
        *self.first <= *key && *key < *self.end
    }
}

/// A gap that is watched.
pub(crate) struct Watched {
    id: u64,
    /// What has to be looked at for newer values.
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

impl Gaps {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are none. What a reader must not miss was there before it took its sequence number.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Puts the end of the gap that `key` lies in into `end`, for a reader at `snapshot`. Says whether there is one.
    pub(crate) fn end_of(&self, key: &[u8], snapshot: SequenceNumber, end: &mut Vec<u8>) -> bool {
        self.around(key, snapshot, |gap| end.clone_from(&gap.end))
    }

    /// Puts the first key of the gap that `key` lies in into `first`, for a reader at `snapshot`. Says whether there is one.
    pub(crate) fn first_of(
        &self,
        key: &[u8],
        snapshot: SequenceNumber,
        first: &mut Vec<u8>,
    ) -> bool {
        self.around(key, snapshot, |gap| first.clone_from(&gap.first))
    }

    fn around(&self, key: &[u8], snapshot: SequenceNumber, found: impl FnOnce(&Gap)) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut list = self.list();
        let usable = |gap: &&mut Gap| gap.used && gap.sequence <= snapshot && gap.contains(key);
        let Some(gap) = list.gaps.iter_mut().find(usable) else {
            return false;
        };
        gap.of_use = true;
        found(gap);
        true
    }

    /// Watches `[first, end)`, of which a reader has seen nothing, for readers from `sequence` on, the last number that was given out. The
    /// caller holds the commit lock.
    pub(crate) fn watch(
        &self,
        first: &[u8],
        end: &[u8],
        sequence: SequenceNumber,
    ) -> Option<Watched> {
        if first.len() > KEY_BYTES_MAX || end.len() > KEY_BYTES_MAX || first >= end {
            return None;
        }
        let mut list = self.list();
        let (mut first, mut end) = (first.to_vec(), end.to_vec());
        let (mut from, mut to) = (first.clone(), end.clone());
        // What is known already needs no second look, and the gaps at both ends become part of this one.
        for gap in list
            .gaps
            .iter()
            .filter(|gap| gap.used && gap.sequence <= sequence)
        {
            if gap.first <= first && first <= gap.end {
                from.clone_from(&gap.end);
                first.clone_from(&gap.first);
            }
            if gap.first <= end && end <= gap.end {
                to.clone_from(&gap.first);
                end.clone_from(&gap.end);
            }
        }
        if from >= to
            && list
                .gaps
                .iter()
                .any(|gap| gap.first <= first && end <= gap.end)
        {
            return None;
        }
        if list.gaps.len() >= GAPS_MAX {
            // Whatever was of no use, or else the oldest.
            let least = list.gaps.iter().enumerate();
            let least = least.min_by_key(|(_, gap)| (gap.of_use, gap.id));
            let at = least.map_or(0, |(at, _)| at);
            list.gaps.remove(at);
        }
        let id = list.next_id;
        list.next_id += 1;
        list.gaps.push(Gap {
            id,
            first,
            end,
            sequence,
            used: false,
            of_use: true,
        });
        self.count.store(list.gaps.len() as u64, Ordering::Release);
        Some(Watched { id, from, to })
    }

    /// Nothing newer was found in what is watched: it is used from here on, unless it was written into meanwhile.
    pub(crate) fn confirm(&self, watched: &Watched) {
        let mut list = self.list();
        let Some(at) = list.gaps.iter().position(|gap| gap.id == watched.id) else {
            return;
        };
        let mut new = list.gaps.swap_remove(at);
        new.used = true;
        // Those that it covers have nothing to add, but for readers from before it.
        list.gaps
            .retain(|gap| !gap.used || gap.end <= new.first || new.end <= gap.first);
        list.gaps.push(new);
        self.count.store(list.gaps.len() as u64, Ordering::Release);
    }

    /// Something newer was found in what is watched.
    pub(crate) fn abandon(&self, watched: &Watched) {
        let mut list = self.list();
        list.gaps.retain(|gap| gap.id != watched.id);
        self.count.store(list.gaps.len() as u64, Ordering::Release);
    }

    /// Takes note that something other than a delete is being written to `key`. The caller holds the commit lock, has the
    /// write in a memtable, and has not made it visible yet.
    #[inline]
    pub(crate) fn written(&self, key: &[u8]) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.cut(key);
        }
    }

    fn cut(&self, key: &[u8]) {
        let mut list = self.list();
        let mut right = None;
        list.gaps.retain_mut(|gap| {
            if !gap.contains(key) {
                return true;
            }
            if !gap.used || !gap.of_use {
                return false;
            }
            gap.of_use = false;
            let mut rest = gap.clone();
            rest.first.clear();
            rest.first.extend_from_slice(key);
            rest.first.push(0);
            gap.end.clear();
            gap.end.extend_from_slice(key);
            right = Some(rest).filter(|rest| rest.first < rest.end);
            gap.first < gap.end
        });
        if let Some(mut right) = right.filter(|_| list.gaps.len() < GAPS_MAX) {
            right.id = list.next_id;
            list.next_id += 1;
            list.gaps.push(right);
        }
        self.count.store(list.gaps.len() as u64, Ordering::Release);
    }

    /// Ends all gaps. The caller holds the commit lock, or nobody writes.
    pub(crate) fn clear(&self) {
        let mut list = self.list();
        list.gaps.clear();
        self.count.store(0, Ordering::Release);
    }
}

#[cfg(all(test, not(vault_model = "loom")))]
mod tests {
    use super::*;

    fn leave(gaps: &Gaps, first: &[u8], end: &[u8], sequence: u64) {
        if let Some(watched) = gaps.watch(first, end, sequence) {
            gaps.confirm(&watched);
        }
    }

    fn end_of(gaps: &Gaps, key: &[u8], snapshot: u64) -> Option<Vec<u8>> {
        let mut end = Vec::new();
        gaps.end_of(key, snapshot, &mut end).then_some(end)
    }

    fn first_of(gaps: &Gaps, key: &[u8], snapshot: u64) -> Option<Vec<u8>> {
        let mut first = Vec::new();
        gaps.first_of(key, snapshot, &mut first).then_some(first)
    }

    #[test]
    fn a_gap_is_for_readers_from_its_moment_on_and_for_keys_within() {
        let gaps = Gaps::default();
        assert!(gaps.is_empty());
        leave(&gaps, b"d", b"m", 7);
        assert!(!gaps.is_empty());
        assert_eq!(end_of(&gaps, b"d", 7).unwrap(), b"m");
        assert_eq!(first_of(&gaps, b"lz", 9).unwrap(), b"d");
        assert_eq!(
            end_of(&gaps, b"e", 6),
            None,
            "an older reader may see something"
        );
        assert_eq!(end_of(&gaps, b"m", 9), None);
        assert_eq!(end_of(&gaps, b"c", 9), None);
        gaps.clear();
        assert_eq!(end_of(&gaps, b"e", 9), None);
        assert!(gaps.is_empty());
    }

    #[test]
    fn a_write_cuts_and_a_second_one_without_use_in_between_ends_it() {
        let gaps = Gaps::default();
        leave(&gaps, b"d", b"m", 7);
        gaps.written(b"c");
        gaps.written(b"m");
        gaps.written(b"g");
        assert_eq!(end_of(&gaps, b"g", 9), None);
        assert_eq!(end_of(&gaps, b"e", 9).unwrap(), b"g");
        assert_eq!(first_of(&gaps, b"h", 9).unwrap(), b"g\0");
        // Both were of use, and are cut again; then one is written into without having been asked.
        gaps.written(b"h");
        assert_eq!(first_of(&gaps, b"i", 9).unwrap(), b"h\0");
        gaps.written(b"g\0\0");
        assert_eq!(end_of(&gaps, b"g\0", 9), None, "of no use since it was cut");
        gaps.written(b"d");
        assert_eq!(first_of(&gaps, b"e", 9).unwrap(), b"d\0");
    }

    #[test]
    fn what_is_watched_is_not_used_and_is_lost_to_a_write() {
        let gaps = Gaps::default();
        let watched = gaps.watch(b"d", b"m", 7).unwrap();
        assert_eq!((&watched.from[..], &watched.to[..]), (&b"d"[..], &b"m"[..]));
        assert_eq!(end_of(&gaps, b"e", 9), None);
        gaps.written(b"e");
        gaps.confirm(&watched);
        assert_eq!(end_of(&gaps, b"f", 9), None);
        let watched = gaps.watch(b"d", b"m", 7).unwrap();
        gaps.abandon(&watched);
        assert!(gaps.is_empty());
    }

    #[test]
    fn a_longer_gap_takes_in_the_known_one_and_looks_only_at_what_is_new() {
        let gaps = Gaps::default();
        leave(&gaps, b"d", b"m", 7);
        let watched = gaps.watch(b"e", b"p", 9).unwrap();
        assert_eq!((&watched.from[..], &watched.to[..]), (&b"m"[..], &b"p"[..]));
        gaps.confirm(&watched);
        assert_eq!(first_of(&gaps, b"o", 9).unwrap(), b"d");
        assert_eq!(end_of(&gaps, b"e", 8), None, "the older one is part of it");
        // Backwards as well.
        let watched = gaps.watch(b"a", b"e", 9).unwrap();
        assert_eq!((&watched.from[..], &watched.to[..]), (&b"a"[..], &b"d"[..]));
        gaps.confirm(&watched);
        assert_eq!(end_of(&gaps, b"a", 9).unwrap(), b"p");
        // What is known already is not watched again; a newer one is no proof for older readers.
        assert!(gaps.watch(b"b", b"c", 9).is_none());
        let watched = gaps.watch(b"a", b"z", 3).unwrap();
        assert_eq!((&watched.from[..], &watched.to[..]), (&b"a"[..], &b"z"[..]));
    }

    #[test]
    fn there_are_never_too_many_and_keys_are_never_too_long() {
        let gaps = Gaps::default();
        for i in 0..100_u8 {
            leave(&gaps, &[i, 0], &[i, 1], 5);
            assert!(gaps.list().gaps.len() <= GAPS_MAX);
        }
        let long = vec![b'x'; KEY_BYTES_MAX + 1];
        assert!(gaps.watch(b"a", &long, 5).is_none());
        assert!(gaps.watch(b"b", b"b", 5).is_none());
    }
}
