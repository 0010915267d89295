//! One writer and several readers at once: what was published must be found, whole and in order.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use super::Memtable;
use crate::cursor::InternalCursor;
use crate::memory::MemtableAccount;

/// How keys follow one another.
#[derive(Clone, Copy, Debug)]
enum Order {
    Scattered,
    Ascending,
    Descending,
    /// Every second insert is a version of one key.
    Hot,
}

impl Order {
    /// The key of the insert with a sequence number, and the value, which tells it.
    fn key(self, sequence: u64) -> [u8; 12] {
        let number = match self {
            Order::Scattered => sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            Order::Ascending => sequence,
            Order::Descending => u64::MAX - sequence,
            Order::Hot if sequence.is_multiple_of(2) => 1 << 63,
            Order::Hot => sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        };
        let mut key = *b"key-00000000";
        key[4..].copy_from_slice(&number.to_be_bytes());
        key
    }
}

/// Checks that exactly the versions up to `published` are there, in order, in one direction.
fn check_scan(table: &Arc<Memtable>, order: Order, published: u64, backwards: bool) {
    let mut cursor = table.cursor();
    if backwards {
        cursor.last().unwrap();
    } else {
        cursor.first().unwrap();
    }
    let mut seen = 0;
    let mut before: Option<(Vec<u8>, u64)> = None;
    while cursor.valid() {
        let (key, trailer) = (cursor.key().to_vec(), cursor.trailer());
        assert_eq!(key, order.key(trailer), "{order:?}");
        assert_eq!(cursor.value(), trailer.to_le_bytes());
        if let Some((last_key, last_trailer)) = &before {
            let in_order = crate::internal_key::compare((last_key, *last_trailer), (&key, trailer));
            assert_eq!(in_order.is_gt(), backwards, "{order:?}");
            assert!(in_order.is_ne());
        }
        seen += u64::from(trailer <= published);
        before = Some((key, trailer));
        if backwards {
            cursor.prev().unwrap();
        } else {
            cursor.next().unwrap();
        }
    }
    assert_eq!(seen, published, "{order:?}, backwards: {backwards}");
}

fn check_visits(table: &Memtable, order: Order, published: u64, seed: u64) {
    for i in 0..64 {
        // The newest few, where the tree is changing, and any others.
        let back = if i % 2 == 0 {
            i
        } else {
            (seed + i).wrapping_mul(0x2545_F491_4F6C_DD1D)
        };
        let sequence = published - back % published;
        // What is approached may be there, or come next, or never.
        table.approach(&order.key(sequence + i));
        let mut found = None;
        let _ = table.visit(&order.key(sequence), sequence, |trailer, value| {
            found = Some((trailer, value.to_vec()));
            ControlFlow::Break(())
        });
        let expected = Some((sequence, sequence.to_le_bytes().to_vec()));
        assert_eq!(found, expected, "{order:?}");
    }
}

fn read_until(
    count: u64,
    table: &Arc<Memtable>,
    order: Order,
    published: &AtomicU64,
    mut round: u64,
) {
    loop {
        let upto = published.load(Ordering::Acquire);
        if upto > 0 {
            check_visits(table, order, upto, round);
            if round.is_multiple_of(4) {
                check_scan(table, order, upto, round.is_multiple_of(8));
            }
        }
        if upto == count {
            check_scan(table, order, upto, false);
            check_scan(table, order, upto, true);
            return;
        }
        round += 1;
        thread::yield_now();
    }
}

/// Joins threads one by one. The end of a scope waits for them too, but ThreadSanitizer does not see that.
fn join<const N: usize>(threads: [ScopedJoinHandle<'_, ()>; N]) {
    for thread in threads {
        thread.join().expect("a thread of the test panicked");
    }
}

fn write_while_reading(order: Order, count: u64) {
    let table = Arc::new(Memtable::new(MemtableAccount::uncounted()));
    let published = AtomicU64::new(0);
    thread::scope(|scope| {
        let readers = [0, 1, 2].map(|seed| {
            let (table, published) = (&table, &published);
            scope.spawn(move || read_until(count, table, order, published, seed))
        });
        for sequence in 1..=count {
            let value = sequence.to_le_bytes();
            table.insert(&order.key(sequence), sequence, [&value[..3], &value[3..]]);
            published.store(sequence, Ordering::Release);
        }
        join(readers);
    });
    assert_eq!(table.entries(), count);
}

fn count() -> u64 {
    if cfg!(miri) { 300 } else { 40_000 }
}

#[test]
fn readers_find_all_that_was_published_of_scattered_keys() {
    // From small to large, because the first levels of the tree grow in the first few hundred inserts.
    for round in 0..if cfg!(miri) { 1 } else { 60 } {
        write_while_reading(Order::Scattered, 500 + round % 300);
    }
    write_while_reading(Order::Scattered, count());
}

#[test]
fn readers_find_all_that_was_published_of_ascending_keys() {
    write_while_reading(Order::Ascending, count());
}

#[test]
fn readers_find_all_that_was_published_of_descending_keys() {
    write_while_reading(Order::Descending, count());
}

#[test]
fn readers_find_all_that_was_published_of_a_hot_key() {
    write_while_reading(Order::Hot, count());
}

#[test]
fn writers_that_break_the_rule_wait_for_one_another() {
    let table = Memtable::new(MemtableAccount::uncounted());
    let each = count() / 4;
    thread::scope(|scope| {
        join([0, 1, 2].map(|writer| {
            let table = &table;
            scope.spawn(move || {
                for i in 0..each {
                    let sequence = i * 3 + writer;
                    table.insert(&Order::Scattered.key(sequence), sequence, [&[], b"v"]);
                }
            })
        }));
    });
    assert_eq!(table.entries(), each * 3);
    for sequence in 0..each * 3 {
        let key = Order::Scattered.key(sequence);
        assert_eq!(table.latest_version(&key), Some(sequence));
    }
}
