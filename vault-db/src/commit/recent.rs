//! What was written to a vault while transactions are open.

use std::collections::BTreeMap;

use vault_core::{KeyRange, SequenceNumber};

/// Keys of a stripe that are remembered one by one. Beyond this, every key counts as written.
const KEYS_MAX: usize = 4096;
/// Bytes of keys of a stripe that are remembered. Beyond this, every key counts as written: 8 MiB for all stripes of a vault.
const KEY_BYTES_MAX: usize = 128 << 10;
/// Keys before those that no transaction has to know of are first looked for.
const FORGET_AT: usize = 64;
/// Bytes of keys before that.
const FORGET_AT_BYTES: usize = 8 << 10;
/// Commits before that, however few keys they write.
const FORGET_AT_NOTES: usize = 4096;

/// The keys of a stripe that were written while some transaction was open, each with its last commit. What a transaction
/// has read is still so, if nothing here that it covers is newer than the transaction's moment.
///
/// (Kung and Robinson: "On optimistic methods for concurrency control", 1981: backward validation.)
#[derive(Debug)]
pub(crate) struct Recent {
    keys: BTreeMap<Box<[u8]>, SequenceNumber>,
    /// Bytes of `keys`.
    bytes: usize,
    /// The last commit that may have changed any key.
    everything: SequenceNumber,
    /// Keys at which it is time to look which can be forgotten.
    forget_at: usize,
    /// Bytes of keys at which it is.
    forget_at_bytes: usize,
    /// Commits noted since the last look.
    notes: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            bytes: 0,
            everything: 0,
            forget_at: FORGET_AT,
            forget_at_bytes: FORGET_AT_BYTES,
            notes: 0,
        }
    }
}

impl Recent {
    /// Takes note of a commit that wrote `key`.
    pub(crate) fn note(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.notes += 1;
        if let Some(last) = self.keys.get_mut(key) {
            *last = sequence;
            return;
        }
        if self.keys.len() >= KEYS_MAX || self.bytes + key.len() > KEY_BYTES_MAX {
            self.note_everything(sequence);
            return;
        }
        self.bytes += key.len();
        self.keys.insert(Box::from(key), sequence);
    }

    /// Takes note of a commit that may have changed any key.
    pub(crate) fn note_everything(&mut self, sequence: SequenceNumber) {
        self.everything = sequence;
        self.keys.clear();
        self.bytes = 0;
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
    /// that looking costs each of them little; or many commits, that wrote the same few.
    pub(crate) fn is_due(&self) -> bool {
        self.keys.len() >= self.forget_at
            || self.bytes >= self.forget_at_bytes
            || self.notes >= FORGET_AT_NOTES
    }

    /// Forgets what no transaction that began at `oldest` or later has to know of.
    pub(crate) fn forget_before(&mut self, oldest: SequenceNumber) {
        let mut bytes = 0;
        self.keys.retain(|key, &mut last| {
            let stays = last > oldest;
            bytes += if stays { key.len() } else { 0 };
            stays
        });
        self.bytes = bytes;
        self.forget_at = (self.keys.len() * 2).max(FORGET_AT);
        self.forget_at_bytes = (bytes * 2).max(FORGET_AT_BYTES);
        self.notes = 0;
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

    #[test]
    fn keys_that_are_too_long_count_as_all() {
        let mut recent = Recent::default();
        let long = |n: u64| [&n.to_be_bytes()[..], &[b'k'; 1016]].concat();
        let fit = (KEY_BYTES_MAX / 1024) as u64;
        for n in 0..fit {
            recent.note(&long(n), n + 1);
            let bytes: usize = recent.keys.keys().map(|key| key.len()).sum();
            assert_eq!(recent.bytes, bytes);
            assert!(recent.bytes <= KEY_BYTES_MAX);
        }
        assert!(recent.is_due() && !recent.is_changed(b"never written", 0));
        // Room comes back with what is forgotten.
        recent.forget_before(fit - 2);
        assert_eq!((recent.keys.len(), recent.bytes), (2, 2048));
        assert!(!recent.is_due());
        for n in 0..2 * fit {
            recent.note(&long(n), fit + n + 1);
            assert!(recent.bytes <= KEY_BYTES_MAX);
        }
        assert!(recent.is_changed(b"never written", fit));
        recent.note(&vec![b'k'; KEY_BYTES_MAX + 1], 10 * fit);
        assert_eq!((recent.keys.len(), recent.bytes), (0, 0));
        assert!(recent.is_changed(b"never written", 10 * fit - 1));
    }

    #[test]
    fn many_commits_of_one_key_are_a_reason_to_look() {
        let mut recent = Recent::default();
        for n in 0..FORGET_AT_NOTES as u64 {
            assert!(!recent.is_due());
            recent.note(b"k", n + 1);
        }
        assert!(recent.is_due());
        recent.forget_before(0);
        assert!(!recent.is_due() && recent.is_changed(b"k", 0));
    }
}
