//! Key ranges and prefixes: what is empty, what is within, and where a prefix ends.

use std::ops::{Bound, RangeBounds};

use arbitrary::Arbitrary;
use vault_core::KeyRange;
use vault_core::range::successor_of_prefix;

/// A range and keys that are asked for.
#[derive(Debug, Arbitrary)]
pub struct Input<'a> {
    /// Where it begins: unbounded, with the key, or behind it.
    pub start: Edge<'a>,
    /// Where it ends.
    pub end: Edge<'a>,
    /// Keys that are looked for in it, and taken for prefixes.
    pub keys: Vec<&'a [u8]>,
}

/// An edge of a range.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Edge<'a> {
    /// There is none.
    Open,
    /// The key is within.
    With(&'a [u8]),
    /// The key is not.
    Without(&'a [u8]),
}

impl<'a> From<Edge<'a>> for Bound<&'a [u8]> {
    fn from(edge: Edge<'a>) -> Self {
        match edge {
            Edge::Open => Self::Unbounded,
            Edge::With(key) => Self::Included(key),
            Edge::Without(key) => Self::Excluded(key),
        }
    }
}

/// Holds ranges against what their bounds say.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let bounds = (Bound::from(input.start), Bound::from(input.end));
    let range = KeyRange::new::<&[u8]>(bounds);
    for &key in &input.keys {
        let within = RangeBounds::<[u8]>::contains(&bounds, key);
        assert_eq!(range.contains(key), within, "{key:?}");
        assert!(
            !within || !range.is_empty(),
            "an empty range that holds {key:?}"
        );
        prefix(key, &input.keys);
    }
    if range.check_order().is_err() {
        assert!(range.is_empty(), "bounds the wrong way round hold nothing");
    }
}

fn prefix(prefix: &[u8], keys: &[&[u8]]) {
    let end = successor_of_prefix(prefix);
    let range = KeyRange::prefix(prefix);
    for &key in keys {
        let begins = key.starts_with(prefix);
        assert_eq!(range.contains(key), begins, "{key:?} under {prefix:?}");
        let before_end = end.as_ref().is_none_or(|end| key < &end[..]);
        assert_eq!(begins, key >= prefix && before_end);
    }
}
