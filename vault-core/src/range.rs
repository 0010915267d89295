//! Ranges of keys.

use std::ops::{Bound, RangeBounds};

use crate::error::{Error, Result, printable};

/// A range of keys with owned bounds, in bytewise order.
///
/// A range whose bounds are the wrong way round is *empty* for scans, as the standard library's
/// iterators treat it where they don't panic; verbs that change data (range delete, compact, ingest)
/// refuse it with [`Error::InvertedRange`], because there it is always a mistake.
///
/// ```
/// use vault_core::KeyRange;
/// let range = KeyRange::from(&b"a"[..]..&b"c"[..]);
/// assert!(range.contains(b"b") && !range.contains(b"c"));
/// assert!(KeyRange::prefix(b"user:").contains(b"user:7"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The lower bound.
    pub start: Bound<Vec<u8>>,
    /// The upper bound.
    pub end: Bound<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
        }
    }

    /// Every key that begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let end = successor_of_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self {
            start: Bound::Included(prefix.to_vec()),
            end,
        }
    }

    /// Copies the bounds of any range of byte strings.
    pub fn new<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> Self {
        let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        Self {
            start: own(range.start_bound()),
            end: own(range.end_bound()),
        }
    }

    /// Whether `key` lies within both bounds.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.is_after_start(key) && self.is_before_end(key)
    }

    /// Whether `key` lies at or behind the lower bound.
    #[must_use]
    pub fn is_after_start(&self, key: &[u8]) -> bool {
        match &self.start {
            Bound::Included(start) => key >= start.as_slice(),
            Bound::Excluded(start) => key > start.as_slice(),
            Bound::Unbounded => true,
        }
    }

    /// Whether `key` lies at or before the upper bound.
    #[must_use]
    pub fn is_before_end(&self, key: &[u8]) -> bool {
        match &self.end {
            Bound::Included(end) => key <= end.as_slice(),
            Bound::Excluded(end) => key < end.as_slice(),
            Bound::Unbounded => true,
        }
    }

    /// Whether no key can lie within the bounds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
            _ => false,
        }
    }

    /// Refuses a range whose end lies before its start. An empty range such as `b..b` passes.
    ///
    /// # Errors
    /// [`Error::InvertedRange`].
    pub fn check_order(&self) -> Result<()> {
        match (&self.start, &self.end) {
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) if start > end => Err(Error::InvertedRange {
                start: printable(start),
                end: printable(end),
            }),
            _ => Ok(()),
        }
    }
}

impl Default for KeyRange {
    fn default() -> Self {
        Self::all()
    }
}

macro_rules! from_std_range {
    ($($range:ty),*) => {$(
        impl From<$range> for KeyRange {
            fn from(range: $range) -> Self {
                Self::new::<&[u8]>(range)
            }
        }
    )*};
}
from_std_range!(
    std::ops::Range<&[u8]>,
    std::ops::RangeInclusive<&[u8]>,
    std::ops::RangeFrom<&[u8]>,
    std::ops::RangeTo<&[u8]>,
    std::ops::RangeToInclusive<&[u8]>,
    std::ops::RangeFull
);

/// The smallest key that is greater than every key with this prefix, or `None` where there is none
/// (an empty prefix, or one of only `0xff`).
///
/// ```
/// use vault_core::range::successor_of_prefix;
/// assert_eq!(successor_of_prefix(b"ab\xff"), Some(b"ac".to_vec()));
/// assert_eq!(successor_of_prefix(b"\xff"), None);
/// ```
#[must_use]
pub fn successor_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_every_form() {
        let key = |k: &str| k.as_bytes().to_vec();
        let open = KeyRange {
            start: Bound::Excluded(key("b")),
            end: Bound::Excluded(key("d")),
        };
        assert!(!open.contains(b"b") && open.contains(b"ba") && !open.contains(b"d"));
        let closed = KeyRange {
            start: Bound::Included(key("b")),
            end: Bound::Included(key("d")),
        };
        assert!(closed.contains(b"b") && closed.contains(b"d") && !closed.contains(b"da"));
        assert!(KeyRange::all().contains(b"") && KeyRange::from(..).contains(b"\xff"));
    }

    #[test]
    fn empty_and_inverted_are_told_apart() {
        let empty = KeyRange::from(&b"b"[..]..&b"b"[..]);
        assert!(empty.is_empty() && empty.check_order().is_ok());
        let inverted = KeyRange::new(&b"c"[..]..&b"b"[..]);
        assert!(inverted.is_empty());
        assert!(matches!(
            inverted.check_order(),
            Err(Error::InvertedRange { .. })
        ));
    }

    #[test]
    fn prefix_of_all_ones_has_no_end() {
        let range = KeyRange::prefix(b"\xff\xff");
        assert_eq!(range.end, Bound::Unbounded);
        assert!(range.contains(b"\xff\xff\x00") && !range.contains(b"\xff\xfe"));
    }
}
