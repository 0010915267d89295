//! What the entries of a table add up to: what becomes its meta.

use std::collections::BTreeMap;

use vault_core::Timestamp;
use vault_core::batch::OperationKind;
use vault_core::transform::Salt;

use super::TableMeta;
use crate::blob::{BlobUse, pointer_of};
use crate::internal_key::{RangeTombstone, has_expiry, kind_of, sequence_of, split_expiry};

/// What becomes the table's meta.
pub(super) struct Totals {
    number: u64,
    salt: Salt,
    created: Timestamp,
    first_key: Option<Vec<u8>>,
    pub(super) entries: u64,
    deletes: u64,
    raw_bytes: u64,
    expiring: u64,
    expiry_max: Timestamp,
    sequence_min: u64,
    sequence_max: u64,
    /// Entries that point into each blob file, and the bytes that they point to.
    blobs: BTreeMap<u64, (u64, u64)>,
}

impl Totals {
    pub(super) fn new(number: u64, salt: Salt, created: Timestamp) -> Self {
        Self {
            number,
            salt,
            created,
            first_key: None,
            entries: 0,
            deletes: 0,
            raw_bytes: 0,
            expiring: 0,
            expiry_max: Timestamp(0),
            sequence_min: u64::MAX,
            sequence_max: 0,
            blobs: BTreeMap::new(),
        }
    }

    /// Counts an entry; `None` if it cannot be one.
    pub(super) fn add(&mut self, key: &[u8], trailer: u64, stored_value: &[u8]) -> Option<()> {
        match kind_of(trailer)? {
            OperationKind::RangeDelete => return None,
            OperationKind::Delete => self.deletes += 1,
            OperationKind::Put | OperationKind::Merge => {}
        }
        if has_expiry(trailer) {
            let (expiry, _) = split_expiry(trailer, stored_value)?;
            self.expiry_max = self.expiry_max.max(expiry?);
            self.expiring += 1;
        }
        if let Some(pointer) = pointer_of(trailer, stored_value) {
            let pointer = pointer?;
            let (values, bytes) = self.blobs.entry(pointer.file).or_default();
            *values += 1;
            *bytes += u64::from(pointer.stored);
        }
        if self.first_key.is_none() {
            self.first_key = Some(key.to_vec());
        }
        self.entries += 1;
        self.raw_bytes += (key.len() + stored_value.len()) as u64;
        self.saw_sequence(sequence_of(trailer));
        Some(())
    }

    /// Whether there was no entry.
    pub(super) const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(super) fn saw_sequence(&mut self, sequence: u64) {
        self.sequence_min = self.sequence_min.min(sequence);
        self.sequence_max = self.sequence_max.max(sequence);
    }

    /// Sums up, all but the length of the file.
    pub(super) fn meta(&mut self, last_key: &[u8], tombstones: &[RangeTombstone]) -> TableMeta {
        let starts = tombstones.iter().map(|t| &t.start[..]);
        let smallest = self.first_key.as_deref().into_iter().chain(starts).min();
        let last_key = (self.entries > 0).then_some(last_key);
        let last_end = tombstones.iter().map(|t| &t.end[..]).max();
        let largest_exclusive = last_end > last_key;
        let only_expiring =
            self.expiring == self.entries && self.deletes == 0 && tombstones.is_empty();
        TableMeta {
            number: self.number,
            salt: self.salt,
            bytes: 0,
            entries: self.entries,
            tombstones: self.deletes,
            range_tombstones: tombstones.len() as u64,
            raw_bytes: self.raw_bytes,
            smallest: smallest.unwrap_or_default().to_vec(),
            largest: last_end.max(last_key).unwrap_or_default().to_vec(),
            largest_exclusive,
            sequence_min: self.sequence_min,
            sequence_max: self.sequence_max,
            expiry_max: only_expiring.then_some(self.expiry_max),
            expiring: self.expiring,
            created: self.created,
            ingest_sequence: 0,
            blobs: self.uses(),
        }
    }

    fn uses(&self) -> Box<[BlobUse]> {
        let blobs = self.blobs.iter();
        blobs
            .map(|(&file, &(values, bytes))| BlobUse {
                file,
                values,
                bytes,
            })
            .collect()
    }
}
