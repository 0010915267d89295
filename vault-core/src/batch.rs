//! Batches: changes to any number of keyspaces that take effect together or not at all.
//!
//! A batch is kept in the form in which the log stores it, so that writing one copies it once. Each
//! operation is
//!
//! ```text
//! kind      u8        low bits: 1 put, 2 delete, 3 merge, 4 range delete; 0x80: an expiry follows
//! keyspace  varint
//! expiry    u64       only with 0x80: milliseconds since 1970
//! key       varint length, bytes        (range delete: the first key that goes)
//! value     varint length, bytes        (put: the value; merge: the operand;
//!                                        range delete: the first key that stays; delete: absent)
//! ```

use std::fmt;

use crate::clock::Timestamp;
use crate::codec::{Decoder, put_bytes, put_varint};
use crate::engine::KeyspaceId;
use crate::error::printable;

/// What an operation does, as stored in logs and tables. Values are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OperationKind {
    /// Sets a value.
    Put = 1,
    /// Removes a key.
    Delete = 2,
    /// Adds an operand for the keyspace's merge operator.
    Merge = 3,
    /// Removes every key of a range.
    RangeDelete = 4,
}

/// The bit of a kind byte that says that an expiry is present.
pub const KIND_HAS_EXPIRY: u8 = 0x80;

impl OperationKind {
    /// Decodes the kind byte, with its expiry bit taken off.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            3 => Some(Self::Merge),
            4 => Some(Self::RangeDelete),
            _ => None,
        }
    }
}

/// One operation of a [`WriteBatch`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Operation<'a> {
    /// What is done.
    pub kind: OperationKind,
    /// In which keyspace.
    pub keyspace: KeyspaceId,
    /// The key; of a range delete the first key that goes.
    pub key: &'a [u8],
    /// The value or operand; of a range delete the first key that stays; of a delete empty.
    pub value: &'a [u8],
    /// When the entry ceases to be visible.
    pub expiry: Option<Timestamp>,
}

impl fmt::Debug for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}({}, {}",
            self.kind,
            self.keyspace.0,
            printable(self.key)
        )?;
        if self.kind != OperationKind::Delete {
            write!(f, ", {}", printable(self.value))?;
        }
        if let Some(expiry) = self.expiry {
            write!(f, ", until {expiry}")?;
        }
        f.write_str(")")
    }
}

/// Changes to any number of keyspaces that take effect together, in order, or not at all.
///
/// ```
/// use vault_core::{KeyspaceId, WriteBatch};
/// let (users, index) = (KeyspaceId(1), KeyspaceId(2));
/// let mut batch = WriteBatch::new();
/// batch.put(users, b"alice", b"admin").put(index, b"admin/alice", b"").delete(users, b"bob");
/// assert_eq!(batch.len(), 3);
/// ```
#[derive(Clone, Default)]
pub struct WriteBatch {
    encoded: Vec<u8>,
    count: u32,
}

impl WriteBatch {
    /// Starts an empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            encoded: Vec::new(),
            count: 0,
        }
    }

    /// Takes operations as [`WriteBatch::encoded`] gives them. `None` where they make no sense, or are more than a batch can hold.
    ///
    /// ```
    /// use vault_core::{KeyspaceId, WriteBatch};
    /// let mut batch = WriteBatch::new();
    /// batch.put(KeyspaceId(1), b"alice", b"admin").delete(KeyspaceId(1), b"bob");
    /// let again = WriteBatch::from_encoded(batch.encoded()).expect("it was just laid out");
    /// assert!(again.iter().eq(batch.iter()));
    /// assert!(WriteBatch::from_encoded(b"nonsense").is_none());
    /// ```
    #[must_use]
    pub fn from_encoded(encoded: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(encoded);
        let mut count = 0_u32;
        while !decoder.is_empty() {
            decode_operation(&mut decoder)?;
            count = count.checked_add(1)?;
        }
        Some(Self {
            encoded: encoded.to_vec(),
            count,
        })
    }

    /// Starts an empty batch with room for `bytes` of encoded operations.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            encoded: Vec::with_capacity(bytes),
            count: 0,
        }
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> &mut Self {
        self.push(OperationKind::Put, keyspace, None, key, Some(value))
    }

    /// Sets `key` to `value` until `expiry`, after which the key reads as absent.
    pub fn put_until(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
        expiry: Timestamp,
    ) -> &mut Self {
        self.push(OperationKind::Put, keyspace, Some(expiry), key, Some(value))
    }

    /// Removes `key`, whether or not it is there.
    pub fn delete(&mut self, keyspace: KeyspaceId, key: &[u8]) -> &mut Self {
        self.push(OperationKind::Delete, keyspace, None, key, None)
    }

    /// Removes every key from `start` up to, not including, `end`. Costs the same however many there
    /// are. Bounds the wrong way round make the write fail with
    /// [`InvertedRange`](crate::Error::InvertedRange).
    pub fn delete_range(&mut self, keyspace: KeyspaceId, start: &[u8], end: &[u8]) -> &mut Self {
        self.push(OperationKind::RangeDelete, keyspace, None, start, Some(end))
    }

    /// Removes every key that begins with `prefix`.
    ///
    /// An empty prefix, or one of only `0xff` bytes, has no key behind it that could end the range:
    /// the range then ends behind the greatest key there can be, at one byte more than a key may have.
    pub fn delete_prefix(&mut self, keyspace: KeyspaceId, prefix: &[u8]) -> &mut Self {
        let end = crate::range::successor_of_prefix(prefix)
            .unwrap_or_else(|| vec![u8::MAX; crate::limits::RANGE_END_BYTES_MAX]);
        self.delete_range(keyspace, prefix, &end)
    }

    /// Adds an operand for the keyspace's merge operator.
    pub fn merge(&mut self, keyspace: KeyspaceId, key: &[u8], operand: &[u8]) -> &mut Self {
        self.push(OperationKind::Merge, keyspace, None, key, Some(operand))
    }

    /// Adds an operand that, from `expiry` on, counts as a delete of the key at this place in its
    /// history: neither it nor anything written before it is visible any more.
    pub fn merge_until(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        operand: &[u8],
        expiry: Timestamp,
    ) -> &mut Self {
        self.push(
            OperationKind::Merge,
            keyspace,
            Some(expiry),
            key,
            Some(operand),
        )
    }

    /// Number of operations.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes all operations out, keeping the memory for the next ones.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.count = 0;
    }

    /// The operations as the log stores them.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The operations in order.
    #[must_use]
    pub fn iter(&self) -> Operations<'_> {
        Operations {
            decoder: Decoder::new(&self.encoded),
            left: self.count,
        }
    }

    #[inline]
    fn push(
        &mut self,
        kind: OperationKind,
        keyspace: KeyspaceId,
        expiry: Option<Timestamp>,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> &mut Self {
        encode_operation(&mut self.encoded, kind, keyspace, expiry, key, value);
        self.count += 1;
        self
    }
}

/// Appends one operation in the form of the [module documentation](self).
#[inline]
pub fn encode_operation(
    out: &mut Vec<u8>,
    kind: OperationKind,
    keyspace: KeyspaceId,
    expiry: Option<Timestamp>,
    key: &[u8],
    value: Option<&[u8]>,
) {
    out.push(kind as u8 | if expiry.is_some() { KIND_HAS_EXPIRY } else { 0 });
    put_varint(out, u64::from(keyspace.0));
    if let Some(expiry) = expiry {
        out.extend_from_slice(&expiry.0.to_le_bytes());
    }
    put_bytes(out, key);
    if let Some(value) = value {
        put_bytes(out, value);
    }
}

/// Decodes one operation off the front.
#[inline]
#[must_use]
pub fn decode_operation<'a>(decoder: &mut Decoder<'a>) -> Option<Operation<'a>> {
    let byte = decoder.u8()?;
    let kind = OperationKind::from_byte(byte & !KIND_HAS_EXPIRY)?;
    let keyspace = KeyspaceId(u32::try_from(decoder.varint()?).ok()?);
    let expiry = if byte & KIND_HAS_EXPIRY == 0 {
        None
    } else {
        Some(Timestamp(decoder.u64()?))
    };
    let key = decoder.bytes()?;
    let value = if kind == OperationKind::Delete {
        &[]
    } else {
        decoder.bytes()?
    };
    Some(Operation {
        kind,
        keyspace,
        key,
        value,
        expiry,
    })
}

impl fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a WriteBatch {
    type Item = Operation<'a>;
    type IntoIter = Operations<'a>;

    fn into_iter(self) -> Operations<'a> {
        self.iter()
    }
}

/// The operations of a batch in order.
#[derive(Debug, Clone)]
pub struct Operations<'a> {
    decoder: Decoder<'a>,
    left: u32,
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    #[inline]
    fn next(&mut self) -> Option<Operation<'a>> {
        self.left = self.left.checked_sub(1)?;
        decode_operation(&mut self.decoder)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back_in_order() {
        let keyspace = KeyspaceId(300);
        let mut batch = WriteBatch::new();
        batch
            .put(keyspace, b"k", b"v")
            .put_until(keyspace, b"", &[9; 300], Timestamp(7))
            .delete(keyspace, b"gone")
            .delete_range(keyspace, b"a", b"b")
            .merge(keyspace, b"n", b"12345678");
        let operations: Vec<_> = batch.iter().collect();
        assert_eq!(operations.len(), 5);
        assert_eq!(operations[1].expiry, Some(Timestamp(7)));
        assert_eq!(operations[1].value.len(), 300);
        assert_eq!(operations[3].value, b"b");
        assert_eq!(operations[4].kind, OperationKind::Merge);
        batch.clear();
        assert!(batch.is_empty() && batch.iter().next().is_none());
    }

    #[test]
    fn damaged_operations_give_none() {
        let mut batch = WriteBatch::new();
        batch.put(KeyspaceId(1), b"key", b"value");
        for cut in 0..batch.encoded().len() {
            assert_eq!(
                decode_operation(&mut Decoder::new(&batch.encoded()[..cut])),
                None
            );
        }
        assert_eq!(decode_operation(&mut Decoder::new(&[0x7f, 1, 0, 0])), None);
    }
}
