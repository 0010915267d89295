//! What must hold of the decoder of batches, whatever bytes it is given.
//!
//! These are the bytes that a log holds, so they can be anything once a disk has had its say:
//! 1. Decoding never panics and always ends: each operation takes at least one byte.
//! 2. What it gives lies within what it took.
//! 3. Encoding a decoded operation and decoding that gives the same operation.
//! 4. Encoding gives the shortest form, never longer than what was decoded.
//!
//! The same is asked of the numbers and strings that every format is made of.

use std::fmt;

use arbitrary::Arbitrary;
use vault_core::Operation;
use vault_core::batch::{OperationKind, decode_operation, encode_operation};
use vault_core::codec::Decoder;

use crate::memory;

/// Operations as a log record holds them.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Their bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut decoder = Decoder::new(self.bytes);
        let mut list = f.debug_list();
        while let Some(operation) = decode_operation(&mut decoder) {
            list.entry(&operation);
        }
        if !decoder.is_empty() {
            let rest = vault_core::error::printable(decoder.rest());
            list.entry(&format_args!("refused: {rest}"));
        }
        list.finish()
    }
}

/// Decodes to the first thing that makes no sense, and checks each operation on the way.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let data = input.bytes;
    memory::bounded(data.len(), || {
        let mut decoder = Decoder::new(data);
        while decode_operation(&mut decoder).is_some() {}
    });
    let mut decoder = Decoder::new(data);
    loop {
        let before = decoder.rest().len();
        let Some(operation) = decode_operation(&mut decoder) else {
            break;
        };
        let taken = before - decoder.rest().len();
        assert!(taken > 0, "an operation of no bytes");
        assert!(
            operation.key.len() + operation.value.len() < taken,
            "an operation longer than its bytes"
        );
        let encoded = encode(&operation);
        assert!(encoded.len() <= taken, "a longer form than was decoded");
        let mut again = Decoder::new(&encoded);
        assert_eq!(decode_operation(&mut again), Some(operation));
        assert!(again.is_empty(), "bytes left over");
    }
    numbers(data);
}

fn encode(operation: &Operation<'_>) -> Vec<u8> {
    let mut encoded = Vec::new();
    let value = (operation.kind != OperationKind::Delete).then_some(operation.value);
    encode_operation(
        &mut encoded,
        operation.kind,
        operation.keyspace,
        operation.expiry,
        operation.key,
        value,
    );
    encoded
}

/// The same for the numbers and strings that every format is made of.
fn numbers(data: &[u8]) {
    let mut decoder = Decoder::new(data);
    while let Some(number) = decoder.varint() {
        let mut encoded = Vec::new();
        vault_core::codec::put_varint(&mut encoded, number);
        assert_eq!(encoded.len(), vault_core::codec::varint_len(number));
        assert_eq!(Decoder::new(&encoded).varint(), Some(number));
    }
    let mut decoder = Decoder::new(data);
    while let Some(bytes) = decoder.bytes() {
        assert!(bytes.len() < data.len());
    }
}
