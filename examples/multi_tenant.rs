//! A service for several customers: each with a namespace of its own, its own keys, and a quota.
//!
//! `cargo run --release --example multi_tenant`

#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use std::error::Error;

use serde::{Deserialize, Serialize};
use vault_db::encryption::{Passphrase, SecretBytes};
use vault_db::{EncryptedDatabase, Quota, Result, Tenant};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Cart {
    items: Vec<(String, u32)>,
    total_cents: u64,
}

/// What serves a customer has that customer's handle, and no way to name another's data.
fn add_to_cart(tenant: &Tenant, user: &str, product: &str, quantity: u32) -> Result<u64> {
    tenant.write(|tx| {
        let price: Option<u64> = tx.vault("prices")?.get(product)?;
        let price = price.ok_or_else(|| tx.abort(format!("there is no {product}")))?;
        let carts = tx.vault("carts")?;
        let mut cart: Cart = carts.get(user)?.unwrap_or_default();
        cart.items.push((product.to_owned(), quantity));
        cart.total_cents += price * u64::from(quantity);
        carts.put(user, &cart)?;
        Ok(cart.total_cents)
    })
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("service");
    let passphrase = Passphrase::new(SecretBytes::from_string(
        "correct horse battery".to_owned(),
    )?)?;
    let db = EncryptedDatabase::open(&path, passphrase)?;
    let small = Quota {
        vaults_max: 10,
        keys_max: 1_000,
        bytes_max: 1 << 20,
    };
    let (acme, other) = (
        db.create_tenant("acme", small)?,
        db.create_tenant("other", small)?,
    );
    acme.vault("prices")?
        .update([("lamp", 2_000_u64), ("desk", 20_000)])?;
    other.vault("prices")?.put("lamp", &1_500_u64)?;

    println!(
        "acme's cart: {} cents",
        add_to_cart(&acme, "alice", "lamp", 2)?
    );
    println!(
        "acme's cart: {} cents",
        add_to_cart(&acme, "alice", "desk", 1)?
    );
    println!(
        "the other's cart: {} cents",
        add_to_cart(&other, "alice", "lamp", 1)?
    );
    println!(
        "the other has no desk: {}",
        add_to_cart(&other, "alice", "desk", 1)
            .err()
            .map_or_else(String::new, |e| e.to_string())
    );

    for tenant in db.tenants() {
        println!(
            "{}: {} vaults, {} keys, {} bytes",
            tenant.name, tenant.vaults, tenant.keys, tenant.bytes
        );
    }
    // A customer leaves: everything goes, with the keys that could open it.
    println!("dropped {} keys of acme", db.drop_tenant("acme")?);
    assert!(acme.vault("carts").is_err());
    db.close()?;
    Ok(())
}
