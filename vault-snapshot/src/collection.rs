//! When values that are kept apart are moved together, and which.
//!
//! Values above a keyspace's threshold lie in blob files, and tables point to them. A value that no table points to any more
//! is garbage, but its file stays until the last value of it goes. Left alone, random overwrites would leave a little in
//! each file and keep them all. So the files with the most garbage are *collected*: the tables that point into
//! them are rewritten, the values that they point to copied into new files, and the old ones go.
//!
//! # The bounds
//! Copying costs writing, waiting costs space. With a share *d* of garbage in all files, the file with the most of it has more
//! than *d*: under overwrites that hit every key alike, files of one age have the same share of live values *v*, and
//! over all ages `1 - d = (1 - v) / ln(1 / v)`. Each byte that is written anew then makes `v / (1 - v)` bytes be copied:
//!
//! | garbage *d* | live in the oldest *v* | copied for each byte written |
//! | --- | --- | --- |
//! | 20 % | 0.63 | 1.7 |
//! | 25 % | 0.54 | 1.2 |
//! | 30 % | 0.46 | 0.87 |
//! | 33 % | 0.42 | 0.71 |
//! | 40 % | 0.32 | 0.47 |
//!
//! From [`GARBAGE_PERCENT_MAX`] on files are collected. That leaves room for what is not known to be garbage yet, and for the
//! copies, below one and a half times what is live; and with values half as large when compressed, the log
//! (once), the flush (half) and the copies (half of the last column) come to less than twice what was written.
//!
//! # Many short files
//! A flush makes a file of its own, however little it writes, and each file is held open. So short files of about one length are
//! *joined* once there are [`JOINED_MIN`]: the tables that point into several of them are rewritten, and what they point to is
//! copied into one. Lengths are about the same within a factor of eight, so that no byte is copied for this more often
//! than there are such classes of short files: four, from 4 KiB to 8 MiB. (O'Neil and others: "The Log-Structured
//! Merge-Tree", 1996, for runs of like size.)
//!
//! # Invariants
//! - No busy table is chosen.
//! - Files are collected that hold garbage, and at least as much of it as the tables take that must be rewritten for it,
//!   as far as there is so much: pointers are small, but there may be many tables.
//! - Where garbage is less than a quarter of what the pointing tables take, nothing is collected: the bound holds for tables and blob
//!   files together.
//! - Once writes stop, [`choose`] comes to `None`: every step copies live values out of files that hold garbage into ones
//!   that hold none; or has one table point into fewer files than before, and none into more.

use std::collections::{BTreeMap, BTreeSet};

/// Garbage among all blob files, in percent, from which on files are collected.
pub const GARBAGE_PERCENT_MAX: u64 = 32;
/// Garbage, in percent, down to which they are.
const GARBAGE_PERCENT_GOAL: u64 = 29;
/// Bytes of tables that are rewritten for a byte of garbage at most.
const REWRITTEN_MAX: u64 = 4;
/// Blob files that a keyspace is divided into at least, as far as the longest file allows.
const FILES_MIN: u64 = 64;
/// A blob file is at most so many times as long as a table.
const TABLES_MAX: u64 = 16;
/// Short files of about one length, from which on they are joined.
pub const JOINED_MIN: usize = 32;
/// A file of up to this part of a table's length is short.
const SHORT_SHARE: u64 = 8;
/// Files are of about one length whose binary logarithms are the same, divided by this.
const CLASS_BITS: u32 = 3;
/// A table that is rewritten for it points into so many of them at least.
const JOINED_BY_ONE_MIN: usize = 4;
/// From so many files on a table is rewritten whatever it takes itself: the files are what is short then.
const FILES_MANY: usize = 512;

/// A blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobShape {
    /// Its number.
    pub number: u64,
    /// Bytes of the values that were written to it.
    pub bytes: u64,
    /// Bytes of those that tables point to.
    pub live: u64,
    /// Whether it stays as it is: something in it cannot be read.
    pub kept: bool,
}

impl BlobShape {
    const fn garbage(&self) -> u64 {
        self.bytes.saturating_sub(self.live)
    }
}

/// A table that points into blob files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointingTable {
    /// Its number.
    pub number: u64,
    /// Bytes of its own file.
    pub bytes: u64,
    /// The numbers of the blob files that it points into, and the bytes that it points to in each. Ascending.
    pub uses: Vec<(u64, u64)>,
    /// Whether a running job reads it.
    pub busy: bool,
}

/// The blob files of a keyspace, by number, and the tables that point into them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blobs {
    /// The files.
    pub files: Vec<BlobShape>,
    /// The tables.
    pub tables: Vec<PointingTable>,
    /// The length at which a table of the keyspace ends.
    pub table_bytes: u64,
}

/// What to collect next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// The files that are collected. Whatever is merged meanwhile copies what it meets of them.
    pub files: BTreeSet<u64>,
    /// The table that is rewritten next; `None` where all that point into them are busy.
    pub table: Option<u64>,
}

impl Blobs {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    fn garbage(&self) -> u64 {
        self.files.iter().map(BlobShape::garbage).sum()
    }

    /// Whether the garbage is worth rewriting tables for, should all of them be in the way: where large values are the few among
    /// many small ones, the tables are most of the keyspace, and what they would free is little beside them.
    fn is_worth_rewriting(&self) -> bool {
        let tables: u64 = self.tables.iter().map(|table| table.bytes).sum();
        self.garbage().saturating_mul(REWRITTEN_MAX) >= tables
    }

    /// The table by whose rewriting most of these files become one, if that is worth it.
    fn table_to_join(&self, files: &BTreeSet<u64>) -> Option<u64> {
        let are_many = self.files.len() >= FILES_MANY;
        let free = self.tables.iter().filter(|table| !table.busy);
        let joins = free.map(|table| {
            let uses = table.uses.iter().filter(|(file, _)| files.contains(file));
            let (count, bytes) = uses.fold((0, 0), |(n, sum), (_, used)| (n + 1, sum + used));
            (count, bytes, table)
        });
        let worth_it = joins.filter(|&(count, bytes, table): &(usize, u64, _)| {
            let is_cheap = table.bytes <= bytes.saturating_mul(REWRITTEN_MAX);
            count >= JOINED_BY_ONE_MIN && (is_cheap || are_many)
        });
        let most = worth_it.max_by_key(|&(count, _, table)| (count, table.number));
        most.map(|(_, _, table)| table.number)
    }

    /// How far garbage that is worth collecting is beyond its bound: 0 up to there, 1 where it is two thirds of all, so that writers
    /// begin to slow down, and more beyond. It stays below 2, where they would stop: what they write may be the deletes that make it.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        let (bytes, garbage) = (self.bytes() as f64, self.garbage() as f64);
        if bytes == 0.0 || !self.is_worth_rewriting() {
            return 0.0;
        }
        const SLOW: f64 = 2.0 / 3.0;
        const MOST: f64 = 1.9;
        let rest = GARBAGE_PERCENT_MAX as f64 / 100.0;
        ((garbage / bytes - rest) / (SLOW - rest)).clamp(0.0, MOST)
    }
}

/// Chooses what is collected next, if there is so much garbage, or what is joined, if there are so many short files.
#[must_use]
pub fn choose(blobs: &Blobs) -> Option<Collection> {
    choose_garbage(blobs).or_else(|| choose_short(blobs))
}

/// Short files of about one length, once there are many, and the table that points into most of them.
fn choose_short(blobs: &Blobs) -> Option<Collection> {
    if blobs.files.len() < JOINED_MIN {
        return None;
    }
    let mut classes: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for file in &blobs.files {
        if !file.kept && file.bytes.saturating_mul(SHORT_SHARE) <= blobs.table_bytes {
            let class = file.bytes.max(1).ilog2() / CLASS_BITS;
            classes.entry(class).or_default().insert(file.number);
        }
    }
    let joined = classes.into_values().filter(|it| it.len() >= JOINED_MIN);
    joined
        .into_iter()
        .find_map(|files| Some((blobs.table_to_join(&files)?, files)))
        .map(|(table, files)| Collection {
            files,
            table: Some(table),
        })
}

fn choose_garbage(blobs: &Blobs) -> Option<Collection> {
    let (bytes, garbage) = (blobs.bytes(), blobs.garbage());
    let is_little = percent(garbage, bytes) < GARBAGE_PERCENT_MAX;
    if garbage == 0 || is_little || !blobs.is_worth_rewriting() {
        return None;
    }
    let mut by_garbage: Vec<&BlobShape> = blobs.files.iter().filter(|f| f.garbage() > 0).collect();
    // The one with the greater share first. Without division: a / b > c / d where a * d > c * b.
    let share = |a: &BlobShape, b: &BlobShape| {
        let left = u128::from(a.garbage()) * u128::from(b.bytes);
        let right = u128::from(b.garbage()) * u128::from(a.bytes);
        left.cmp(&right)
    };
    by_garbage.sort_by(|a, b| share(b, a).then(a.number.cmp(&b.number)));
    let mut files = BTreeSet::new();
    let (mut freed, mut rewritten) = (0, 0);
    let mut touched = BTreeSet::new();
    for file in by_garbage {
        let left = percent(garbage - freed, bytes.saturating_sub(freed));
        // Files with less garbage than all have together are not worth their copies.
        let worth_it = percent(file.garbage(), file.bytes) >= percent(garbage, bytes);
        let enough = left < GARBAGE_PERCENT_GOAL && freed >= rewritten;
        if !files.is_empty() && (enough || !worth_it) {
            break;
        }
        files.insert(file.number);
        freed += file.garbage();
        for table in blobs.tables.iter().filter(|t| t.uses_of(file.number) > 0) {
            if touched.insert(table.number) {
                rewritten += table.bytes;
            }
        }
    }
    let free = blobs.tables.iter().filter(|table| !table.busy);
    let most = free
        .map(|table| (table.uses_of_all(&files), table.number))
        .filter(|&(live, _)| live > 0)
        .max();
    Some(Collection {
        files,
        table: most.map(|(_, number)| number),
    })
}

impl PointingTable {
    fn uses_of(&self, file: u64) -> u64 {
        let at = self.uses.binary_search_by_key(&file, |&(file, _)| file);
        at.map_or(0, |at| self.uses[at].1)
    }

    fn uses_of_all(&self, files: &BTreeSet<u64>) -> u64 {
        files.iter().map(|&file| self.uses_of(file)).sum()
    }
}

/// So many bytes a blob file of a keyspace with `total` bytes in such files should have, where its tables have
/// `table_bytes`: short enough that there are many to choose from, long enough that there are not too many.
#[must_use]
pub const fn file_bytes(total: u64, table_bytes: u64) -> u64 {
    let wanted = total / FILES_MIN;
    let most = table_bytes.saturating_mul(TABLES_MAX);
    if wanted < table_bytes {
        table_bytes
    } else if wanted > most {
        most
    } else {
        wanted
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    (u128::from(part) * 100)
        .checked_div(u128::from(whole))
        .unwrap_or(0) as u64
}
