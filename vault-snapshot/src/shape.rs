//! What a policy looks at: tables, runs and levels as numbers and borrowed keys.
//!
//! # What the engine promises
//! - The tables of a run don't overlap and ascend; every version of a key of a run lies in one table.
//! - The runs of a level stand newest first, and a level's data is newer than that of the levels below
//!   wherever they overlap.
//! - A table's keys lie between [`TableShape::smallest`] and [`TableShape::largest`], those that its
//!   range tombstones cover included.
//! - Tables that a running merge reads are `busy` until its outcome takes their place.

use vault_core::{KeyRange, Timestamp};

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableShape<'a> {
    /// Its file number.
    pub number: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of the values that it points to in other files.
    pub apart_bytes: u64,
    /// Entries, point tombstones included, range tombstones not.
    pub entries: u64,
    /// Point tombstones.
    pub tombstones: u64,
    /// Range tombstones.
    pub range_tombstones: u64,
    /// The smallest key that it holds or covers.
    pub smallest: &'a [u8],
    /// The largest key that it holds or covers.
    pub largest: &'a [u8],
    /// Whether `largest` is the end of a range tombstone, and so not itself covered.
    pub largest_exclusive: bool,
    /// The smallest sequence in it.
    pub sequence_min: u64,
    /// The largest sequence in it.
    pub sequence_max: u64,
    /// The latest expiry, only if every entry carries one and there are no tombstones of any kind.
    pub expiry_max: Option<Timestamp>,
    /// Entries with an expiry.
    pub expiring: u64,
    /// A moment by which about half of the expiring entries will have expired, if known. May be `None`;
    /// must be of this table's entries, not inherited from what it was merged from.
    pub expiry_median_hint: Option<Timestamp>,
    /// Whether a running merge reads it.
    pub busy: bool,
    /// Whether a range delete that every reader sees, and that stands in another table, hides all of it.
    pub hidden: bool,
    /// Entries that were kept, when it was written, only because a snapshot could still see them; 0 where that is not known.
    pub shadowed: u64,
}

impl<'a> TableShape<'a> {
    /// The keys it holds or covers.
    #[must_use]
    pub const fn span(&self) -> Span<'a> {
        Span {
            smallest: self.smallest,
            largest: self.largest,
            largest_exclusive: self.largest_exclusive,
        }
    }
}

/// Tables that don't overlap, ascending by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunShape<'a> {
    /// The tables.
    pub tables: Vec<TableShape<'a>>,
}

impl<'a> RunShape<'a> {
    /// Bytes of all tables.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }

    /// Bytes of all tables and of the values that they point to.
    #[must_use]
    pub fn bytes_with_values(&self) -> u64 {
        let tables = self.tables.iter();
        tables.map(|table| table.bytes + table.apart_bytes).sum()
    }

    /// Whether a running merge reads any of the tables.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.tables.iter().any(|table| table.busy)
    }

    /// The keys from its first table to its last, or `None` if it is empty.
    #[must_use]
    pub fn span(&self) -> Option<Span<'a>> {
        let (first, last) = (self.tables.first()?, self.tables.last()?);
        Some(first.span().union(&last.span()))
    }

    /// The tables that overlap `span`. Takes logarithmic time.
    #[must_use]
    pub fn overlapping(&self, span: &Span<'_>) -> &[TableShape<'a>] {
        let first = self.tables.partition_point(|t| t.span().is_before(span));
        let behind = self.tables.partition_point(|t| !span.is_before(&t.span()));
        &self.tables[first..behind.max(first)]
    }

    /// The tables that may hold or cover keys of `range`.
    #[must_use]
    pub fn within(&self, range: &KeyRange) -> &[TableShape<'a>] {
        if range.is_empty() {
            return &[];
        }
        let first = self
            .tables
            .partition_point(|t| t.span().is_before_range(range));
        let behind = self
            .tables
            .partition_point(|t| range.is_before_end(t.smallest));
        &self.tables[first..behind.max(first)]
    }
}

/// The runs of a level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LevelShape<'a> {
    /// The runs, newest first.
    pub runs: Vec<RunShape<'a>>,
}

impl LevelShape<'_> {
    /// Bytes of all runs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(RunShape::bytes).sum()
    }

    /// Whether it holds no table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.tables.is_empty())
    }
}

/// A keyspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape<'a> {
    /// The levels, newest first.
    pub levels: Vec<LevelShape<'a>>,
    /// The smallest time that any later reader goes by. Merges must decide by this time or a later one
    /// ([`Rules::now`](crate::visibility::Rules::now)): a policy has tables rewritten for what expired.
    pub now: Timestamp,
    /// The oldest sequence that a reader stands at: of the versions up to here every reader sees the
    /// same. The last published sequence where nobody holds a snapshot. Merges must know no older
    /// snapshot than this one: a policy has tables rewritten for deletes that every reader sees.
    pub oldest_snapshot: u64,
    /// Bytes of a table before the engine begins the next one.
    pub table_bytes: u64,
    /// Whether nobody writes for now: what reads gain by a merge then counts for more than what it costs.
    pub at_rest: bool,
}

impl<'a> Shape<'a> {
    /// Whether data that is older than run `run` of level `level` overlaps `span`.
    #[must_use]
    pub fn older_overlaps(&self, level: usize, run: usize, span: &Span<'_>) -> bool {
        self.older_runs(level, run)
            .any(|older| !older.overlapping(span).is_empty())
    }

    /// The runs that are older than run `run` of level `level`.
    pub(crate) fn older_runs(
        &self,
        level: usize,
        run: usize,
    ) -> impl Iterator<Item = &RunShape<'a>> {
        let here = self.levels.get(level).map_or(&[][..], |level| &level.runs);
        let deeper = self
            .levels
            .iter()
            .skip(level + 1)
            .flat_map(|level| &level.runs);
        here.iter().skip(run + 1).chain(deeper)
    }

    /// The runs of a level; none where the level does not exist.
    pub(crate) fn runs(&self, level: usize) -> &[RunShape<'a>] {
        self.levels.get(level).map_or(&[], |level| &level.runs)
    }

    /// Bytes of a level.
    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.levels.get(level).map_or(0, LevelShape::bytes)
    }
}

/// A stretch of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<'a> {
    /// The smallest key.
    pub smallest: &'a [u8],
    /// The largest key.
    pub largest: &'a [u8],
    /// Whether `largest` itself lies outside.
    pub largest_exclusive: bool,
}

impl<'a> Span<'a> {
    /// Whether every key of this lies before every key of `other`.
    #[must_use]
    pub fn is_before(&self, other: &Span<'_>) -> bool {
        if self.largest_exclusive {
            self.largest <= other.smallest
        } else {
            self.largest < other.smallest
        }
    }

    /// Whether a key may lie in both.
    #[must_use]
    pub fn overlaps(&self, other: &Span<'_>) -> bool {
        !self.is_before(other) && !other.is_before(self)
    }

    /// The smallest stretch that holds both.
    #[must_use]
    pub fn union(&self, other: &Span<'a>) -> Span<'a> {
        // Of two equal ends the inclusive one reaches further.
        let ends_later =
            (self.largest, !self.largest_exclusive) >= (other.largest, !other.largest_exclusive);
        let end = if ends_later { self } else { other };
        Span {
            smallest: self.smallest.min(other.smallest),
            ..*end
        }
    }

    fn is_before_range(&self, range: &KeyRange) -> bool {
        use std::ops::Bound;
        match &range.start {
            Bound::Included(start) | Bound::Excluded(start) if self.largest_exclusive => {
                self.largest <= start.as_slice()
            }
            _ => !range.is_after_start(self.largest),
        }
    }
}

/// The stretch that holds all of `tables`, or `None` where there are none.
pub(crate) fn span_of<'s, 'a: 's>(
    tables: impl IntoIterator<Item = &'s TableShape<'a>>,
) -> Option<Span<'a>> {
    tables
        .into_iter()
        .map(TableShape::span)
        .reduce(|a, b| a.union(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<'a>(smallest: &'a str, largest: &'a str, largest_exclusive: bool) -> TableShape<'a> {
        TableShape {
            number: 1,
            bytes: 1,
            apart_bytes: 0,
            entries: 1,
            tombstones: 0,
            range_tombstones: 0,
            smallest: smallest.as_bytes(),
            largest: largest.as_bytes(),
            largest_exclusive,
            sequence_min: 1,
            sequence_max: 1,
            expiry_max: None,
            expiring: 0,
            expiry_median_hint: None,
            busy: false,
            hidden: false,
            shadowed: 0,
        }
    }

    #[test]
    fn an_exclusive_end_touches_nothing() {
        let run = RunShape {
            tables: vec![table("a", "c", true), table("c", "e", false)],
        };
        let count = |span: Span<'_>| run.overlapping(&span).len();
        assert_eq!(count(table("c", "d", false).span()), 1);
        assert_eq!(count(table("b", "c", true).span()), 1);
        assert_eq!(count(table("b", "c", false).span()), 2);
        assert_eq!(count(table("f", "g", false).span()), 0);
        assert_eq!(run.within(&KeyRange::from(&b"c"[..]..)).len(), 1);
        assert_eq!(run.within(&KeyRange::from(..&b"c"[..])).len(), 1);
        assert_eq!(run.within(&KeyRange::from(..=&b"c"[..])).len(), 2);
        assert_eq!(run.within(&KeyRange::from(&b"d"[..]..&b"b"[..])).len(), 0);
        let whole = run.span().unwrap();
        assert_eq!((whole.smallest, whole.largest), (&b"a"[..], &b"e"[..]));
    }
}
