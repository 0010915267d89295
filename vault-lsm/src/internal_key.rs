//! The key under which memtables and tables keep an entry: user key, then trailer.
//!
//! The *trailer* is `sequence << 8 | kind byte`: 56 bits of sequence number and the kind byte of
//! [`vault_core::batch`] (with its expiry bit). Entries are ordered by user key ascending, then by
//! trailer **descending**, so that the newest version of a key comes first.
//!
//! The *stored value* of an entry is its value, with the expiry (u64, milliseconds, little-endian) in
//! front where the kind byte has the expiry bit. In tables, a put whose kind byte has [`KIND_APART`] has its value in a
//! blob file, and in its place a [`Pointer`](crate::blob::Pointer). Neither the log nor a memtable ever holds one.

use std::cmp::Ordering;

use vault_core::batch::{KIND_HAS_EXPIRY, OperationKind};
use vault_core::{SequenceNumber, Timestamp};

/// Set in the kind byte of a put whose value lies apart. Values are part of the format.
pub(crate) const KIND_APART: u8 = 0x40;
const _: () = assert!(
    KIND_APART & KIND_HAS_EXPIRY == 0 && OperationKind::from_byte(KIND_APART).is_none(),
    "the bit is none of the others'"
);

/// Largest sequence number the trailer can hold.
pub(crate) const SEQUENCE_MAX: SequenceNumber = (1 << 56) - 1;
/// Bytes that an expiry takes in front of a stored value.
pub(crate) const EXPIRY_BYTES: usize = 8;

/// Packs a sequence number and a kind byte.
#[inline]
pub(crate) const fn pack(sequence: SequenceNumber, kind_byte: u8) -> u64 {
    sequence << 8 | kind_byte as u64
}

/// The trailer that sorts before every version up to `sequence`: where to seek to find the newest
/// version that a reader at `sequence` may see.
#[inline]
pub(crate) const fn seek_trailer(sequence: SequenceNumber) -> u64 {
    pack(sequence, u8::MAX)
}

/// The sequence number of a trailer.
#[inline]
pub(crate) const fn sequence_of(trailer: u64) -> SequenceNumber {
    trailer >> 8
}

/// The kind of a trailer, or `None` where the byte is no kind. Only puts have their values apart.
#[inline]
pub(crate) const fn kind_of(trailer: u64) -> Option<OperationKind> {
    let kind = OperationKind::from_byte(trailer as u8 & !(KIND_HAS_EXPIRY | KIND_APART));
    match kind {
        Some(OperationKind::Put) | None => kind,
        Some(_) if is_apart(trailer) => None,
        Some(_) => kind,
    }
}

/// Whether the stored value has a pointer in the place of the user's value.
#[inline]
pub(crate) const fn is_apart(trailer: u64) -> bool {
    trailer as u8 & KIND_APART != 0
}

/// Whether the stored value begins with an expiry.
#[inline]
pub(crate) const fn has_expiry(trailer: u64) -> bool {
    trailer as u8 & KIND_HAS_EXPIRY != 0
}

/// Compares two internal keys.
#[inline]
pub(crate) fn compare(a: (&[u8], u64), b: (&[u8], u64)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
}

/// Splits a stored value into its expiry and the user's value. `None` where it is too short.
#[inline]
pub(crate) fn split_expiry(trailer: u64, stored: &[u8]) -> Option<(Option<Timestamp>, &[u8])> {
    if !has_expiry(trailer) {
        return Some((None, stored));
    }
    let (expiry, value) = stored.split_first_chunk::<EXPIRY_BYTES>()?;
    Some((Some(Timestamp(u64::from_le_bytes(*expiry))), value))
}

/// A deletion of all keys from `start` up to, not including, `end`, written at `sequence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeTombstone {
    /// The first key that goes.
    pub(crate) start: Vec<u8>,
    /// The first key that stays.
    pub(crate) end: Vec<u8>,
    /// When: it hides entries with smaller sequence numbers.
    pub(crate) sequence: SequenceNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_comes_first() {
        let old = pack(5, OperationKind::Put as u8);
        let new = pack(6, OperationKind::Delete as u8);
        assert_eq!(compare((b"k", new), (b"k", old)), Ordering::Less);
        assert_eq!(
            compare((b"k", seek_trailer(6)), (b"k", new)),
            Ordering::Less
        );
        assert_eq!(
            compare((b"k", seek_trailer(5)), (b"k", new)),
            Ordering::Greater
        );
        assert_eq!(compare((b"a", old), (b"b", new)), Ordering::Less);
        assert_eq!(kind_of(new), Some(OperationKind::Delete));
        assert_eq!(sequence_of(new), 6);
    }

    #[test]
    fn only_puts_have_their_values_apart() {
        for (kind, may) in [
            (OperationKind::Put, true),
            (OperationKind::Delete, false),
            (OperationKind::Merge, false),
            (OperationKind::RangeDelete, false),
        ] {
            for expiry in [0, KIND_HAS_EXPIRY] {
                let apart = pack(7, kind as u8 | KIND_APART | expiry);
                assert!(is_apart(apart) && !is_apart(pack(7, kind as u8 | expiry)));
                assert_eq!(kind_of(apart), may.then_some(kind));
            }
        }
    }

    #[test]
    fn expiry_is_split_off() {
        let trailer = pack(1, OperationKind::Put as u8 | KIND_HAS_EXPIRY);
        let mut stored = 77_u64.to_le_bytes().to_vec();
        stored.extend_from_slice(b"value");
        assert_eq!(
            split_expiry(trailer, &stored),
            Some((Some(Timestamp(77)), &b"value"[..]))
        );
        assert_eq!(split_expiry(trailer, b"short"), None);
        assert_eq!(split_expiry(pack(1, 1), b"v"), Some((None, &b"v"[..])));
    }
}
