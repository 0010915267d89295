//! Ranges of keys.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use vault_core::KeyRange;

use super::{EncodeKey, tag};
use crate::error::Result;

/// What can bound a scan: any of Rust's ranges over keys, or `..`.
///
/// The bounds of an open range reach over keys of every kind: `"a"..` also gives tuples and numbers, which stand
/// behind strings.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// # let vault = db.vault("v")?;
/// vault.update((0..10).map(|n| (n, n)))?;
/// assert_eq!(vault.range::<i32, i32>(2..=4)?.count(), 3);
/// assert_eq!(vault.range::<i32, i32>(..)?.count(), 10);
/// # Ok(())
/// # }
/// ```
pub trait KeyBounds: Sized {
    /// The range of encoded keys.
    ///
    /// # Errors
    /// [`Error::InvalidKey`](crate::Error::InvalidKey).
    fn key_range(self) -> Result<KeyRange>;
}

fn encoded(key: &impl EncodeKey) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    key.encode_key(&mut out)?;
    Ok(out)
}

impl KeyBounds for RangeFull {
    fn key_range(self) -> Result<KeyRange> {
        Ok(KeyRange::all())
    }
}

macro_rules! ranges {
    ($($range:ident: $bounds:expr),* $(,)?) => {$(
        impl<K: EncodeKey> KeyBounds for $range<K> {
            fn key_range(self) -> Result<KeyRange> {
                let bounds: fn(&Self) -> Result<(Bound<Vec<u8>>, Bound<Vec<u8>>)> = $bounds;
                let (start, end) = bounds(&self)?;
                Ok(KeyRange { start, end })
            }
        }
    )*};
}
ranges!(
    Range: |range| Ok((Bound::Included(encoded(&range.start)?), Bound::Excluded(encoded(&range.end)?))),
    RangeInclusive: |range| Ok((Bound::Included(encoded(range.start())?), Bound::Included(encoded(range.end())?))),
    RangeFrom: |range| Ok((Bound::Included(encoded(&range.start)?), Bound::Unbounded)),
    RangeTo: |range| Ok((Bound::Unbounded, Bound::Excluded(encoded(&range.end)?))),
    RangeToInclusive: |range| Ok((Bound::Unbounded, Bound::Included(encoded(&range.end)?))),
);

impl<K: EncodeKey> KeyBounds for (Bound<K>, Bound<K>) {
    fn key_range(self) -> Result<KeyRange> {
        let own = |bound: &Bound<K>| -> Result<Bound<Vec<u8>>> {
            Ok(match bound {
                Bound::Included(key) => Bound::Included(encoded(key)?),
                Bound::Excluded(key) => Bound::Excluded(encoded(key)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        Ok(KeyRange {
            start: own(&self.0)?,
            end: own(&self.1)?,
        })
    }
}

/// The keys that begin with `prefix`: strings and bytes with these first characters, tuples with these first elements.
pub(crate) fn prefix_range(prefix: &impl EncodeKey) -> Result<KeyRange> {
    let encoded = encoded(prefix)?;
    debug_assert!(encoded.first() != Some(&tag::END));
    if encoded.first() != Some(&tag::TUPLE) {
        return Ok(KeyRange::prefix(&encoded));
    }
    // Behind the last element stands the tag of the next one, or nothing. An escape says that this is not its end: its zero
    // byte belongs to a longer one, and what is behind that is no matter.
    let mut end = encoded.clone();
    end.push(tag::ESCAPE);
    Ok(KeyRange::from(&encoded[..]..&end[..]))
}
