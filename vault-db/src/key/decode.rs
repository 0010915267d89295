//! From bytes to keys.

use super::{Key, NESTING_MAX, tag};

/// What an encoded key can be read as.
///
/// A key of another kind gives [`Error::KeyMismatch`](crate::Error::KeyMismatch); [`Key`] reads them all.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// # let vault = db.vault("v")?;
/// vault.put(("alice", 7), "a lamp")?;
/// let key: Option<(String, u32)> = vault.keys()?.next().transpose()?;
/// assert_eq!(key, Some(("alice".to_owned(), 7)));
/// # Ok(())
/// # }
/// ```
pub trait DecodeKey: Sized {
    /// Reads a whole key.
    ///
    /// # Errors
    /// What the key is instead.
    fn decode_key(encoded: &[u8]) -> Result<Self, &'static str> {
        Self::from_key(Key::decode_key(encoded)?).map_err(|key| key.kind())
    }

    /// Takes a key of any kind as this one, or gives it back.
    ///
    /// # Errors
    /// The key.
    fn from_key(key: Key) -> Result<Self, Key>;
}

/// What stands where a key should.
const MALFORMED: &str = "malformed";

impl DecodeKey for Key {
    fn decode_key(encoded: &[u8]) -> Result<Self, &'static str> {
        let (&first, rest) = encoded.split_first().ok_or(MALFORMED)?;
        match first {
            tag::BYTES => Ok(Self::Bytes(rest.to_vec())),
            tag::STRING => string(rest.to_vec()),
            tag::TUPLE => {
                let mut input = rest;
                let mut elements = Vec::new();
                while !input.is_empty() {
                    elements.push(element(&mut input, 1)?);
                }
                Ok(Self::Tuple(elements))
            }
            _ => {
                let mut input = encoded;
                let key = element(&mut input, 1)?;
                if input.is_empty() {
                    Ok(key)
                } else {
                    Err(MALFORMED)
                }
            }
        }
    }

    fn from_key(key: Key) -> Result<Self, Key> {
        Ok(key)
    }
}

fn string(bytes: Vec<u8>) -> Result<Key, &'static str> {
    String::from_utf8(bytes)
        .map(Key::String)
        .map_err(|_| MALFORMED)
}

/// Reads an element of a tuple off the front.
fn element(input: &mut &[u8], depth: usize) -> Result<Key, &'static str> {
    let (&first, rest) = input.split_first().ok_or(MALFORMED)?;
    *input = rest;
    match first {
        tag::BYTES => unescape(input).map(Key::Bytes),
        tag::STRING => string(unescape(input)?),
        tag::FALSE => Ok(Key::Bool(false)),
        tag::TRUE => Ok(Key::Bool(true)),
        tag::TUPLE if depth < NESTING_MAX => {
            let mut elements = Vec::new();
            loop {
                match input.split_first() {
                    Some((&tag::END, rest)) => {
                        *input = rest;
                        return Ok(Key::Tuple(elements));
                    }
                    Some(_) => elements.push(element(input, depth + 1)?),
                    None => return Err(MALFORMED),
                }
            }
        }
        _ if first.abs_diff(tag::ZERO) <= 8 => integer(first, input),
        _ => Err(MALFORMED),
    }
}

fn integer(first: u8, input: &mut &[u8]) -> Result<Key, &'static str> {
    let len = usize::from(first.abs_diff(tag::ZERO));
    let (bytes, rest) = input.split_at_checked(len).ok_or(MALFORMED)?;
    *input = rest;
    let is_negative = first < tag::ZERO;
    let mut magnitude = 0_u64;
    for &byte in bytes {
        magnitude = magnitude << 8 | u64::from(if is_negative { !byte } else { byte });
    }
    // One number has one encoding, or keys that are equal would not be.
    if len > 0 && magnitude.leading_zeros() as usize / 8 != 8 - len {
        return Err(MALFORMED);
    }
    let number = i128::from(magnitude);
    match is_negative {
        true if -number < i128::from(i64::MIN) => Err(MALFORMED),
        true => Ok(Key::Integer(-number)),
        false => Ok(Key::Integer(number)),
    }
}

/// Reads content up to the zero byte that ends it.
fn unescape(input: &mut &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut content = Vec::new();
    loop {
        let (&byte, rest) = input.split_first().ok_or(MALFORMED)?;
        *input = rest;
        if byte == tag::END {
            match input.split_first() {
                Some((&tag::ESCAPE, rest)) => *input = rest,
                _ => return Ok(content),
            }
        }
        content.push(byte);
    }
}

impl DecodeKey for String {
    fn decode_key(encoded: &[u8]) -> Result<Self, &'static str> {
        match encoded.split_first() {
            Some((&tag::STRING, rest)) => Self::from_utf8(rest.to_vec()).map_err(|_| MALFORMED),
            _ => Err(Key::decode_key(encoded)?.kind()),
        }
    }

    fn from_key(key: Key) -> Result<Self, Key> {
        match key {
            Key::String(string) => Ok(string),
            other => Err(other),
        }
    }
}

impl DecodeKey for Vec<u8> {
    fn decode_key(encoded: &[u8]) -> Result<Self, &'static str> {
        match encoded.split_first() {
            Some((&tag::BYTES, rest)) => Ok(rest.to_vec()),
            _ => Err(Key::decode_key(encoded)?.kind()),
        }
    }

    fn from_key(key: Key) -> Result<Self, Key> {
        match key {
            Key::Bytes(bytes) => Ok(bytes),
            other => Err(other),
        }
    }
}

impl DecodeKey for bool {
    fn from_key(key: Key) -> Result<Self, Key> {
        match key {
            Key::Bool(bool) => Ok(bool),
            other => Err(other),
        }
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl DecodeKey for $integer {
            fn from_key(key: Key) -> Result<Self, Key> {
                match key {
                    Key::Integer(number) => {
                        <$integer>::try_from(number).map_err(|_| Key::Integer(number))
                    }
                    other => Err(other),
                }
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64, i128);

macro_rules! tuples {
    ($($len:literal ($($element:ident),+)),* $(,)?) => {$(
        impl<$($element: DecodeKey),+> DecodeKey for ($($element,)+) {
            fn from_key(key: Key) -> Result<Self, Key> {
                match key {
                    Key::Tuple(elements) if elements.len() == $len => {
                        let whole = elements.clone();
                        let mut elements = elements.into_iter();
                        let mut next = || elements.next().ok_or(());
                        let decoded = (|| {
                            Ok::<_, ()>(($($element::from_key(next()?).map_err(drop)?,)+))
                        })();
                        decoded.map_err(|()| Key::Tuple(whole))
                    }
                    other => Err(other),
                }
            }
        }
    )*};
}
tuples!(
    1(A),
    2(A, B),
    3(A, B, C),
    4(A, B, C, D),
    5(A, B, C, D, E),
    6(A, B, C, D, E, F),
);
