//! The memtable: one writer, a reader that never waits, leaves and inner nodes replaced meanwhile.
//!
//! A memtable is filled by one thread up to a certain point, and from there on a writer and a reader go on
//! at the same time. The points are chosen one after another, so that every kind of insert is once the
//! concurrent one: the first of all, into a leaf, one that splits a leaf, one that splits or replaces an
//! inner node, one that makes a new root.
//!
//! What is checked: a reader finds everything that was published when it began, whole and in order; and no
//! byte of the arena is read that is not ordered behind its being written (`sync::memory`).
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::ops::ControlFlow;
use std::sync::Arc;

use super::explore::{fails, holds};
use crate::cursor::InternalCursor;
use crate::internal_key;
use crate::memory::MemtableAccount;
use crate::memtable::Memtable;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Break, break_in, thread};

/// How keys follow one another.
#[derive(Clone, Copy, Debug)]
enum Order {
    Scattered,
    Ascending,
    Descending,
    /// All inserts are versions of one key.
    Hot,
    /// As scattered, and each entry gets a chunk of the arena for itself.
    Large,
}

use Order::{Ascending, Descending, Hot, Large, Scattered};

/// What the reader does.
#[derive(Clone, Copy, Debug)]
enum Read {
    /// Looks up the newest and the oldest published entry.
    Visit,
    Forwards,
    Backwards,
}

/// Inserts before the reader begins, inserts beside it, and what these are.
#[derive(Clone, Copy, Debug)]
struct Case {
    before: u64,
    beside: u64,
    order: Order,
    read: Read,
}

impl Order {
    fn value(self, sequence: u64) -> Vec<u8> {
        let mut value = sequence.to_le_bytes().to_vec();
        if matches!(self, Large) {
            value.resize(2_000, 7);
        }
        value
    }

    fn key(self, sequence: u64) -> [u8; 8] {
        let number = match self {
            Scattered | Large => sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            Ascending => sequence,
            Descending => u64::MAX - sequence,
            Hot => 7,
        };
        number.to_be_bytes()
    }
}

struct Shared {
    table: Arc<Memtable>,
    visible: AtomicU64,
    order: Order,
}

impl Shared {
    fn insert(&self, sequence: u64) {
        let value = self.order.value(sequence);
        let key = self.order.key(sequence);
        self.table
            .insert(&key, sequence, [&value[..3], &value[3..]]);
    }

    /// As the engine commits: insert, then publish.
    fn write(&self, sequence: u64) {
        self.insert(sequence);
        self.visible.store(sequence, Ordering::Release);
    }

    fn visit(&self, upto: u64) {
        for sequence in [upto, 1] {
            let mut found = None;
            let _ = self
                .table
                .visit(&self.order.key(sequence), sequence, |trailer, value| {
                    found = Some((trailer, value.to_vec()));
                    ControlFlow::Break(())
                });
            let expected = Some((sequence, self.order.value(sequence)));
            assert_eq!(found, expected, "a published entry is not found");
        }
    }

    fn scan(&self, upto: u64, backwards: bool) {
        let mut cursor = self.table.cursor();
        if backwards {
            cursor.last().unwrap();
        } else {
            cursor.first().unwrap();
        }
        let mut seen = 0;
        let mut before: Option<(Vec<u8>, u64)> = None;
        while cursor.valid() {
            let (key, trailer) = (cursor.key().to_vec(), cursor.trailer());
            assert_eq!(key, self.order.key(trailer));
            assert_eq!(cursor.value(), self.order.value(trailer));
            if let Some((last_key, last_trailer)) = &before {
                let order = internal_key::compare((last_key, *last_trailer), (&key, trailer));
                assert!(order.is_ne() && order.is_gt() == backwards, "out of order");
            }
            seen += u64::from(trailer <= upto);
            before = Some((key, trailer));
            if backwards {
                cursor.prev().unwrap();
            } else {
                cursor.next().unwrap();
            }
        }
        assert_eq!(seen, upto, "a published entry is not found");
    }
}

impl Shared {
    fn filled(case: Case) -> Arc<Self> {
        let shared = Self {
            table: Arc::new(Memtable::new(MemtableAccount::uncounted())),
            visible: AtomicU64::new(0),
            order: case.order,
        };
        (1..=case.before).for_each(|sequence| shared.write(sequence));
        Arc::new(shared)
    }

    fn reader(self: &Arc<Self>, read: Read) -> thread::JoinHandle<()> {
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let upto = shared.visible.load(Ordering::Acquire);
            match read {
                Read::Visit if upto == 0 => {}
                Read::Visit => shared.visit(upto),
                Read::Forwards => shared.scan(upto, false),
                Read::Backwards => shared.scan(upto, true),
            }
        })
    }
}

fn run(case: Case, write: fn(&Shared, u64)) {
    let shared = Shared::filled(case);
    let reader = shared.reader(case.read);
    let all = case.before + case.beside;
    (case.before + 1..=all).for_each(|sequence| write(&shared, sequence));
    reader.join().unwrap();
    assert_eq!(shared.table.entries(), all);
    shared.scan(all, false);
}

fn as_it_is(case: Case) {
    run(case, Shared::write);
}

/// Every filling up to `before_max`, with one kind of key.
fn fillings(order: Order, before_max: u64, beside: u64, read: Read) -> impl Iterator<Item = Case> {
    (0..=before_max).map(move |before| Case {
        before,
        beside,
        order,
        read,
    })
}

/// Enough entries for two inner levels with the small nodes of models.
const TWO_LEVELS: u64 = 26;

#[test]
fn lookups_beside_inserts() {
    for order in [Scattered, Ascending, Descending, Hot] {
        let name = format!("memtable: look-ups beside inserts, {order:?}");
        holds(&name, fillings(order, TWO_LEVELS, 2, Read::Visit), as_it_is);
    }
}

#[test]
fn scans_beside_inserts() {
    for order in [Scattered, Ascending, Descending, Hot] {
        for read in [Read::Forwards, Read::Backwards] {
            let name = format!("memtable: {read:?} beside inserts, {order:?}");
            holds(&name, fillings(order, TWO_LEVELS, 1, read), as_it_is);
        }
    }
}

#[test]
fn the_cases_reach_every_kind_of_node() {
    for order in [Scattered, Ascending, Descending, Hot] {
        holds(
            &format!("memtable: two inner levels, {order:?}"),
            [order],
            |order| {
                let table = Memtable::new(MemtableAccount::uncounted());
                for sequence in 1..=TWO_LEVELS {
                    table.insert(&order.key(sequence), sequence, [&[], &[]]);
                }
                assert!(
                    table.inner_levels() >= 2,
                    "the nodes are too large for these models"
                );
            },
        );
    }
}

#[test]
fn chunks_beside_inserts() {
    let cases = fillings(Large, 3, 3, Read::Visit);
    holds("memtable: look-ups beside new chunks", cases, as_it_is);
}

#[test]
fn two_readers_beside_inserts() {
    let reads = |case: Case| {
        let shared = Shared::filled(case);
        let readers = [Read::Visit, Read::Forwards].map(|read| shared.reader(read));
        shared.write(case.before + 1);
        for reader in readers {
            reader.join().unwrap();
        }
    };
    let cases = fillings(Scattered, 9, 1, Read::Visit);
    holds("memtable: two readers beside an insert", cases, reads);
}

/// Versions of a key that come with smaller trailers than those before are found in order nevertheless:
/// a reader that sees the entry also sees the note that entries came out of order.
#[test]
fn versions_out_of_order() {
    let out_of_order = |last: u64| {
        let table = Arc::new(Memtable::new(MemtableAccount::uncounted()));
        table.insert(b"key", 5, [&[], b"5"]);
        table.insert(b"key", 9, [&[], b"9"]);
        let reader = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let mut found = Vec::new();
                let _ = table.visit(b"key", u64::MAX, |trailer, _| {
                    found.push(trailer);
                    ControlFlow::Continue(())
                });
                assert!(found.is_sorted_by(|a, b| a > b), "wrong: {found:?}");
                assert!(found.contains(&5) && found.contains(&9), "wrong: {found:?}");
            })
        };
        table.insert(b"key", last, [&[], b"last"]);
        reader.join().unwrap();
    };
    holds("memtable: versions out of order", [7, 3], out_of_order);
}

#[test]
fn range_tombstones_beside_readers() {
    holds("memtable: range tombstones beside readers", [()], |()| {
        deletions();
    });
}

#[test]
fn range_tombstones_published_without_release() {
    break_in("models/memtable.rs", Break::RelaxStores);
    let name = "memtable: broken, range tombstones without release of visible";
    fails(name, "wrong: ", [()], |()| deletions());
}

/// One writer deletes ranges, two readers ask for the fragments: what was published is in them.
fn deletions() {
    let shared = Arc::new((
        Memtable::new(MemtableAccount::uncounted()),
        AtomicU64::new(0),
    ));
    let readers = [(); 2].map(|()| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let upto = shared.1.load(Ordering::Acquire);
            let fragments = shared.0.range_tombstones();
            let covering = fragments.and_then(|f| f.covering(b"b", upto));
            assert_eq!(
                covering.unwrap_or(0),
                upto,
                "wrong: a deletion is not found"
            );
        })
    });
    for sequence in 1..=2 {
        shared.0.insert_range_tombstone(b"a", b"c", sequence);
        shared.1.store(sequence, Ordering::Release);
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn nodes_published_without_release() {
    break_in("memtable/node.rs", Break::RelaxStores);
    let cases = fillings(Scattered, 2, 2, Read::Visit);
    fails(
        "memtable: broken, node.rs releases nothing",
        "Causality",
        cases,
        as_it_is,
    );
}

#[test]
fn nodes_read_without_acquire() {
    break_in("memtable/node.rs", Break::RelaxLoads);
    let cases = fillings(Scattered, 2, 2, Read::Visit);
    fails(
        "memtable: broken, node.rs acquires nothing",
        "Causality",
        cases,
        as_it_is,
    );
}

#[test]
fn roots_published_without_release() {
    break_in("memtable/tree.rs", Break::RelaxStores);
    let cases = fillings(Scattered, 5, 1, Read::Visit);
    fails(
        "memtable: broken, tree.rs releases nothing",
        "Causality",
        cases,
        as_it_is,
    );
}

#[test]
fn chunks_published_without_release() {
    break_in("memtable/arena.rs", Break::RelaxStores);
    let cases = fillings(Scattered, 5, 1, Read::Visit);
    holds("memtable: arena.rs releases nothing", cases, as_it_is);
}

#[test]
fn visible_before_it_is_inserted() {
    fn too_early(case: Case) {
        run(case, |shared, sequence| {
            shared.visible.store(sequence, Ordering::Release);
            shared.insert(sequence);
        });
    }
    let cases = fillings(Scattered, 2, 1, Read::Visit);
    fails(
        "memtable: broken, published before the insert",
        "not found",
        cases,
        too_early,
    );
}

#[test]
fn visible_without_release() {
    break_in("models/memtable.rs", Break::RelaxStores);
    let cases = fillings(Scattered, 2, 1, Read::Visit);
    fails(
        "memtable: broken, visible releases nothing",
        "not found",
        cases,
        as_it_is,
    );
}
