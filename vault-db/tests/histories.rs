//! Random transactions on many threads, and a check of what they saw.
//!
//! Each transaction reads some lists and appends a number of its own to others, so that a list tells in which order its
//! writers committed, and what a reader saw tells after whom it came. From that follow the dependencies between
//! transactions (Adya: "Weak consistency", 1999; the method is that of Elle, Kingsbury and Alvaro, 2020):
//!
//! - *ww*: b appended behind a;
//! - *wr*: b read what a appended;
//! - *rw*: a read a list that b then appended to.
//!
//! A serializable history has no cycle of them. One under snapshot isolation has none with fewer than two rw edges, and those
//! two follow each other; here: none of ww and wr alone, and none with exactly one rw.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on ends here, and says what it covered"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use vault_core::random::SeededRandom;
use vault_db::{Database, Durability, Error, Isolation, TransactionOptions};

const THREADS: u64 = 4;
const LISTS: u64 = 6;

/// A transaction that committed: what it read before its own appends, and what it appended to.
#[derive(Debug)]
struct Committed {
    id: u64,
    read: BTreeMap<u64, Vec<u64>>,
    appended: BTreeSet<u64>,
}

fn run(isolation: Isolation, seed: u64, each: u64) -> (Vec<Committed>, BTreeMap<u64, Vec<u64>>) {
    let db = Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap();
    let vaults = [db.vault("a").unwrap(), db.vault("b").unwrap()];
    let committed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, vaults, committed) = (&db, &vaults, &committed);
            scope.spawn(move || {
                let random = SeededRandom::new(seed * 100 + thread);
                for n in 0..each {
                    let id = thread * 1_000_000 + n + 1;
                    let options = TransactionOptions {
                        isolation,
                        ..TransactionOptions::default()
                    };
                    let tx = db.begin(options).unwrap();
                    let mut one = Committed {
                        id,
                        read: BTreeMap::new(),
                        appended: BTreeSet::new(),
                    };
                    let of = |list: u64| tx.of(&vaults[(list % 2) as usize]).unwrap();
                    // Some read by key, some by a scan of a whole vault.
                    if random.percent(20) {
                        let half = random.below(2);
                        let mut found: BTreeMap<u64, Vec<u64>> = (0..LISTS)
                            .filter(|list| list % 2 == half)
                            .map(|list| (list, Vec::new()))
                            .collect();
                        for item in of(half).items::<u64, Vec<u64>>().unwrap() {
                            let (list, content) = item.unwrap();
                            found.insert(list, content);
                        }
                        one.read.extend(found);
                    }
                    for _ in 0..1 + random.below(3) {
                        let list = random.below(LISTS);
                        let read = &mut one.read;
                        read.entry(list).or_insert_with(|| {
                            let content: Option<Vec<u64>> = of(list).get(list).unwrap();
                            content.unwrap_or_default()
                        });
                        if random.percent(60) && one.appended.insert(list) {
                            let mut content = one.read[&list].clone();
                            content.push(id);
                            of(list).put(list, &content).unwrap();
                        }
                        std::thread::yield_now();
                    }
                    match tx.commit() {
                        Ok(()) => committed.lock().unwrap().push(one),
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let finals = (0..LISTS).map(|list| {
        let content: Option<Vec<u64>> = vaults[(list % 2) as usize].get(list).unwrap();
        (list, content.unwrap_or_default())
    });
    (committed.into_inner().unwrap(), finals.collect())
}

#[derive(Default)]
struct Edges {
    /// ww and wr.
    plain: BTreeMap<u64, BTreeSet<u64>>,
    rw: BTreeSet<(u64, u64)>,
}

/// Follows what depends on what, and checks on the way that lists only grow, and hold each number once.
fn dependencies(committed: &[Committed], finals: &BTreeMap<u64, Vec<u64>>) -> Edges {
    let mut edges = Edges::default();
    for (list, content) in finals {
        let unique: BTreeSet<u64> = content.iter().copied().collect();
        assert_eq!(
            unique.len(),
            content.len(),
            "list {list} has something twice"
        );
        let appenders: BTreeSet<u64> = committed
            .iter()
            .filter(|one| one.appended.contains(list))
            .map(|one| one.id)
            .collect();
        assert_eq!(
            unique, appenders,
            "list {list}: what committed is not what is there"
        );
        for pair in content.windows(2) {
            edges.plain.entry(pair[0]).or_default().insert(pair[1]);
        }
    }
    for one in committed {
        for (list, seen) in &one.read {
            let content = &finals[list];
            assert!(
                content.starts_with(seen),
                "{one:?} saw of list {list} what never was: {content:?}"
            );
            if let Some(&last) = seen.last() {
                edges.plain.entry(last).or_default().insert(one.id);
            }
            if let Some(&next) = content.get(seen.len())
                && next != one.id
            {
                edges.rw.insert((one.id, next));
            }
        }
    }
    edges
}

fn reaches(edges: &BTreeMap<u64, BTreeSet<u64>>, from: u64, to: u64) -> bool {
    let mut seen = BTreeSet::new();
    let mut left = vec![from];
    while let Some(at) = left.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            left.extend(edges.get(&at).into_iter().flatten());
        }
    }
    false
}

/// A cycle, if there is one: Kahn's algorithm leaves what lies on one.
fn has_cycle(edges: &BTreeMap<u64, BTreeSet<u64>>) -> bool {
    let mut incoming: BTreeMap<u64, usize> = BTreeMap::new();
    for (&from, to) in edges {
        incoming.entry(from).or_default();
        for &to in to {
            *incoming.entry(to).or_default() += 1;
        }
    }
    let mut free: Vec<u64> = incoming
        .iter()
        .filter(|(_, n)| **n == 0)
        .map(|(&id, _)| id)
        .collect();
    let mut done = 0;
    while let Some(id) = free.pop() {
        done += 1;
        for to in edges.get(&id).into_iter().flatten() {
            let left = incoming.get_mut(to).unwrap();
            *left -= 1;
            if *left == 0 {
                free.push(*to);
            }
        }
    }
    done < incoming.len()
}

fn rounds() -> u64 {
    if cfg!(debug_assertions) { 6 } else { 30 }
}

#[test]
fn serializable_histories_have_no_cycle() {
    let (mut transactions, mut antidependencies) = (0, 0);
    for seed in 0..rounds() {
        let (committed, finals) = run(Isolation::Serializable, seed, 300);
        let mut edges = dependencies(&committed, &finals);
        transactions += committed.len();
        antidependencies += edges.rw.len();
        for (from, to) in std::mem::take(&mut edges.rw) {
            edges.plain.entry(from).or_default().insert(to);
        }
        assert!(!has_cycle(&edges.plain), "seed {seed}");
    }
    println!("{transactions} transactions, {antidependencies} antidependencies");
    assert!(antidependencies > 100, "nothing was put to the test");
}

#[test]
fn snapshot_histories_have_no_cycle_that_the_level_forbids() {
    let mut skews = 0;
    for seed in 0..rounds() {
        let (committed, finals) = run(Isolation::Snapshot, seed, 300);
        let edges = dependencies(&committed, &finals);
        assert!(
            !has_cycle(&edges.plain),
            "seed {seed}: a cycle of ww and wr"
        );
        for &(from, to) in &edges.rw {
            assert!(
                !reaches(&edges.plain, to, from),
                "seed {seed}: a cycle with a single rw, {from} to {to}"
            );
        }
        let mut all = edges.plain.clone();
        for &(from, to) in &edges.rw {
            all.entry(from).or_default().insert(to);
        }
        skews += usize::from(has_cycle(&all));
    }
    println!("write skew in {skews} of {} histories", rounds());
}
