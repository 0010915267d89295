//! A cache that outlives the process: entries end by themselves, and what is asked for most can be seen.
//!
//! `cargo run --release --example cache`

#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use vault_db::{Database, Durability, Result, Vault};

const CACHE_TIME: Duration = Duration::from_secs(3600);

/// Gives what is in the cache, or makes it and keeps it for an hour.
fn cached<V: Serialize + DeserializeOwned>(
    cache: &Vault,
    key: &str,
    make: impl FnOnce() -> V,
) -> Result<V> {
    if let Some(value) = cache.get(key)? {
        return Ok(value);
    }
    let value = make();
    cache.put_for(key, &value, CACHE_TIME)?;
    Ok(value)
}

/// A page that takes its time.
fn render(page: u32) -> String {
    (0..2000)
        .map(|n| char::from(b'a' + ((n * page) % 26) as u8))
        .collect()
}

fn main() -> Result<()> {
    // What is lost with the power can be made again: no write waits for the disk.
    let db = Database::builder()
        .durability(Durability::Os)
        .memory_bytes(64 << 20)
        .temp()?;
    let cache = db.vault("pages")?;
    let (mut made, mut bytes) = (0, 0);
    for n in 0_u32..10_000 {
        // Some pages are asked for far more often than others.
        let page = if n % 3 == 0 { 42 } else { n % 500 };
        let html: String = cached(&cache, &format!("page {page}"), || {
            made += 1;
            render(page)
        })?;
        bytes += html.len();
    }
    let stats = cache.stats()?;
    println!(
        "{bytes} bytes served in {} reads, {made} pages made",
        stats.reads
    );
    println!("asked for most:");
    for key in stats.top_keys.iter().take(3) {
        println!("  {} about {} times", key.key, key.accesses);
    }
    println!("cache of {} pages, {} bytes", stats.keys, stats.bytes);
    Ok(())
}
