//! A configuration store: defaults, changes at run time, and a copy for people to read.
//!
//! `cargo run --example configuration`

#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use serde::{Deserialize, Serialize};
use vault_db::{Database, ExportFormat, Result, Value, Vault};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pool {
    max_connections: u32,
    timeout_seconds: u32,
}

/// Sets what is not set yet. Running it again changes nothing.
fn load_defaults(config: &Vault) -> Result<()> {
    config.set_default("debug", &false)?;
    config.set_default("api_url", &"https://api.example.com".to_owned())?;
    config.set_default(
        "pool",
        &Pool {
            max_connections: 100,
            timeout_seconds: 30,
        },
    )?;
    Ok(())
}

fn main() -> Result<()> {
    let db = Database::temp()?; // `Database::open("path")` to keep it
    let config = db.vault("app_config")?;
    load_defaults(&config)?;

    config.put("debug", &true)?;
    load_defaults(&config)?;
    assert!(config.get_or("debug", false)?);

    // Several settings that belong together change together.
    db.write(|tx| {
        let config = tx.vault("app_config")?;
        let mut pool: Pool = config
            .get("pool")?
            .ok_or_else(|| tx.abort("no pool is configured"))?;
        pool.max_connections *= 2;
        config.put("pool", &pool)?;
        config.put("changed_by", "the example")
    })?;
    let pool: Option<Pool> = config.get("pool")?;
    assert_eq!(pool.map(|pool| pool.max_connections), Some(200));

    // What is in it, whatever its types.
    for item in config.items::<String, Value>()? {
        let (key, value) = item?;
        println!("{key} is {}: {value:?}", value.kind());
    }
    println!("\nas JSON, for version control:");
    config.export(ExportFormat::Json, std::io::stdout())?;
    Ok(())
}
