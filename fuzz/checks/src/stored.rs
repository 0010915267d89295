//! Keys, values and records of the catalog, as the data layer keeps them.
//!
//! A key has one encoding, and lies within the range of its own prefix; two keys stand in the order of their encodings. A
//! value comes back the same when it is encoded again.

use arbitrary::Arbitrary;
use vault_db::fuzzing;

use crate::memory;

/// Two keys and a value.
#[derive(Debug, Arbitrary)]
pub struct Input<'a> {
    /// Encoded keys.
    pub keys: [&'a [u8]; 2],
    /// A stored value, or a record.
    pub value: &'a [u8],
}

/// Decodes them.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let keys = input.keys.map(|bytes| {
        let decoded = memory::bounded(bytes.len(), || fuzzing::key(bytes));
        if let Some((key, encoded)) = &decoded {
            assert_eq!(encoded, bytes, "{key} has two encodings");
            assert!(fuzzing::prefix(key).is_some_and(|range| range.contains(bytes)));
        }
        decoded
    });
    if let [Some((one, one_encoded)), Some((other, other_encoded))] = &keys {
        assert_eq!(
            one.cmp(other),
            one_encoded.cmp(other_encoded),
            "{one} and {other}"
        );
    }
    let decoded = memory::bounded(input.value.len() * 4, || fuzzing::stored(input.value));
    if let Some((value, encoded)) = decoded {
        let again = fuzzing::stored(&encoded).map(|(value, _)| format!("{value:?}"));
        assert_eq!(again, Some(format!("{value:?}")));
    }
    memory::bounded(input.value.len() * 4, || fuzzing::records(input.value));
}
