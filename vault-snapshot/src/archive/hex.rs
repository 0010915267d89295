//! Fixed numbers of bytes that are written as hexadecimal digits: ids, salts, hashes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `N` bytes, written as twice as many lower-case hexadecimal digits.
///
/// ```
/// use vault_snapshot::archive::Hex;
/// let id: Hex<2> = "00ff".parse().unwrap();
/// assert_eq!(id, Hex([0, 255]));
/// assert_eq!(id.to_string(), "00ff");
/// assert!("00f".parse::<Hex<2>>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// Identity of a store: 16 bytes.
pub type StoreId = Hex<16>;
/// The salt of a file's header, which no other file has: 24 bytes.
pub type Salt = Hex<24>;
/// A SHA-256 hash: 32 bytes.
pub type Sha256Hash = Hex<32>;

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{} lower-case hexadecimal digits were expected", 2 * N);
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let digits = text.as_bytes();
        if digits.len() != 2 * N {
            return Err(wrong());
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (digit(pair[0]), digit(pair[1]));
            *byte = high.zip(low).map(|(h, l)| h << 4 | l).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_digits_of_the_right_number_are_taken() {
        assert_eq!("0a1b".parse(), Ok(Hex([0x0a, 0x1b])));
        for text in ["", "0a1", "0a1bc", "0A1B", "0g1b", "+a1b", "ä1b"] {
            assert!(text.parse::<Hex<2>>().is_err(), "{text}");
        }
    }
}
