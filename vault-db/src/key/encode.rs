//! From keys to bytes.

use super::{Key, NESTING_MAX, tag};
use crate::error::{Error, Result};

/// What can be a key: strings, bytes, integers, booleans, and tuples of up to six of them.
///
/// The encoding keeps the order of what it encodes. A `[u8; N]`, a `&[u8]` and a `Vec<u8>` are *bytes*, not
/// lists of integers.
///
/// ```
/// use vault_db::{Database, Result};
/// # fn main() -> Result<()> {
/// let db = Database::temp()?;
/// let orders = db.vault("orders")?;
/// orders.put(("alice", 2024, 17), &"a lamp")?;
/// assert_eq!(orders.get::<String>(("alice", 2024, 17))?.as_deref(), Some("a lamp"));
/// # Ok(())
/// # }
/// ```
pub trait EncodeKey {
    /// Appends the key as it stands by itself.
    ///
    /// # Errors
    /// [`Error::InvalidKey`].
    fn encode_key(&self, out: &mut Vec<u8>) -> Result<()>;

    /// Appends the key as an element of a tuple. `depth` is how many tuples it stands in.
    ///
    /// # Errors
    /// [`Error::InvalidKey`].
    fn encode_element(&self, out: &mut Vec<u8>, depth: usize) -> Result<()>;
}

/// Appends content of a tuple that ends with a zero byte.
fn put_escaped(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    for &byte in content {
        out.push(byte);
        if byte == tag::END {
            out.push(tag::ESCAPE);
        }
    }
    out.push(tag::END);
}

fn put_whole(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.reserve(content.len() + 1);
    out.push(tag);
    out.extend_from_slice(content);
}

fn put_integer(out: &mut Vec<u8>, number: i128) -> Result<()> {
    let magnitude = u64::try_from(number.unsigned_abs());
    let (Ok(magnitude), true) = (magnitude, number >= i128::from(i64::MIN)) else {
        return Err(Error::InvalidKey {
            problem: format!("{number} is not between -2^63 and 2^64 - 1"),
        });
    };
    let leading = magnitude.leading_zeros() as usize / 8;
    let len = (8 - leading) as u8;
    if number < 0 {
        out.push(tag::ZERO - len);
        out.extend_from_slice(&(!magnitude).to_be_bytes()[leading..]);
    } else {
        out.push(tag::ZERO + len);
        out.extend_from_slice(&magnitude.to_be_bytes()[leading..]);
    }
    Ok(())
}

impl EncodeKey for str {
    #[inline]
    fn encode_key(&self, out: &mut Vec<u8>) -> Result<()> {
        put_whole(out, tag::STRING, self.as_bytes());
        Ok(())
    }

    fn encode_element(&self, out: &mut Vec<u8>, _: usize) -> Result<()> {
        put_escaped(out, tag::STRING, self.as_bytes());
        Ok(())
    }
}

impl EncodeKey for [u8] {
    #[inline]
    fn encode_key(&self, out: &mut Vec<u8>) -> Result<()> {
        put_whole(out, tag::BYTES, self);
        Ok(())
    }

    fn encode_element(&self, out: &mut Vec<u8>, _: usize) -> Result<()> {
        put_escaped(out, tag::BYTES, self);
        Ok(())
    }
}

impl EncodeKey for bool {
    fn encode_key(&self, out: &mut Vec<u8>) -> Result<()> {
        out.push(if *self { tag::TRUE } else { tag::FALSE });
        Ok(())
    }

    fn encode_element(&self, out: &mut Vec<u8>, _: usize) -> Result<()> {
        self.encode_key(out)
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl EncodeKey for $integer {
            fn encode_key(&self, out: &mut Vec<u8>) -> Result<()> {
                put_integer(out, i128::from(*self))
            }

            fn encode_element(&self, out: &mut Vec<u8>, _: usize) -> Result<()> {
                self.encode_key(out)
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64, i128);

macro_rules! through {
    ($([$($generics:tt)*] $from:ty => $to:ty),* $(,)?) => {$(
        impl<$($generics)*> EncodeKey for $from {
            fn encode_key(&self, out: &mut Vec<u8>) -> Result<()> {
                <$to as EncodeKey>::encode_key(self, out)
            }

            fn encode_element(&self, out: &mut Vec<u8>, depth: usize) -> Result<()> {
                <$to as EncodeKey>::encode_element(self, out, depth)
            }
        }
    )*};
}
through!(
    [] String => str,
    [] Vec<u8> => [u8],
    [const N: usize] [u8; N] => [u8],
    [] std::borrow::Cow<'_, str> => str,
    [] vault_core::Slice => [u8],
    [T: EncodeKey + ?Sized] &T => T,
    [T: EncodeKey + ?Sized] Box<T> => T,
);

macro_rules! tuples {
    ($(($($element:ident),+)),* $(,)?) => {$(
        impl<$($element: EncodeKey),+> EncodeKey for ($($element,)+) {
            #[expect(non_snake_case, reason = "an element goes by the name of its type")]
            fn encode_key(&self, out: &mut Vec<u8>) -> Result<()> {
                let ($($element,)+) = self;
                out.push(tag::TUPLE);
                $($element.encode_element(out, 1)?;)+
                Ok(())
            }

            fn encode_element(&self, out: &mut Vec<u8>, depth: usize) -> Result<()> {
                #[expect(non_snake_case, reason = "an element goes by the name of its type")]
                let ($($element,)+) = self;
                check_depth(depth)?;
                out.push(tag::TUPLE);
                $($element.encode_element(out, depth + 1)?;)+
                out.push(tag::END);
                Ok(())
            }
        }
    )*};
}
tuples!(
    (A),
    (A, B),
    (A, B, C),
    (A, B, C, D),
    (A, B, C, D, E),
    (A, B, C, D, E, F)
);

fn check_depth(depth: usize) -> Result<()> {
    if depth >= NESTING_MAX {
        let problem = format!("it has more than {NESTING_MAX} tuples in one another");
        return Err(Error::InvalidKey { problem });
    }
    Ok(())
}

impl EncodeKey for Key {
    fn encode_key(&self, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Bytes(bytes) => bytes.encode_key(out),
            Self::String(string) => string.encode_key(out),
            Self::Integer(number) => number.encode_key(out),
            Self::Bool(bool) => bool.encode_key(out),
            Self::Tuple(elements) => {
                out.push(tag::TUPLE);
                elements
                    .iter()
                    .try_for_each(|element| element.encode_element(out, 1))
            }
        }
    }

    fn encode_element(&self, out: &mut Vec<u8>, depth: usize) -> Result<()> {
        match self {
            Self::Bytes(bytes) => bytes.encode_element(out, depth),
            Self::String(string) => string.encode_element(out, depth),
            Self::Integer(number) => number.encode_element(out, depth),
            Self::Bool(bool) => bool.encode_element(out, depth),
            Self::Tuple(elements) => {
                check_depth(depth)?;
                out.push(tag::TUPLE);
                for element in elements {
                    element.encode_element(out, depth + 1)?;
                }
                out.push(tag::END);
                Ok(())
            }
        }
    }
}
