//! Counters that many threads add to, and a transaction that looks at several.
//!
//! `cargo run --example counters`

#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use vault_db::{Database, Durability, Result};

fn main() -> Result<()> {
    // Counting need not wait for the disk: what the operating system has survives this process.
    let db = Database::builder().durability(Durability::Os).temp()?;
    let counters = db.vault("counters")?;

    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counters = counters.clone();
                scope.spawn(move || {
                    (0..1000).try_for_each(|_| counters.increment("visits", 1).map(drop))
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("the thread counts"))
    })?;
    assert_eq!(counters.get::<i64>("visits")?, Some(4000));
    println!("visits: {}", counters.increment("visits", -1)?);

    // By day: a tuple keeps days of a page together, in order.
    for (day, visits) in [(20, 17), (21, 12), (22, 30)] {
        counters.increment(("page", "home", 2024, 11, day), visits)?;
    }
    let days = counters.prefix::<(String, String, u32, u32, u32), i64>(("page", "home"))?;
    let total: i64 = days
        .map(|day| day.map(|(_, visits)| visits))
        .sum::<Result<i64>>()?;
    println!("visits of the home page on three days: {total}");

    // Both at one moment, whatever others add meanwhile.
    let share = db.read(|tx| {
        let counters = tx.vault("counters")?;
        let visits: i64 = counters.get("visits")?.unwrap_or(0);
        let on_the_last_day: i64 = counters.get(("page", "home", 2024, 11, 22))?.unwrap_or(0);
        Ok(on_the_last_day * 100 / visits.max(1))
    })?;
    println!("on the last day: {share} % of all");
    Ok(())
}
