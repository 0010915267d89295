//! What the manifest and the table itself keep about a table.

use vault_core::Timestamp;
use vault_core::codec::{Decoder, put_bytes, put_varint};
use vault_core::limits::RANGE_END_BYTES_MAX;
use vault_core::transform::Salt;

use super::Shown;
use crate::blob::{BlobUse, decode_uses, encode_uses};
use crate::internal_key::SEQUENCE_MAX;

const LARGEST_EXCLUSIVE: u8 = 0x01;
const HAS_EXPIRY_MAX: u8 = 0x02;
const INGESTED: u8 = 0x04;
const HAS_BLOBS: u8 = 0x08;

/// What is known of a table without reading it. Its bytes are those of the properties block in
/// `docs/format/table.md`; their number does not depend on `bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMeta {
    /// File number.
    pub(crate) number: u64,
    /// The salt in the file's header: another table with its number is not it.
    pub(crate) salt: Salt,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Entries, range tombstones not counted.
    pub(crate) entries: u64,
    /// Entries that are deletes.
    pub(crate) tombstones: u64,
    /// Range tombstones.
    pub(crate) range_tombstones: u64,
    /// Sum of the lengths of keys and stored values.
    pub(crate) raw_bytes: u64,
    /// The least user key; starts of range tombstones count.
    pub(crate) smallest: Vec<u8>,
    /// The greatest user key; ends of range tombstones count.
    pub(crate) largest: Vec<u8>,
    /// Whether `largest` is the end of a range tombstone and so not covered itself.
    pub(crate) largest_exclusive: bool,
    /// The least sequence number.
    pub(crate) sequence_min: u64,
    /// The greatest sequence number.
    pub(crate) sequence_max: u64,
    /// When the last entry expires; only if every entry has an expiry and there are no tombstones of
    /// any kind, so that the table as a whole is of no use from then on.
    pub(crate) expiry_max: Option<Timestamp>,
    /// Entries that have an expiry.
    pub(crate) expiring: u64,
    /// When the table was written.
    pub(crate) created: Timestamp,
    /// The sequence number that stands for every entry, where the table was ingested; else 0. The
    /// entries of such a table are written with 0, before the number is known, and the table's own
    /// properties say 0 too: only the manifest has it.
    pub(crate) ingest_sequence: u64,
    /// What its entries have in blob files, ascending by file.
    pub(crate) blobs: Box<[BlobUse]>,
}

impl TableMeta {
    /// This meta with `sequence` for every entry, as ingest gives it to a table when it is installed.
    pub(crate) fn with_sequence(&self, sequence: u64) -> Self {
        Self {
            sequence_min: sequence,
            sequence_max: sequence,
            ingest_sequence: sequence,
            ..self.clone()
        }
    }

    /// This meta as the table's own properties have it.
    pub(super) fn as_written(&self) -> Self {
        if self.ingest_sequence == 0 {
            return self.clone();
        }
        Self {
            sequence_min: 0,
            sequence_max: 0,
            ingest_sequence: 0,
            ..self.clone()
        }
    }

    /// Says what it says, to be held against another.
    pub(super) fn describe(&self, shown: Shown) -> String {
        format!(
            "table {} with the salt {:02x?}, of {} bytes with {} entries ({} deletes, {} that expire, the last at {:?}), {} range deletes, {} bytes \
             of content, keys {} to {}{}, sequence numbers {} to {}, made at {}",
            self.number,
            self.salt,
            self.bytes,
            self.entries,
            self.tombstones,
            self.expiring,
            self.expiry_max.map(|expiry| expiry.0),
            self.range_tombstones,
            self.raw_bytes,
            shown(&self.smallest),
            if self.largest_exclusive {
                "before "
            } else {
                ""
            },
            shown(&self.largest),
            self.sequence_min,
            self.sequence_max,
            self.created.0
        )
    }

    /// Appends the meta's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.number);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        put_varint(out, self.entries);
        put_varint(out, self.tombstones);
        put_varint(out, self.range_tombstones);
        put_varint(out, self.raw_bytes);
        put_bytes(out, &self.smallest);
        put_bytes(out, &self.largest);
        let exclusive = if self.largest_exclusive {
            LARGEST_EXCLUSIVE
        } else {
            0
        };
        let expiry = if self.expiry_max.is_some() {
            HAS_EXPIRY_MAX
        } else {
            0
        };
        let ingested = if self.ingest_sequence == 0 {
            0
        } else {
            INGESTED
        };
        let blobs = if self.blobs.is_empty() { 0 } else { HAS_BLOBS };
        out.push(exclusive | expiry | ingested | blobs);
        put_varint(out, self.sequence_min);
        put_varint(out, self.sequence_max);
        if let Some(expiry) = self.expiry_max {
            put_varint(out, expiry.0);
        }
        put_varint(out, self.expiring);
        put_varint(out, self.created.0);
        if self.ingest_sequence != 0 {
            put_varint(out, self.ingest_sequence);
        }
        if !self.blobs.is_empty() {
            encode_uses(&self.blobs, out);
        }
    }

    /// Bytes that its entries have in blob files.
    pub(crate) fn apart_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.bytes).sum()
    }

    /// Reads a meta off the front. `None` where the bytes end too early or contradict themselves.
    pub(crate) fn decode(d: &mut Decoder<'_>) -> Option<Self> {
        let number = d.varint()?;
        let salt = d.array()?;
        let bytes = d.u64()?;
        let entries = d.varint()?;
        let tombstones = d.varint()?;
        let range_tombstones = d.varint()?;
        let raw_bytes = d.varint()?;
        let smallest = decode_key(d)?;
        let largest = decode_key(d)?;
        let flags = d.u8()?;
        let sequence_min = d.varint()?;
        let sequence_max = d.varint()?;
        let expiry_max = if flags & HAS_EXPIRY_MAX == 0 {
            None
        } else {
            Some(Timestamp(d.varint()?))
        };
        let meta = Self {
            number,
            salt,
            bytes,
            entries,
            tombstones,
            range_tombstones,
            raw_bytes,
            smallest,
            largest,
            largest_exclusive: flags & LARGEST_EXCLUSIVE != 0,
            sequence_min,
            sequence_max,
            expiry_max,
            expiring: d.varint()?,
            created: Timestamp(d.varint()?),
            ingest_sequence: if flags & INGESTED == 0 {
                0
            } else {
                d.varint()?
            },
            blobs: if flags & HAS_BLOBS == 0 {
                Box::default()
            } else {
                decode_uses(d)?
            },
        };
        let known = flags & !(LARGEST_EXCLUSIVE | HAS_EXPIRY_MAX | INGESTED | HAS_BLOBS) == 0;
        (known && meta.is_sound()).then_some(meta)
    }

    /// Whether the fields agree with each other.
    fn is_sound(&self) -> bool {
        let apart = self
            .blobs
            .iter()
            .try_fold((0_u64, 0_u64), |(values, bytes), blob| {
                let values = values.checked_add(blob.values)?;
                Some((values, bytes.checked_add(blob.bytes)?))
            });
        apart.is_some_and(|(values, _)| values <= self.entries - self.tombstones.min(self.entries))
            && self.smallest <= self.largest
            && self.sequence_min <= self.sequence_max
            && self.sequence_max <= SEQUENCE_MAX
            && self.tombstones <= self.entries
            && self.expiring <= self.entries
            && (self.ingest_sequence == 0
                || (self.sequence_min, self.sequence_max)
                    == (self.ingest_sequence, self.ingest_sequence))
            && (self.entries > 0 || self.range_tombstones > 0)
            && (!self.largest_exclusive || self.range_tombstones > 0)
            && (self.expiry_max.is_none()
                || (self.expiring == self.entries
                    && self.tombstones == 0
                    && self.range_tombstones == 0))
    }
}

fn decode_key(d: &mut Decoder<'_>) -> Option<Vec<u8>> {
    let key = d.bytes()?;
    (key.len() <= RANGE_END_BYTES_MAX).then(|| key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> TableMeta {
        TableMeta {
            number: 300,
            salt: [7; 24],
            bytes: 1 << 40,
            entries: 10,
            tombstones: 2,
            range_tombstones: 1,
            raw_bytes: 4321,
            smallest: b"".to_vec(),
            largest: b"z".to_vec(),
            largest_exclusive: true,
            sequence_min: 3,
            sequence_max: 1 << 50,
            expiry_max: None,
            expiring: 3,
            created: Timestamp(1_700_000_000_000),
            ingest_sequence: 0,
            blobs: Box::default(),
        }
    }

    fn blob(file: u64, values: u64) -> BlobUse {
        BlobUse {
            file,
            values,
            bytes: 1000 * values,
        }
    }

    #[test]
    fn metas_round_trip_and_short_ones_are_refused() {
        let expiring = TableMeta {
            tombstones: 0,
            range_tombstones: 0,
            largest_exclusive: false,
            expiring: 10,
            expiry_max: Some(Timestamp(9)),
            ..meta()
        };
        let pointing = TableMeta {
            blobs: [blob(7, 3), blob(500, 5)].into(),
            ..meta()
        };
        for meta in [meta(), expiring, pointing] {
            let mut bytes = Vec::new();
            meta.encode(&mut bytes);
            let mut decoder = Decoder::new(&bytes);
            assert_eq!(TableMeta::decode(&mut decoder), Some(meta));
            assert!(decoder.is_empty());
            for cut in 0..bytes.len() {
                assert_eq!(TableMeta::decode(&mut Decoder::new(&bytes[..cut])), None);
            }
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let wrong = [
            TableMeta {
                tombstones: 11,
                ..meta()
            },
            TableMeta {
                sequence_min: 2 << 50,
                ..meta()
            },
            TableMeta {
                smallest: b"zz".to_vec(),
                ..meta()
            },
            TableMeta {
                expiry_max: Some(Timestamp(1)),
                ..meta()
            },
            TableMeta {
                entries: 0,
                tombstones: 0,
                range_tombstones: 0,
                ..meta()
            },
            TableMeta {
                blobs: [blob(7, 3), blob(8, 6)].into(),
                ..meta()
            },
            TableMeta {
                blobs: [7, 8]
                    .map(|file| BlobUse {
                        bytes: u64::MAX - 1,
                        ..blob(file, 1)
                    })
                    .into(),
                ..meta()
            },
        ];
        for meta in wrong {
            let mut bytes = Vec::new();
            meta.encode(&mut bytes);
            assert_eq!(
                TableMeta::decode(&mut Decoder::new(&bytes)),
                None,
                "{meta:?}"
            );
        }
    }
}
