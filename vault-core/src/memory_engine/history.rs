//! The versions of one keyspace's keys: what is kept, and what a reader sees of it.
//!
//! # What is kept
//! Each key has the list of its versions, oldest first. A range delete is not kept as such: only one
//! writer is at work at a time, so deleting each key of the range that exists *now* is the same as
//! hiding every smaller sequence number in the range.
//!
//! A version is kept for as long as a reader can need it. It can do without where a newer version
//! *ends the search* (a put or a delete does, whatever the time; a merge operand never does, not even
//! with an expiry, for its expiry may still lie ahead) and no open view stands between the two.
//! Whatever only an open view keeps is remembered in `pinned_keys` and looked at again once a view
//! has closed.
//!
//! # What a reader sees
//! [`resolve`] is the one place that decides it. It walks from the newest version that the reader's
//! sequence number allows towards older ones:
//! - an expired version (`now >= expiry`) reads as a delete at its place: the walk ends;
//! - a put is the value below the operands found so far, a delete is the absence of one: the walk ends;
//! - a merge operand is put aside.
//!
//! The operands are then folded, oldest first, over what was found.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Operation, OperationKind};
use crate::clock::Timestamp;
use crate::engine::{EntryInfo, SequenceNumber};
use crate::error::{Error, Result, printable};
use crate::limits::VALUE_BYTES_CEILING;
use crate::merge::MergeOperator;
use crate::range::KeyRange;
use crate::slice::Slice;

/// The sequence numbers that open views read at, with how many views read at each.
pub(super) type Pins = BTreeMap<SequenceNumber, usize>;

/// One entry of a key's history.
#[derive(Debug)]
pub(super) struct Version {
    sequence: SequenceNumber,
    change: Change,
    expiry: Option<Timestamp>,
}

#[derive(Debug)]
enum Change {
    Put(Slice),
    Delete,
    Merge(Slice),
}

impl Version {
    /// Whether nothing older than this version can ever be visible to who sees this version.
    const fn ends_search(&self) -> bool {
        matches!(self.change, Change::Put(_) | Change::Delete)
    }

    fn value_bytes(&self) -> usize {
        match &self.change {
            Change::Put(value) | Change::Merge(value) => value.len(),
            Change::Delete => 0,
        }
    }
}

/// All versions of all keys of a keyspace.
#[derive(Debug, Default)]
pub(super) struct History {
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Keys with versions that only an open view keeps.
    pinned_keys: BTreeSet<Vec<u8>>,
    /// Bytes of keys and values, counting a key once for each of its versions.
    bytes: u64,
}

impl History {
    /// Applies one operation that has been checked.
    pub(super) fn apply(
        &mut self,
        operation: &Operation<'_>,
        sequence: SequenceNumber,
        pins: &Pins,
    ) {
        let change = match operation.kind {
            OperationKind::Put => Change::Put(Slice::from(operation.value)),
            OperationKind::Merge => Change::Merge(Slice::from(operation.value)),
            OperationKind::Delete => Change::Delete,
            OperationKind::RangeDelete => {
                return self.delete_range(operation.key, operation.value, sequence, pins);
            }
        };
        let version = Version {
            sequence,
            change,
            expiry: operation.expiry,
        };
        self.push(operation.key, version, pins);
    }

    /// The value of a key as a reader at `sequence` and `now` sees it.
    pub(super) fn get(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        now: Timestamp,
        operator: Option<&dyn MergeOperator>,
    ) -> Result<Option<Slice>> {
        self.keys.get(key).map_or(Ok(None), |versions| {
            resolve(key, versions, sequence, now, operator)
        })
    }

    /// What is known of the entry that [`History::get`] gives the value of.
    pub(super) fn entry_info(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        now: Timestamp,
        operator: Option<&dyn MergeOperator>,
    ) -> Result<Option<EntryInfo>> {
        let Some(versions) = self.keys.get(key) else {
            return Ok(None);
        };
        let found = resolve_entry(key, versions, sequence, now, operator)?;
        Ok(found.map(|(value, expiry)| EntryInfo {
            value_bytes: value.len() as u64,
            expiry,
        }))
    }

    /// The keys of a range with their versions, from either end.
    pub(super) fn range(
        &self,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Vec<Version>)> {
        // The standard library's map panics where the bounds are the wrong way round.
        let bounds = (!range.is_empty()).then(|| (range.start.clone(), range.end.clone()));
        bounds
            .into_iter()
            .flat_map(|bounds| self.keys.range::<Vec<u8>, _>(bounds))
    }

    /// Lets go of what only views that have closed since kept. Gives the number of versions freed.
    pub(super) fn release(&mut self, pins: &Pins) -> u64 {
        let before = self.version_count();
        for key in std::mem::take(&mut self.pinned_keys) {
            self.prune(&key, pins);
        }
        before - self.version_count()
    }

    /// Bytes of keys and values that are kept.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of versions that are kept.
    pub(super) fn version_count(&self) -> u64 {
        self.keys
            .values()
            .map(|versions| versions.len() as u64)
            .sum()
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8], sequence: SequenceNumber, pins: &Pins) {
        let range = KeyRange::from(start..end);
        let keys: Vec<Vec<u8>> = self.range(&range).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let version = Version {
                sequence,
                change: Change::Delete,
                expiry: None,
            };
            self.push(&key, version, pins);
        }
    }

    fn push(&mut self, key: &[u8], version: Version, pins: &Pins) {
        self.bytes += (key.len() + version.value_bytes()) as u64;
        match self.keys.get_mut(key) {
            Some(versions) => versions.push(version),
            None => {
                self.keys.insert(key.to_vec(), vec![version]);
            }
        }
        self.prune(key, pins);
    }

    /// Drops the versions of a key that no reader can need, and remembers the key where an open view
    /// is all that keeps some.
    fn prune(&mut self, key: &[u8], pins: &Pins) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        let mut kept = Vec::with_capacity(versions.len());
        let mut pinned = false;
        // The oldest version, among those newer than the one at hand, that ends the search.
        let mut ended_at: Option<SequenceNumber> = None;
        for version in versions.drain(..).rev() {
            let superseded = ended_at.is_some();
            let needed =
                ended_at.is_none_or(|end| pins.range(version.sequence..end).next().is_some());
            if version.ends_search() {
                ended_at = Some(version.sequence);
            }
            if needed {
                pinned |= superseded;
                kept.push(version);
            } else {
                self.bytes -= (key.len() + version.value_bytes()) as u64;
            }
        }
        // A delete with nothing under it says what absence says as well.
        if kept
            .last()
            .is_some_and(|oldest| matches!(oldest.change, Change::Delete))
        {
            kept.pop();
            self.bytes -= key.len() as u64;
        }
        kept.reverse();
        if kept.is_empty() {
            self.keys.remove(key);
        } else {
            *versions = kept;
        }
        if pinned {
            self.pinned_keys.insert(key.to_vec());
        } else {
            self.pinned_keys.remove(key);
        }
    }
}

/// What a reader at `sequence` and `now` sees of a key. See the [module](self).
pub(super) fn resolve(
    key: &[u8],
    versions: &[Version],
    sequence: SequenceNumber,
    now: Timestamp,
    operator: Option<&dyn MergeOperator>,
) -> Result<Option<Slice>> {
    Ok(resolve_entry(key, versions, sequence, now, operator)?.map(|(value, _)| value))
}

/// As [`resolve`], with the expiry of a value that nothing was merged into.
fn resolve_entry(
    key: &[u8],
    versions: &[Version],
    sequence: SequenceNumber,
    now: Timestamp,
    operator: Option<&dyn MergeOperator>,
) -> Result<Option<(Slice, Option<Timestamp>)>> {
    let seen = versions.partition_point(|version| version.sequence <= sequence);
    let mut operands: Vec<&[u8]> = Vec::new();
    let mut base = None;
    for version in versions[..seen].iter().rev() {
        if version.expiry.is_some_and(|expiry| now >= expiry) {
            break;
        }
        match &version.change {
            Change::Put(value) => {
                base = Some((value, version.expiry));
                break;
            }
            Change::Delete => break,
            Change::Merge(operand) => operands.push(operand),
        }
    }
    if operands.is_empty() {
        return Ok(base.map(|(value, expiry)| (value.clone(), expiry)));
    }
    operands.reverse();
    let operator =
        operator.expect("operands are accepted only in a keyspace with a merge operator");
    let failed = |problem| Error::MergeFailed {
        operator: operator.name().to_owned(),
        key: printable(key),
        problem,
    };
    let merged = operator
        .merge(key, base.map(|(value, _)| &value[..]), &operands)
        .map_err(failed)?;
    if merged.len() > VALUE_BYTES_CEILING {
        let problem = format!(
            "the result has {} bytes, more than the {VALUE_BYTES_CEILING} of the longest value",
            merged.len()
        );
        return Err(failed(problem));
    }
    Ok(Some((Slice::from(merged), None)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::KeyspaceId;

    fn operation(kind: OperationKind, value: &'static [u8]) -> Operation<'static> {
        Operation {
            kind,
            keyspace: KeyspaceId(1),
            key: b"k",
            value,
            expiry: None,
        }
    }

    #[test]
    fn only_what_a_view_can_see_is_kept() {
        let mut history = History::default();
        let pins = Pins::from([(2, 1), (5, 2)]);
        for sequence in 1..=100 {
            history.apply(&operation(OperationKind::Put, b"v"), sequence, &pins);
        }
        // The versions at 2 and 5, and the newest.
        assert_eq!(history.version_count(), 3);
        assert_eq!(history.release(&Pins::from([(5, 1)])), 1);
        assert_eq!(history.release(&Pins::new()), 1);
        assert_eq!(history.bytes(), 2);
        history.apply(&operation(OperationKind::Delete, b""), 101, &Pins::new());
        assert_eq!((history.version_count(), history.bytes()), (0, 0));
    }

    #[test]
    fn operands_are_kept_down_to_what_ends_the_search() {
        let mut history = History::default();
        let none = Pins::new();
        history.apply(&operation(OperationKind::Put, b"a"), 1, &none);
        history.apply(&operation(OperationKind::Put, b"b"), 2, &none);
        history.apply(&operation(OperationKind::Merge, b"c"), 3, &none);
        history.apply(&operation(OperationKind::Merge, b"d"), 4, &none);
        assert_eq!(history.version_count(), 3);
        let value = history
            .get(b"k", 4, Timestamp(0), Some(&crate::merge::Append))
            .unwrap();
        assert_eq!(value.as_deref(), Some(&b"bcd"[..]));
    }
}
