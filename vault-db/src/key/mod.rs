//! Keys: strings, bytes, integers, booleans and tuples of them, in an encoding that keeps their order.
//!
//! # The bytes
//! A key begins with a tag. Encoded keys compare bytewise as the keys do: first by kind, then by content.
//!
//! ```text
//! bytes    0x01  the bytes
//! string   0x02  UTF-8
//! tuple    0x05  its elements, one behind the other
//! integer  0x14 ± n, n = 0..8: how many bytes follow, big-endian, without leading zeros; below zero the
//!          ones' complement of the magnitude, so that -2 stands before -1
//! false    0x26
//! true     0x27
//! ```
//!
//! Inside a tuple, bytes and strings end with `0x00`, and a zero byte in them is followed by `0xff`; a nested tuple
//! ends with `0x00`. A whole key needs no end, which is why every tuple that begins with certain elements has
//! their encoding as its prefix. The other way round that holds where no `0xff` follows: that would be a longer
//! element. (The layout follows FoundationDB's tuple layer.)

mod decode;
mod encode;
mod range;

use std::fmt;

pub use decode::DecodeKey;
pub use encode::EncodeKey;
pub use range::KeyBounds;
pub(crate) use range::prefix_range;

/// A key of any kind.
///
/// ```
/// use vault_db::Key;
/// let mut keys = [Key::from("b"), Key::from(7), Key::from("a"), Key::from(-7)];
/// keys.sort();
/// assert_eq!(keys, [Key::from("a"), Key::from("b"), Key::from(-7), Key::from(7)]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Any bytes, in bytewise order.
    Bytes(Vec<u8>),
    /// A string, in the order of its code points.
    String(String),
    /// Several keys, ordered by the first, then by the second, and so on.
    Tuple(Vec<Key>),
    /// A whole number from -2⁶³ to 2⁶⁴ - 1.
    Integer(i128),
    /// False stands before true.
    Bool(bool),
}

/// The tags of the [module documentation](self).
pub(crate) mod tag {
    pub(crate) const BYTES: u8 = 0x01;
    pub(crate) const STRING: u8 = 0x02;
    pub(crate) const TUPLE: u8 = 0x05;
    pub(crate) const ZERO: u8 = 0x14;
    pub(crate) const FALSE: u8 = 0x26;
    pub(crate) const TRUE: u8 = 0x27;
    /// Ends bytes, strings and tuples inside a tuple.
    pub(crate) const END: u8 = 0x00;
    /// Behind a zero byte that is content.
    pub(crate) const ESCAPE: u8 = 0xff;
}

/// Tuples in tuples, at most.
pub(crate) const NESTING_MAX: usize = 32;

impl Key {
    /// Says what kind of key this is.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Key;
    /// assert_eq!(Key::from(7).kind(), "an integer");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "bytes",
            Self::String(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "a boolean",
        }
    }

    /// The string, if it is one.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Key;
    /// assert_eq!(Key::from("text").as_str(), Some("text"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(string) => Some(string),
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    /// As a person would write it: a string as it is, other kinds so that they cannot be taken for one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::String(string) => write!(f, "{string:?}"),
            Self::Tuple(elements) => {
                f.write_str("(")?;
                for (position, element) in elements.iter().enumerate() {
                    if position > 0 {
                        f.write_str(", ")?;
                    }
                    element.fmt(f)?;
                }
                f.write_str(")")
            }
            Self::Integer(number) => number.fmt(f),
            Self::Bool(bool) => bool.fmt(f),
        }
    }
}

/// An encoded key for a message: what it is where it decodes, else its bytes; cut where it is long.
pub(crate) fn printable(encoded: &[u8]) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let whole = match Key::decode_key(encoded) {
        Ok(key) => key.to_string(),
        Err(_) => vault_core::error::printable(encoded),
    };
    if whole.chars().count() <= SHOWN_CHARS_MAX {
        return whole;
    }
    whole.chars().take(SHOWN_CHARS_MAX).chain(['…']).collect()
}

macro_rules! from_integers {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Key {
            fn from(number: $integer) -> Self {
                Self::Integer(i128::from(number))
            }
        }
    )*};
}
from_integers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl From<&str> for Key {
    fn from(string: &str) -> Self {
        Self::String(string.to_owned())
    }
}

impl From<String> for Key {
    fn from(string: String) -> Self {
        Self::String(string)
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<bool> for Key {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

impl From<Vec<Key>> for Key {
    fn from(elements: Vec<Key>) -> Self {
        Self::Tuple(elements)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        let leaf = prop_oneof![
            prop::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..6)
                .prop_map(Key::Bytes),
            "[a\\x00\u{ff}z]{0,4}".prop_map(Key::String),
            (i128::from(i64::MIN)..=i128::from(u64::MAX)).prop_map(Key::Integer),
            (-300_i128..300).prop_map(Key::Integer),
            any::<bool>().prop_map(Key::Bool),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop::collection::vec(inner, 0..4).prop_map(Key::Tuple)
        })
    }

    /// Few different ones, so that one often begins as another does.
    fn elements(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Key>> {
        let text = "[a\\x00]{0,2}".prop_map(Key::String).boxed();
        let bytes = prop::collection::vec(prop_oneof![Just(0), Just(0xff)], 0..3);
        let element = prop_oneof![
            text.clone(),
            bytes.prop_map(Key::Bytes),
            (0_i128..3).prop_map(Key::Integer),
            prop::collection::vec(text, 0..2).prop_map(Key::Tuple),
        ];
        prop::collection::vec(element, len)
    }

    fn encoded(key: &Key) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode_key(&mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(key in keys()) {
            prop_assert_eq!(Key::decode_key(&encoded(&key)).unwrap(), key);
        }

        #[test]
        fn the_order_of_bytes_is_the_order_of_keys(a in keys(), b in keys()) {
            prop_assert_eq!(encoded(&a).cmp(&encoded(&b)), a.cmp(&b));
        }

        #[test]
        fn the_range_of_a_prefix_is_what_begins_with_it(prefix in elements(0..3), key in elements(0..4)) {
            let begins = key.starts_with(&prefix);
            let range = prefix_range(&Key::Tuple(prefix)).unwrap();
            prop_assert_eq!(range.contains(&encoded(&Key::Tuple(key))), begins);
        }

        #[test]
        fn the_range_of_text_or_bytes_is_what_begins_with_them(prefix in keys(), key in keys()) {
            let begins = match (&prefix, &key) {
                (Key::Bytes(prefix), Key::Bytes(key)) => key.starts_with(prefix),
                (Key::String(prefix), Key::String(key)) => key.starts_with(prefix.as_str()),
                (Key::Tuple(prefix), Key::Tuple(key)) => key.starts_with(prefix),
                (prefix, key) => prefix == key,
            };
            prop_assert_eq!(prefix_range(&prefix).unwrap().contains(&encoded(&key)), begins);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(key) = Key::decode_key(&bytes) {
                prop_assert_eq!(encoded(&key), bytes);
            }
        }
    }

    #[test]
    fn integers_at_their_ends() {
        let numbers = [
            i128::from(i64::MIN),
            -65_536,
            -65_535,
            -256,
            -255,
            -1,
            0,
            1,
            255,
            256,
            65_535,
            65_536,
            i128::from(u64::MAX),
        ];
        for pair in numbers.windows(2) {
            assert!(
                encoded(&Key::Integer(pair[0])) < encoded(&Key::Integer(pair[1])),
                "{pair:?}"
            );
        }
        for beyond in [i128::from(i64::MIN) - 1, i128::from(u64::MAX) + 1] {
            assert!(Key::Integer(beyond).encode_key(&mut Vec::new()).is_err());
        }
    }

    #[test]
    fn printing_tells_kinds_apart() {
        let key = Key::Tuple(vec![
            Key::from("a\"b"),
            Key::from(5),
            Key::from(vec![0xab]),
            Key::from(true),
        ]);
        assert_eq!(key.to_string(), r#"("a\"b", 5, 0xab, true)"#);
        assert!(
            printable(&encoded(&Key::from("x".repeat(500))))
                .chars()
                .count()
                <= 81
        );
    }
}
