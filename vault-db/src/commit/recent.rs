//! What was written to a vault while transactions are open.

use std::collections::BTreeMap;

use vault_core::{KeyRange, SequenceNumber};

/// Keys of a stripe that are remembered one by one. Beyond this, every key counts as written.
const KEYS_MAX: usize = 4096;
/// Keys before those that no transaction has to know of are first looked for.
const FORGET_AT: usize = 64;

/// The keys of a stripe that were written while some transaction was open, each with its last commit. What a transaction
/// has read is still so, if nothing here that it covers is newer than the transaction's moment.
///
/// (Kung and Robinson: "On optimistic methods for concurrency control", 1981: backward validation.)
#[derive(Debug)]
pub(crate) struct Recent {
    keys: BTreeMap<Box<[u8]>, SequenceNumber>,
    /// The last commit that may have changed any key.
    everything: SequenceNumber,
    /// Keys at which it is time to look which can be forgotten.
    forget_at: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            everything: 0,
            forget_at: FORGET_AT,
        }
    }
}

impl Recent {
    /// Takes note of a commit that wrote `key`.
    pub(crate) fn note(&mut self, key: &[u8], sequence: SequenceNumber) {
        if let Some(last) = self.keys.get_mut(key) {
            *last = sequence;
            return;
        }
        if self.keys.len() >= KEYS_MAX {
            self.note_everything(sequence);
            return;
        }
        self.keys.insert(Box::from(key), sequence);
    }

    /// Takes note of a commit that may have changed any key.
    pub(crate) fn note_everything(&mut self, sequence: SequenceNumber) {
        self.everything = sequence;
        self.keys.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.everything == 0 && self.keys.is_empty()
    }

    /// Whether a key was written after `moment`.
    pub(crate) fn is_changed(&self, key: &[u8], moment: SequenceNumber) -> bool {
        self.everything > moment || self.keys.get(key).is_some_and(|&last| last > moment)
    }

    /// Whether any key of a range was written after `moment`.
    pub(crate) fn is_range_changed(&self, range: &KeyRange, moment: SequenceNumber) -> bool {
        if self.everything > moment {
            return true;
        }
        if range.is_empty() {
            return false;
        }
        let bounds = (as_slice(&range.start), as_slice(&range.end));
        self.keys
            .range::<[u8], _>(bounds)
            .any(|(_, &last)| last > moment)
    }

    /// Whether it is time to look which keys can be forgotten. Twice as many must have come as stayed the last time, so
    /// that looking costs each of them little.
    pub(crate) fn is_due(&self) -> bool {
        self.keys.len() >= self.forget_at
    }

    /// Forgets what no transaction that began at `oldest` or later has to know of.
    pub(crate) fn forget_before(&mut self, oldest: SequenceNumber) {
        self.keys.retain(|_, &mut last| last > oldest);
        self.forget_at = (self.keys.len() * 2).max(FORGET_AT);
    }
}

fn as_slice(bound: &std::ops::Bound<Vec<u8>>) -> std::ops::Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_newer_counts() {
        let mut recent = Recent::default();
        assert!(recent.is_empty());
        recent.note(b"b", 5);
        assert!(recent.is_changed(b"b", 4) && !recent.is_changed(b"b", 5));
        assert!(!recent.is_changed(b"a", 0));
        let range = |start: &[u8], end: &[u8]| KeyRange::from(start..end);
        assert!(recent.is_range_changed(&range(b"a", b"c"), 4));
        assert!(!recent.is_range_changed(&range(b"a", b"b"), 4));
        assert!(!recent.is_range_changed(&range(b"c", b"a"), 4));
        recent.note_everything(9);
        assert!(recent.is_changed(b"a", 8) && !recent.is_changed(b"a", 9));
        recent.note(b"z", 12);
        recent.forget_before(12);
        assert_eq!(recent.keys.len(), 0);
    }

    #[test]
    fn too_many_keys_count_as_all() {
        let mut recent = Recent::default();
        for n in 0..=KEYS_MAX as u64 {
            recent.note(&n.to_be_bytes(), n + 1);
        }
        assert_eq!(recent.keys.len(), 0);
        assert!(recent.is_changed(b"never written", 1));
    }
}
