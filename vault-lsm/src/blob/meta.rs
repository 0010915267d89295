//! What entries, tables and the manifest say of values that are kept apart.

use vault_core::codec::{Decoder, put_varint};
use vault_core::limits::VALUE_BYTES_CEILING;
use vault_core::transform::{HEADER_BYTES, Salt};

use super::record::RECORD_BYTES_MIN;
use crate::internal_key::{is_apart, split_expiry};

/// Where a value is. Stands in a table's entry in the place of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// Number of the blob file.
    pub(crate) file: u64,
    /// The record's place in the order of the file.
    pub(crate) ordinal: u32,
    /// Where the record begins in the file.
    pub(crate) offset: u64,
    /// Bytes of the record, with its frame and its seal.
    pub(crate) stored: u32,
    /// Bytes of the value.
    pub(crate) raw: u32,
}

impl Pointer {
    /// Appends the pointer's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.file);
        put_varint(out, u64::from(self.ordinal));
        put_varint(out, self.offset);
        put_varint(out, u64::from(self.stored));
        put_varint(out, u64::from(self.raw));
    }

    /// Reads what [`Self::encode`] wrote, and nothing else. `None` where the bytes are no pointer.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let small = |decoder: &mut Decoder<'_>| u32::try_from(decoder.varint()?).ok();
        let pointer = Self {
            file: decoder.varint()?,
            ordinal: small(&mut decoder)?,
            offset: decoder.varint()?,
            stored: small(&mut decoder)?,
            raw: small(&mut decoder)?,
        };
        let sound = pointer.offset >= HEADER_BYTES as u64
            && pointer.stored as usize >= RECORD_BYTES_MIN
            && pointer.raw as usize <= VALUE_BYTES_CEILING;
        (decoder.is_empty() && sound).then_some(pointer)
    }
}

/// The pointer of an entry whose value is kept apart. `None` where the value stands in the entry itself, `Some(None)` where
/// what stands there is no pointer.
pub(crate) fn pointer_of(trailer: u64, stored: &[u8]) -> Option<Option<Pointer>> {
    if !is_apart(trailer) {
        return None;
    }
    let value = split_expiry(trailer, stored).map(|(_, value)| value);
    Some(value.and_then(Pointer::decode))
}

/// What the manifest knows of a blob file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobMeta {
    /// File number.
    pub(crate) number: u64,
    /// The salt in the file's header: another file with its number is not it.
    pub(crate) salt: Salt,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Values in it.
    pub(crate) values: u64,
    /// Bytes of their records: what the uses of a file that holds no garbage add up to.
    pub(crate) value_bytes: u64,
}

impl BlobMeta {
    /// Appends the meta's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.number);
        out.extend_from_slice(&self.salt);
        put_varint(out, self.bytes);
        put_varint(out, self.values);
        put_varint(out, self.value_bytes);
    }

    /// Reads a meta off the front. `None` where the bytes end too early or contradict themselves.
    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        let meta = Self {
            number: decoder.varint()?,
            salt: decoder.array()?,
            bytes: decoder.varint()?,
            values: decoder.varint()?,
            value_bytes: decoder.varint()?,
        };
        let least = meta.values.checked_mul(RECORD_BYTES_MIN as u64)?;
        let framing = HEADER_BYTES as u64 + RECORD_BYTES_MIN as u64;
        let sound = meta.values > 0
            && meta.value_bytes >= least
            && meta.bytes.checked_sub(framing)? >= meta.value_bytes;
        sound.then_some(meta)
    }
}

/// What a table has in a blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobUse {
    /// The file's number.
    pub(crate) file: u64,
    /// Entries that point into it.
    pub(crate) values: u64,
    /// Bytes of the records that they point to.
    pub(crate) bytes: u64,
}

/// Appends the uses of a table, which ascend by file.
pub(crate) fn encode_uses(uses: &[BlobUse], out: &mut Vec<u8>) {
    put_varint(out, uses.len() as u64);
    let mut before = 0;
    for blob in uses {
        put_varint(out, blob.file - before);
        put_varint(out, blob.values);
        put_varint(out, blob.bytes);
        before = blob.file;
    }
}

/// Reads what [`encode_uses`] wrote: at least one, ascending.
pub(crate) fn decode_uses(decoder: &mut Decoder<'_>) -> Option<Box<[BlobUse]>> {
    let count = decoder.varint()?;
    let mut uses = Vec::new();
    let mut before = 0_u64;
    for _ in 0..count {
        let step = decoder.varint().filter(|&step| step > 0)?;
        let blob = BlobUse {
            file: before.checked_add(step)?,
            values: decoder.varint()?,
            bytes: decoder.varint()?,
        };
        let least = blob.values.checked_mul(RECORD_BYTES_MIN as u64)?;
        if blob.values == 0 || blob.bytes < least {
            return None;
        }
        before = blob.file;
        uses.push(blob);
    }
    (!uses.is_empty()).then(|| uses.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTER: Pointer = Pointer {
        file: 300,
        ordinal: 7,
        offset: 128,
        stored: 5000,
        raw: 1 << 20,
    };

    #[test]
    fn pointers_round_trip_and_nothing_else_is_one() {
        let mut bytes = Vec::new();
        POINTER.encode(&mut bytes);
        assert_eq!(Pointer::decode(&bytes), Some(POINTER));
        for cut in 0..bytes.len() {
            assert_eq!(Pointer::decode(&bytes[..cut]), None);
        }
        assert_eq!(Pointer::decode(&[&bytes[..], &[0]].concat()), None);
        for wrong in [
            Pointer {
                offset: 127,
                ..POINTER
            },
            Pointer {
                stored: RECORD_BYTES_MIN as u32 - 1,
                ..POINTER
            },
            Pointer {
                raw: (1 << 30) + 1,
                ..POINTER
            },
        ] {
            let mut bytes = Vec::new();
            wrong.encode(&mut bytes);
            assert_eq!(Pointer::decode(&bytes), None, "{wrong:?}");
        }
    }

    #[test]
    fn metas_and_uses_round_trip_and_contradictions_are_refused() {
        let meta = BlobMeta {
            number: 9,
            salt: [3; 24],
            bytes: 10_000,
            values: 3,
            value_bytes: 9_000,
        };
        let encoded = |meta: &BlobMeta| {
            let mut bytes = Vec::new();
            meta.encode(&mut bytes);
            bytes
        };
        let decode = |bytes: &[u8]| BlobMeta::decode(&mut Decoder::new(bytes));
        assert_eq!(decode(&encoded(&meta)).as_ref(), Some(&meta));
        for wrong in [
            BlobMeta {
                value_bytes: 10_000,
                ..meta.clone()
            },
            BlobMeta {
                values: 0,
                ..meta.clone()
            },
            BlobMeta {
                values: 9_000,
                ..meta.clone()
            },
        ] {
            assert_eq!(decode(&encoded(&wrong)), None, "{wrong:?}");
        }
        let blob = |file| BlobUse {
            file,
            values: 2,
            bytes: 999,
        };
        let uses = [blob(3), blob(4), blob(u64::MAX)];
        let mut bytes = Vec::new();
        encode_uses(&uses, &mut bytes);
        let decode = |bytes: &[u8]| decode_uses(&mut Decoder::new(bytes));
        assert_eq!(decode(&bytes).as_deref(), Some(&uses[..]));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None);
        }
        assert_eq!(decode(&[0]), None, "uses of nothing");
        assert_eq!(
            decode(&[2, 3, 1, 99, 0, 1, 99]),
            None,
            "the same file twice"
        );
        assert_eq!(decode(&[1, 3, 0, 99]), None, "no value");
    }
}
