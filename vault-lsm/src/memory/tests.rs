//! What the accounts promise, without a store around them.

use super::*;
use crate::options::Settings;

const MIB: u64 = 1 << 20;

fn memory(mib: u64) -> Arc<Memory> {
    let settings = Settings {
        memory_bytes: mib * MIB,
        ..Settings::default()
    };
    Memory::new(Shares::of(&settings).unwrap())
}

#[test]
fn what_is_taken_is_given_back() {
    let memory = memory(64);
    let mut reservation = Reservation::new(&memory, Class::Background, 100);
    reservation.resize(1000);
    reservation.resize(10);
    assert_eq!(memory.used(Class::Background), 10);
    drop(reservation);
    let lease = Lease::reader(&memory, 3, 100).unwrap();
    lease.change(0, 5 * MIB);
    assert!(memory.used(Class::Cursors) >= 5 * MIB + 300);
    lease.change(5 * MIB, 0);
    assert!(memory.used(Class::Cursors) < MIB);
    drop(lease);
    let account = MemtableAccount::new(Arc::clone(&memory));
    account.grow(1000);
    account.seal();
    account.seal();
    assert_eq!(memory.used(Class::Memtables), 1000);
    drop(account);
    let classes = [Class::Memtables, Class::Cursors, Class::Background];
    assert_eq!(classes.map(|class| memory.used(class)), [0; 3]);
    assert!(memory.stats().peak >= 5 * MIB);
}

#[test]
fn what_cannot_give_way_takes_from_the_cache_and_gives_it_back() {
    let memory = memory(64);
    let capacity = || memory.cache().stats().capacity_bytes;
    let usual = capacity();
    let over = Reservation::new(
        &memory,
        Class::Background,
        memory.shares().background + 5 * MIB,
    );
    memory.rebalance();
    assert_eq!(capacity(), usual - 5 * MIB);
    drop(over);
    memory.rebalance();
    assert_eq!(capacity(), usual);
}

#[test]
fn readers_do_with_less_where_memory_is_tight_and_are_refused_last() {
    let memory = memory(64);
    let lease = Lease::reader(&memory, 1, 100).unwrap();
    assert!(lease.window(100 << 10) == 100 << 10 && !lease.is_thrifty());
    let others = Reservation::new(&memory, Class::Cursors, memory.shares().cursors);
    assert_eq!(lease.window(100 << 10), 0);
    let thrifty = Lease::reader(&memory, 1, 100).unwrap();
    assert!(thrifty.is_thrifty() && thrifty.check_room(MIB).is_ok());
    let cache = Reservation::new(&memory, Class::Cursors, memory.shares().cache);
    let refused = Lease::reader(&memory, 1, 100).map(drop);
    assert!(
        matches!(refused, Err(Error::MemoryFull { .. })),
        "{refused:?}"
    );
    assert!(thrifty.check_room(MIB).is_err() && thrifty.check_room(4096).is_ok());
    drop((others, cache));
    assert!(Lease::reader(&memory, 1, 100).is_ok());
}

#[test]
fn compactions_share_their_part_however_many_inputs_they_have() {
    let memory = memory(64);
    let windows = |inputs| Lease::compaction(&memory, inputs).window(1 << 20) * inputs;
    assert!(windows(1) as u64 <= memory.shares().compaction);
    assert!(windows(20) as u64 <= memory.shares().compaction);
    let lease = Lease::compaction(&memory, 4);
    lease.change(0, memory.shares().compaction);
    assert!(lease.is_thrifty());
    lease.change(memory.shares().compaction, 0);
    assert!(!lease.is_thrifty());
    let most = memory.shares().compactions_max;
    let places: Vec<_> = (0..most).map(|_| memory.begin_compaction()).collect();
    assert!(places.iter().all(Option::is_some) && memory.begin_compaction().is_none());
    drop(places);
    assert!(memory.begin_compaction().is_some());
}

#[test]
fn what_waits_leaves_less_to_the_memtables_that_take_writes() {
    let memory = memory(64);
    let shares = *memory.shares();
    let active = MemtableAccount::new(Arc::clone(&memory));
    active.grow(shares.active_max as usize);
    assert!(!memory.seal_is_due());
    let waiting = MemtableAccount::new(Arc::clone(&memory));
    waiting.grow((shares.memtables - shares.active_max / 2) as usize);
    waiting.seal();
    assert!(memory.seal_is_due() && memory.memtables_full(1));
    drop(waiting);
    assert!(!memory.seal_is_due() && !memory.memtables_full(1));
    active.grow(1);
    assert!(memory.seal_is_due());
}

#[test]
fn large_reads_wait_for_one_another() {
    let memory = memory(16);
    let most = memory.shares().cursors as usize / 2;
    let first = memory.begin_large_read(most);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let _second = memory.begin_large_read(most);
            memory.used(Class::Cursors)
        });
        // Whatever the order in which they run, they are never there together.
        std::thread::yield_now();
        drop(first);
        assert_eq!(waiting.join().unwrap(), most as u64);
    });
    assert_eq!(memory.used(Class::Cursors), 0);
}
