//! What a reader may see: the one place that decides.
//!
//! The versions of a key are offered newest first. A reader at sequence number *s* sees what the newest
//! version up to *s* says:
//! - a version under a range tombstone (newer than it, not newer than *s*) reads as deleted;
//! - a version whose expiry has come reads as deleted, whatever the reader's sequence number: time is
//!   not part of a snapshot;
//! - a put is the value; a delete is its absence;
//! - a merge operand is kept, and the next older version asked, until one of the above is met; then the
//!   operands are folded over it, oldest first.

use std::ops::ControlFlow;

use vault_core::batch::OperationKind;
use vault_core::error::printable;
use vault_core::limits::VALUE_BYTES_CEILING;
use vault_core::{
    Clock, EntryInfo, Error, MergeOperator, Result, SequenceNumber, Slice, Timestamp,
};

use crate::blob::Pointer;
use crate::internal_key::{is_apart, kind_of, sequence_of, split_expiry};

/// Takes the versions of one key, newest first, and finds what the reader sees.
pub(crate) struct Resolver<'a> {
    key: &'a [u8],
    snapshot: SequenceNumber,
    clock: &'a dyn Clock,
    /// The newest range tombstone over the key that the reader sees; 0: none.
    hidden_below: SequenceNumber,
    operator: Option<&'a dyn MergeOperator>,
    /// Newest first.
    operands: Vec<Slice>,
    /// How many operands are gathered before they are combined.
    operands_max: usize,
    outcome: Outcome,
    /// Expiry of the value that the outcome is.
    expiry: Option<Timestamp>,
}

/// Operands that are held one by one. A counter may have a million that no flush has folded yet: beyond
/// this they are combined as they come, where the operator can.
const OPERANDS_MAX: usize = 1024;

enum Outcome {
    /// More versions are needed.
    Open,
    Absent,
    Value(Slice),
    /// A value that is kept apart.
    Apart(Pointer),
}

/// What stands in memory or on disk is no entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Malformed;

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        key: &'a [u8],
        snapshot: SequenceNumber,
        clock: &'a dyn Clock,
        operator: Option<&'a dyn MergeOperator>,
    ) -> Self {
        Self {
            key,
            snapshot,
            clock,
            hidden_below: 0,
            operator,
            operands: Vec::new(),
            operands_max: OPERANDS_MAX,
            outcome: Outcome::Open,
            expiry: None,
        }
    }

    /// Takes note of a range tombstone over the key. To be called before older versions are offered.
    pub(crate) fn hide_below(&mut self, sequence: SequenceNumber) {
        self.hidden_below = self.hidden_below.max(sequence);
    }

    /// Whether nothing older can change the outcome. Once a range tombstone has been met, whatever
    /// stands in older memtables and tables is under it.
    pub(crate) fn is_decided(&self) -> bool {
        self.hidden_below > 0 || !matches!(self.outcome, Outcome::Open)
    }

    /// Takes the next older version. `value` makes its stored value, where it is needed.
    #[inline]
    pub(crate) fn offer(
        &mut self,
        trailer: u64,
        stored: &[u8],
        value: impl FnOnce(usize) -> Slice,
    ) -> Result<ControlFlow<()>, Malformed> {
        let sequence = sequence_of(trailer);
        if sequence > self.snapshot {
            return Ok(ControlFlow::Continue(()));
        }
        let (expiry, user_value) = split_expiry(trailer, stored).ok_or(Malformed)?;
        let gone =
            sequence < self.hidden_below || expiry.is_some_and(|expiry| expiry <= self.clock.now());
        let skipped = stored.len() - user_value.len();
        self.expiry = expiry;
        self.outcome = match kind_of(trailer).ok_or(Malformed)? {
            _ if gone => Outcome::Absent,
            OperationKind::Put if is_apart(trailer) => {
                Outcome::Apart(Pointer::decode(user_value).ok_or(Malformed)?)
            }
            OperationKind::Put => Outcome::Value(value(skipped)),
            OperationKind::Delete => Outcome::Absent,
            OperationKind::Merge => {
                self.operands.push(value(skipped));
                if self.operands.len() >= self.operands_max {
                    self.combine_operands();
                }
                return Ok(ControlFlow::Continue(()));
            }
            OperationKind::RangeDelete => return Err(Malformed),
        };
        Ok(ControlFlow::Break(()))
    }

    #[cold]
    fn combine_operands(&mut self) {
        let oldest_first = self.operands.iter().rev().map(|operand| &operand[..]);
        let operator = self.operator;
        match operator.and_then(|operator| combine_all(self.key, oldest_first, operator)) {
            Some(combined) => self.operands = vec![Slice::from(combined)],
            // It can't be done: no more is tried.
            None => self.operands_max = usize::MAX,
        }
    }

    /// What is known of the entry that the reader sees, without reading its value. `None` where operands are to be folded
    /// first.
    pub(crate) fn entry_info(&self) -> Option<Option<EntryInfo>> {
        if !self.operands.is_empty() {
            return None;
        }
        let value_bytes = match &self.outcome {
            Outcome::Value(value) => value.len() as u64,
            Outcome::Apart(pointer) => u64::from(pointer.raw),
            Outcome::Absent | Outcome::Open => return Some(None),
        };
        Some(Some(EntryInfo {
            value_bytes,
            expiry: self.expiry,
        }))
    }

    /// What the reader sees. A value that is kept apart is read by `apart`, and no other is.
    pub(crate) fn finish(
        self,
        apart: impl FnOnce(&Pointer) -> Result<Slice>,
    ) -> Result<Option<Slice>> {
        let operator = self.operator;
        let base = match self.outcome {
            Outcome::Value(value) => Some(value),
            Outcome::Apart(pointer) => Some(apart(&pointer)?),
            Outcome::Absent | Outcome::Open => None,
        };
        if self.operands.is_empty() {
            return Ok(base);
        }
        fold(
            self.key,
            base.as_deref(),
            self.operands.iter().rev().map(|o| &o[..]),
            operator,
        )
        .map(|folded| Some(Slice::from(folded)))
    }
}

/// Folds operands, oldest first, over a value.
pub(crate) fn fold<'a>(
    key: &[u8],
    base: Option<&[u8]>,
    operands: impl Iterator<Item = &'a [u8]>,
    operator: Option<&dyn MergeOperator>,
) -> Result<Vec<u8>> {
    let failed = |operator: &str, problem: String| Error::MergeFailed {
        operator: operator.to_owned(),
        key: printable(key),
        problem,
    };
    let Some(operator) = operator else {
        return Err(failed(
            "(none)",
            "the keyspace has no merge operator".to_owned(),
        ));
    };
    let operands: Vec<&[u8]> = operands.collect();
    let folded = guarded(|| operator.merge(key, base, &operands))
        .map_err(|problem| failed(operator.name(), problem))?;
    if folded.len() > VALUE_BYTES_CEILING {
        let problem = format!(
            "the result of {} bytes is over {VALUE_BYTES_CEILING}",
            folded.len()
        );
        return Err(failed(operator.name(), problem));
    }
    Ok(folded)
}

/// Combines operands, oldest first, into one; `None` where the operator cannot. Neighbours are combined with
/// neighbours, and the outcomes again, so that long operands are not copied for each one that follows.
pub(crate) fn combine_all<'a>(
    key: &[u8],
    operands: impl Iterator<Item = &'a [u8]>,
    operator: &dyn MergeOperator,
) -> Option<Vec<u8>> {
    let combine = |older: &[u8], newer: &[u8]| {
        let combined = guarded(|| Ok(operator.combine(key, older, newer)));
        combined.ok().flatten()
    };
    // Each with the number of operands in it: those of equal weight are combined.
    let mut combined: Vec<(u64, Vec<u8>)> = Vec::new();
    for operand in operands {
        let mut newer = (1, operand.to_vec());
        while let Some((_, older)) = combined.pop_if(|older| older.0 <= newer.0) {
            newer = (2 * newer.0, combine(&older, &newer.1)?);
        }
        combined.push(newer);
    }
    let (_, mut all) = combined.pop()?;
    while let Some((_, older)) = combined.pop() {
        all = combine(&older, &all)?;
    }
    Some(all)
}

/// Calls a merge operator, which is the caller's code: should it panic, that is an error of this merge,
/// not the end of the thread that happened to fold (a background thread, perhaps).
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err("the operator panicked".to_owned()))
}
