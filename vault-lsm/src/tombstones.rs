//! Range tombstones cut into fragments, so that one binary search tells what covers a key.
//!
//! Fragments do not overlap, are in order, and each has the sequence numbers of all tombstones that
//! cover it, newest first. Between fragments nothing is deleted.
//!
//! Cutting `n` tombstones that overlap everywhere could give `n²` sequence numbers. Where a fragment
//! has what the one before it had, less the newest or the oldest few, the two share their memory: so
//! `n` deletions of everything up to a growing key (a queue that is drained) take memory for `n`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use vault_core::SequenceNumber;

use crate::internal_key::RangeTombstone;

/// Non-overlapping pieces of range tombstones.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    fragments: Vec<Fragment>,
    sequences: Vec<SequenceNumber>,
}

#[derive(Debug)]
struct Fragment {
    start: Box<[u8]>,
    end: Box<[u8]>,
    /// Which of the `sequences`, in descending order, are this fragment's. Never empty.
    sequences: Range<usize>,
}

/// Where the set of covering tombstones changes: a key, tombstones that end there, ones that begin.
#[derive(Default)]
struct Boundary {
    ending: Vec<SequenceNumber>,
    beginning: Vec<SequenceNumber>,
}

impl Fragments {
    /// Cuts range tombstones into fragments. Empty ranges are left out.
    pub(crate) fn build(tombstones: impl IntoIterator<Item = RangeTombstone>) -> Self {
        Self::build_without(tombstones, |_, _| false)
    }

    /// As [`Fragments::build`], but where several cover a place, an older one is left out if `redundant`
    /// says so of it and a newer one: `redundant(older, newer)`.
    pub(crate) fn build_without(
        tombstones: impl IntoIterator<Item = RangeTombstone>,
        redundant: impl Fn(SequenceNumber, SequenceNumber) -> bool,
    ) -> Self {
        let mut boundaries: BTreeMap<Vec<u8>, Boundary> = BTreeMap::new();
        for RangeTombstone {
            start,
            end,
            sequence,
        } in tombstones
        {
            if start < end {
                boundaries
                    .entry(start)
                    .or_default()
                    .beginning
                    .push(sequence);
                boundaries.entry(end).or_default().ending.push(sequence);
            }
        }

        let mut built = Self::default();
        // How many tombstones with which sequence number cover the place between two boundaries.
        let mut active: BTreeMap<Reverse<SequenceNumber>, usize> = BTreeMap::new();
        let mut current = 0..0;
        let mut boundaries = boundaries.into_iter().peekable();
        while let Some((start, boundary)) = boundaries.next() {
            current = built.cross(boundary, &mut active, current, &redundant);
            if let Some((end, _)) = boundaries.peek()
                && !current.is_empty()
            {
                built.add(start, end.clone(), current.clone());
            }
        }
        built
    }

    /// Brings the set of covering tombstones across a boundary. Returns where the sequence numbers
    /// that hold behind it are; `before` is where those in front of it are.
    fn cross(
        &mut self,
        boundary: Boundary,
        active: &mut BTreeMap<Reverse<SequenceNumber>, usize>,
        before: Range<usize>,
        redundant: &impl Fn(SequenceNumber, SequenceNumber) -> bool,
    ) -> Range<usize> {
        let mut joined = false;
        for sequence in boundary.beginning {
            let covers = active.entry(Reverse(sequence)).or_insert(0);
            joined |= *covers == 0;
            *covers += 1;
        }
        for sequence in boundary.ending {
            if let Some(covers) = active.get_mut(&Reverse(sequence)) {
                *covers -= 1;
                if *covers == 0 {
                    active.remove(&Reverse(sequence));
                }
            }
        }
        let (Some((newest, _)), Some((oldest, _))) =
            (active.first_key_value(), active.last_key_value())
        else {
            return 0..0;
        };
        if !joined {
            // Some of those before, perhaps all: if they are neighbours there, share them.
            let those = &self.sequences[before.clone()];
            let from = those.partition_point(|s| *s > newest.0);
            let to = those.partition_point(|s| *s >= oldest.0);
            // (Not if some were left out there as redundant to one that has ended.)
            if those[from..to]
                .iter()
                .eq(active.keys().map(|sequence| &sequence.0))
            {
                return before.start + from..before.start + to;
            }
        }
        let from = self.sequences.len();
        for &Reverse(sequence) in active.keys() {
            let newer = self.sequences.get(from..).and_then(<[_]>::last);
            if newer.is_none_or(|&newer| !redundant(sequence, newer)) {
                self.sequences.push(sequence);
            }
        }
        from..self.sequences.len()
    }

    /// Adds a fragment, or extends the last one if it ends where this one begins and is covered alike.
    fn add(&mut self, start: Vec<u8>, end: Vec<u8>, sequences: Range<usize>) {
        if let Some(last) = self.fragments.last_mut()
            && *last.end == *start
            && self.sequences[last.sequences.clone()] == self.sequences[sequences.clone()]
        {
            last.end = end.into();
            return;
        }
        self.fragments.push(Fragment {
            start: start.into(),
            end: end.into(),
            sequences,
        });
    }

    /// Whether nothing is deleted.
    pub(crate) fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// The greatest sequence number, of those up to `at_most`, of a tombstone that covers `key`.
    #[inline]
    pub(crate) fn covering(&self, key: &[u8], at_most: SequenceNumber) -> Option<SequenceNumber> {
        let sequences = self.covering_all(key);
        let newer = sequences.partition_point(|&sequence| sequence > at_most);
        sequences.get(newer).copied()
    }

    /// As [`Fragments::covering`], with the stretch of keys for which that holds: its start, and its end, which is not part of it.
    pub(crate) fn covering_stretch(
        &self,
        key: &[u8],
        at_most: SequenceNumber,
    ) -> Option<(SequenceNumber, &[u8], &[u8])> {
        let (start, end, sequences) = self.fragment_at_or_after(key)?;
        let newer = sequences.partition_point(|&sequence| sequence > at_most);
        let sequence = sequences.get(newer).filter(|_| start <= key)?;
        Some((*sequence, start, end))
    }

    /// The sequence numbers of all tombstones that cover `key`, newest first.
    #[inline]
    pub(crate) fn covering_all<'a>(&'a self, key: &[u8]) -> &'a [SequenceNumber] {
        match self.fragment_at_or_after(key) {
            Some((start, _, sequences)) if start <= key => sequences,
            _ => &[],
        }
    }

    /// The first fragment that ends behind `key`: the one that covers it, or else the next one. Its
    /// start, its end and the sequence numbers, newest first.
    #[inline]
    pub(crate) fn fragment_at_or_after(
        &self,
        key: &[u8],
    ) -> Option<(&[u8], &[u8], &[SequenceNumber])> {
        let index = self
            .fragments
            .partition_point(|fragment| *fragment.end <= *key);
        self.fragments
            .get(index)
            .map(|fragment| self.parts(fragment))
    }

    /// All fragments in order: start, end, and the sequence numbers, newest first.
    #[cfg(test)]
    pub(crate) fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = (&[u8], &[u8], &[SequenceNumber])> + ExactSizeIterator
    {
        self.fragments.iter().map(|fragment| self.parts(fragment))
    }

    fn parts<'a>(&'a self, fragment: &'a Fragment) -> (&'a [u8], &'a [u8], &'a [SequenceNumber]) {
        let sequences = &self.sequences[fragment.sequences.clone()];
        (&fragment.start, &fragment.end, sequences)
    }

    /// The tombstones restricted to `[from, to)`, by start, then newest first. A tombstone that had
    /// been cut into fragments side by side is whole again; overlapping or adjacent ones with the
    /// same sequence number become one.
    pub(crate) fn clip(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> Vec<RangeTombstone> {
        let mut clipped: Vec<RangeTombstone> = Vec::new();
        // Where the latest piece with a sequence number is.
        let mut latest: BTreeMap<SequenceNumber, usize> = BTreeMap::new();
        let first = from.map_or(0, |from| {
            self.fragments
                .partition_point(|fragment| *fragment.end <= *from)
        });
        for fragment in &self.fragments[first..] {
            let start = from.map_or(&*fragment.start, |from| from.max(&fragment.start));
            let end = to.map_or(&*fragment.end, |to| to.min(&fragment.end));
            if start >= end {
                break;
            }
            for &sequence in &self.sequences[fragment.sequences.clone()] {
                if let Some(&index) = latest.get(&sequence)
                    && clipped[index].end == start
                {
                    clipped[index].end = end.to_vec();
                    continue;
                }
                latest.insert(sequence, clipped.len());
                clipped.push(RangeTombstone {
                    start: start.to_vec(),
                    end: end.to_vec(),
                    sequence,
                });
            }
        }
        clipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of repeatable numbers (xorshift).
    fn random(state: &mut u64, bound: u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % bound
    }

    fn tombstone(start: &[u8], end: &[u8], sequence: u64) -> RangeTombstone {
        RangeTombstone {
            start: start.to_vec(),
            end: end.to_vec(),
            sequence,
        }
    }

    fn naive(list: &[RangeTombstone], key: &[u8]) -> Vec<u64> {
        let covers = |t: &&RangeTombstone| *t.start <= *key && *key < *t.end;
        let mut sequences: Vec<u64> = list.iter().filter(covers).map(|t| t.sequence).collect();
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        sequences.dedup();
        sequences
    }

    fn keys() -> Vec<Vec<u8>> {
        let mut keys = vec![vec![]];
        for a in 0..12_u8 {
            keys.push(vec![a]);
            keys.push(vec![a, 0]);
            keys.push(vec![a, 0xff]);
        }
        keys
    }

    fn check(list: &[RangeTombstone]) {
        let keys = keys();
        let fragments = Fragments::build(list.to_vec());
        let parts: Vec<_> = fragments.iter().collect();
        for pair in parts.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "in order, without overlap");
        }
        for &(start, end, sequences) in &parts {
            assert!(start < end && !sequences.is_empty());
            assert!(sequences.is_sorted_by(|a, b| a > b));
        }
        assert_eq!(fragments.is_empty(), parts.is_empty());
        for key in &keys {
            let expected = naive(list, key);
            assert_eq!(fragments.covering_all(key), expected, "{key:?} in {list:?}");
            for at_most in [0, 3, 10, u64::MAX] {
                let newest = expected.iter().copied().find(|&s| s <= at_most);
                assert_eq!(fragments.covering(key, at_most), newest);
                let stretch = fragments.covering_stretch(key, at_most);
                assert_eq!(stretch.map(|found| found.0), newest);
                assert!(stretch.is_none_or(|(_, start, end)| start <= &key[..] && &key[..] < end));
            }
            let next = parts.iter().find(|part| part.1 > &key[..]).copied();
            assert_eq!(fragments.fragment_at_or_after(key), next);
        }
    }

    fn random_list(state: &mut u64) -> Vec<RangeTombstone> {
        let keys = keys();
        (0..random(state, 12))
            .map(|_| {
                let start = &keys[random(state, keys.len() as u64) as usize];
                let end = &keys[random(state, keys.len() as u64) as usize];
                // Few sequence numbers, so that some come twice.
                tombstone(start, end, random(state, 20))
            })
            .collect()
    }

    /// A fragment shared the sequence numbers of the one before, of which one had been left out as
    /// redundant to another that then ended: what it covered came back. Found by the random histories.
    #[test]
    fn what_was_redundant_counts_again_where_the_newer_ends() {
        let tombstone = |start: &[u8], end: &[u8], sequence| RangeTombstone {
            start: start.to_vec(),
            end: end.to_vec(),
            sequence,
        };
        let list = [
            tombstone(b"a", b"m", 9),
            tombstone(b"a", b"z", 8),
            tombstone(b"a", b"m", 5),
            tombstone(b"a", b"z", 3),
        ];
        // 8 and 9 are seen together or not at all; so are 3 and 5, but not 5 and 8.
        let same = |a: u64, b: u64| (a > 6) == (b > 6);
        let fragments = Fragments::build_without(list, same);
        assert_eq!(fragments.covering_all(b"b"), [9, 5]);
        assert_eq!(fragments.covering_all(b"p"), [8, 3]);
    }

    #[test]
    fn fragments_agree_with_a_list() {
        let mut state = 77;
        check(&[]);
        for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
            check(&random_list(&mut state));
        }
    }

    #[test]
    fn clipped_tombstones_cover_the_same_within_and_nothing_outside() {
        let mut state = 78;
        let keys = keys();
        for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
            let list = random_list(&mut state);
            let mut bound = || {
                let at = random(&mut state, keys.len() as u64 + 1) as usize;
                keys.get(at).map(|key| &key[..])
            };
            let (from, to) = (bound(), bound());
            let clipped = Fragments::build(list.clone()).clip(from, to);
            assert!(clipped.len() <= list.len());
            assert!(clipped.iter().all(|t| t.start < t.end));
            for key in &keys {
                let inside =
                    from.is_none_or(|from| from <= &key[..]) && to.is_none_or(|to| &key[..] < to);
                let expected = if inside {
                    naive(&list, key)
                } else {
                    Vec::new()
                };
                assert_eq!(naive(&clipped, key), expected);
            }
        }
    }

    #[test]
    fn draining_a_queue_takes_memory_for_each_tombstone_once() {
        let list: Vec<_> = (1..=3000_u64)
            .map(|i| tombstone(&[], &i.to_be_bytes(), i))
            .collect();
        let fragments = Fragments::build(list.clone());
        assert_eq!(fragments.iter().len(), 3000);
        assert_eq!(fragments.sequences.len(), 3000);
        assert_eq!(fragments.covering_all(&2990_u64.to_be_bytes()).len(), 10);
        assert_eq!(fragments.clip(None, None).len(), 3000);
    }
}
