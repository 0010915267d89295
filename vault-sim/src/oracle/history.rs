//! Every version of every key of one keyspace, and what a reader may see of them.
//!
//! Most of the time there is one right answer. There are two reasons for several:
//! - The clock went back. An entry whose expiry had come at some time, and has not come now, is there or
//!   gone, depending on whether a flush or compaction came by while it had expired (`docs/adr/0012-wall-clock.md`).
//!   It is never an older value.
//! - A FIFO keyspace that is over its size drops its oldest data. Of each key, all that is older than some
//!   point may be gone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use vault_core::{KeyRange, MergeOperator, SequenceNumber, Timestamp};

/// The clock as it stands, and the latest time that it ever showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Now.
    pub now: Timestamp,
    /// The latest ever.
    pub latest: Timestamp,
}

/// What one operation does to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sets it.
    Put(Vec<u8>),
    /// Removes it.
    Delete,
    /// Merges an operand.
    Merge(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Version {
    sequence: SequenceNumber,
    effect: Effect,
    expiry: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct RangeDelete {
    sequence: SequenceNumber,
    start: Vec<u8>,
    end: Vec<u8>,
}

/// What a lookup may give.
pub type Answers = Vec<Option<Vec<u8>>>;

/// The whole history of a keyspace.
#[derive(Debug, Clone)]
pub struct History {
    operator: Option<Arc<dyn MergeOperator>>,
    /// Whether old data may be dropped at any time.
    lossy: bool,
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    range_deletes: Vec<RangeDelete>,
}

impl History {
    /// An empty one.
    #[must_use]
    pub const fn new(operator: Option<Arc<dyn MergeOperator>>, lossy: bool) -> Self {
        Self {
            operator,
            lossy,
            keys: BTreeMap::new(),
            range_deletes: Vec::new(),
        }
    }

    /// From now on old data may be dropped at any time.
    pub const fn may_lose(&mut self) {
        self.lossy = true;
    }

    /// Takes note of an operation on a key.
    pub fn record(
        &mut self,
        sequence: SequenceNumber,
        key: &[u8],
        effect: Effect,
        expiry: Option<Timestamp>,
    ) {
        self.keys.entry(key.to_vec()).or_default().push(Version {
            sequence,
            effect,
            expiry,
        });
    }

    /// Takes note of a range delete.
    pub fn record_range_delete(&mut self, sequence: SequenceNumber, start: &[u8], end: &[u8]) {
        let (start, end) = (start.to_vec(), end.to_vec());
        self.range_deletes.push(RangeDelete {
            sequence,
            start,
            end,
        });
    }

    /// Forgets what came after this: it has been lost.
    pub fn cut(&mut self, sequence: SequenceNumber) {
        self.range_deletes.retain(|one| one.sequence <= sequence);
        self.keys.retain(|_, versions| {
            versions.retain(|version| version.sequence <= sequence);
            !versions.is_empty()
        });
    }

    /// What a lookup may give, for a reader that sees everything up to `sequence`. Never empty.
    #[must_use]
    pub fn answers(&self, key: &[u8], sequence: SequenceNumber, times: Times) -> Answers {
        let versions = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        self.walk(key, versions, sequence, times)
    }

    /// The keys of a range with what a lookup of each may give, but for those that are surely absent.
    #[must_use]
    pub fn entries(
        &self,
        range: &KeyRange,
        sequence: SequenceNumber,
        times: Times,
    ) -> Vec<(&[u8], Answers)> {
        if range.is_empty() {
            return Vec::new();
        }
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (as_slice(&range.start), as_slice(&range.end));
        self.keys
            .range::<[u8], _>(bounds)
            .map(|(key, versions)| (&key[..], self.walk(key, versions, sequence, times)))
            .filter(|(_, answers)| answers.iter().any(Option::is_some))
            .collect()
    }

    /// Every text that an operation brought in: keys, values, operands, the ends of ranges.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.range_deletes.iter();
        let ends = ends.flat_map(|range| [&range.start[..], &range.end[..]]);
        let values = self.keys.values().flatten();
        let values = values.filter_map(|version| match &version.effect {
            Effect::Put(text) | Effect::Merge(text) => Some(&text[..]),
            Effect::Delete => None,
        });
        self.keys().chain(values).chain(ends)
    }

    /// Every key that was ever written.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.keys().map(Vec::as_slice)
    }

    /// Walks from the newest version a reader sees to the oldest, and notes each place at which the walk
    /// may have ended.
    fn walk(
        &self,
        key: &[u8],
        versions: &[Version],
        sequence: SequenceNumber,
        times: Times,
    ) -> Answers {
        let covers = |one: &&RangeDelete| {
            one.sequence <= sequence && one.start[..] <= *key && *key < one.end[..]
        };
        let deletes = self.range_deletes.iter().filter(covers);
        let hidden_below = deletes.map(|one| one.sequence).max().unwrap_or(0);
        let mut operands: Vec<&[u8]> = Vec::new();
        let mut answers = Answers::new();
        for version in versions.iter().rev() {
            if version.sequence > sequence {
                continue;
            }
            if version.sequence < hidden_below {
                break;
            }
            if self.lossy {
                // This and all that is older may be gone.
                self.end(key, None, &operands, &mut answers);
            }
            let has_come = |moment| version.expiry.is_some_and(|expiry| expiry <= moment);
            if has_come(times.now) {
                break;
            }
            if has_come(times.latest) {
                self.end(key, None, &operands, &mut answers);
            }
            match &version.effect {
                Effect::Put(value) => {
                    self.end(key, Some(value), &operands, &mut answers);
                    return answers;
                }
                Effect::Delete => break,
                Effect::Merge(operand) => operands.push(operand),
            }
        }
        self.end(key, None, &operands, &mut answers);
        answers
    }

    /// Notes what the walk gives if it ends here, over `base`.
    fn end(&self, key: &[u8], base: Option<&[u8]>, operands: &[&[u8]], answers: &mut Answers) {
        let answer = if operands.is_empty() {
            base.map(<[u8]>::to_vec)
        } else {
            let operator = self.operator.as_ref().expect("merges need an operator");
            let oldest_first: Vec<&[u8]> = operands.iter().rev().copied().collect();
            let merged = operator.merge(key, base, &oldest_first);
            Some(merged.expect("plans make operands that the operator takes"))
        };
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_core::merge::Append;

    fn at(now: u64, latest: u64) -> Times {
        Times {
            now: Timestamp(now),
            latest: Timestamp(latest),
        }
    }

    fn some(value: &str) -> Option<Vec<u8>> {
        Some(value.as_bytes().to_vec())
    }

    #[test]
    fn a_clock_that_went_back_allows_two_answers_and_no_older_value() {
        let mut history = History::new(None, false);
        history.record(1, b"k", Effect::Put(b"old".to_vec()), None);
        history.record(2, b"k", Effect::Put(b"new".to_vec()), Some(Timestamp(100)));
        assert_eq!(history.answers(b"k", 2, at(50, 50)), [some("new")]);
        assert_eq!(history.answers(b"k", 2, at(100, 100)), [None]);
        assert_eq!(history.answers(b"k", 2, at(50, 100)), [None, some("new")]);
        assert_eq!(history.answers(b"k", 1, at(100, 100)), [some("old")]);
    }

    #[test]
    fn operands_fold_over_what_is_below_them() {
        let mut history = History::new(Some(Arc::new(Append)), false);
        history.record(1, b"k", Effect::Put(b"a".to_vec()), None);
        history.record(2, b"k", Effect::Merge(b"b".to_vec()), Some(Timestamp(10)));
        history.record(3, b"k", Effect::Merge(b"c".to_vec()), None);
        assert_eq!(history.answers(b"k", 3, at(5, 5)), [some("abc")]);
        assert_eq!(history.answers(b"k", 3, at(10, 10)), [some("c")]);
        history.record_range_delete(4, b"a", b"l");
        history.record(5, b"k", Effect::Merge(b"d".to_vec()), None);
        assert_eq!(history.answers(b"k", 5, at(5, 5)), [some("d")]);
        assert_eq!(history.answers(b"k", 3, at(5, 5)), [some("abc")]);
        history.cut(4);
        assert_eq!(history.answers(b"k", 5, at(5, 5)), [None]);
        assert!(history.entries(&KeyRange::all(), 5, at(5, 5)).is_empty());
    }

    #[test]
    fn lossy_keyspaces_lose_from_the_old_end() {
        let mut history = History::new(None, true);
        history.record(1, b"k", Effect::Put(b"old".to_vec()), None);
        history.record(2, b"k", Effect::Put(b"new".to_vec()), None);
        assert_eq!(history.answers(b"k", 2, at(0, 0)), [None, some("new")]);
    }
}
