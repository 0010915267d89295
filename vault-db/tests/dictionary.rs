//! The verbs of a dictionary: what is put comes back, and what is changed is changed with nobody between.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use vault_db::{Database, Durability, Key};

fn temp() -> Database {
    Database::builder()
        .durability(Durability::Os)
        .temp()
        .unwrap()
}

#[test]
fn the_verbs_of_a_dictionary() {
    let db = temp();
    let vault = db.vault("items").unwrap();
    assert!(vault.is_empty().unwrap());
    vault.put("a", &1).unwrap();
    vault.put("a", &2).unwrap();
    assert_eq!(vault.len().unwrap(), 1);
    assert!(vault.contains("a").unwrap() && !vault.contains("b").unwrap());
    vault.update([("b", 3), ("c", 4), ("b", 5)]).unwrap();
    assert_eq!(vault.get::<i64>("b").unwrap(), Some(5));
    assert_eq!(vault.pop::<i64>("b").unwrap(), Some(5));
    assert_eq!(vault.pop::<i64>("b").unwrap(), None);
    assert_eq!(vault.set_default("d", &6).unwrap(), 6);
    assert_eq!(vault.set_default("d", &7).unwrap(), 6);
    assert!(vault.remove("d").unwrap() && !vault.remove("d").unwrap());
    assert_eq!(
        vault.pop_last::<String, i64>().unwrap(),
        Some(("c".to_owned(), 4))
    );
    assert_eq!(
        vault.pop_first::<String, i64>().unwrap(),
        Some(("a".to_owned(), 2))
    );
    assert_eq!(vault.pop_first::<String, i64>().unwrap(), None);
    assert_eq!(vault.len().unwrap(), 0);
    vault.update((0..1000).map(|n| (n, n))).unwrap();
    assert_eq!(vault.clear().unwrap(), 1000);
    assert!(vault.is_empty().unwrap() && vault.keys::<Key>().unwrap().next().is_none());
    vault.update(std::iter::empty::<(&str, i64)>()).unwrap();
}

#[test]
fn entries_are_changed_with_nobody_between() {
    let db = temp();
    let vault = db.vault("words").unwrap();
    assert_eq!(vault.entry("n").unwrap().or_insert(1).unwrap(), 1);
    assert_eq!(vault.entry("n").unwrap().or_insert(2).unwrap(), 1);
    let doubled = vault
        .entry::<i64>("n")
        .unwrap()
        .and_modify(|n| *n *= 10)
        .unwrap();
    assert_eq!(doubled, Some(10));
    assert_eq!(
        vault
            .entry::<i64>("m")
            .unwrap()
            .and_modify(|n| *n *= 10)
            .unwrap(),
        None
    );
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let vault = vault.clone();
            scope.spawn(move || {
                for n in 0..50 {
                    let entry = vault.entry::<Vec<(i32, i32)>>("list").unwrap();
                    entry
                        .modify_or_insert(|list| list.push((thread, n)), || vec![(thread, n)])
                        .unwrap();
                    vault.increment("sum", 1).unwrap();
                }
            });
        }
    });
    assert_eq!(
        vault.get::<Vec<(i32, i32)>>("list").unwrap().unwrap().len(),
        200
    );
    assert_eq!(vault.get::<i64>("sum").unwrap(), Some(200));
}

#[test]
fn of_many_who_swap_one_wins() {
    let db = temp();
    let vault = db.vault("locks").unwrap();
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let vault = vault.clone();
                scope
                    .spawn(move || usize::from(vault.compare_and_set("k", None, Some(&n)).unwrap()))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(won, 1);
    let value = vault.get::<i32>("k").unwrap().unwrap();
    assert!(
        !vault
            .compare_and_set("k", Some(&(value + 1)), None)
            .unwrap()
    );
    assert!(vault.compare_and_set("k", Some(&value), None).unwrap());
    assert!(vault.is_empty().unwrap());
}

/// Each entry of a queue goes to exactly one of those who take from it.
#[test]
fn a_queue_gives_each_entry_once() {
    let db = temp();
    let queue = db.vault("queue").unwrap();
    queue.update((0..200).map(|n| (n, n))).unwrap();
    let mut taken: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    while let Some((key, _)) = queue.pop_first::<i64, i64>().unwrap() {
                        taken.push(key);
                    }
                    taken
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    taken.sort_unstable();
    assert_eq!(taken, (0..200).collect::<Vec<_>>());
}
