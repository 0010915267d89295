//! API keys in an encrypted vault, and a service that may read some of them.
//!
//! `cargo run --release --example api_keys`

#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use std::error::Error;
use std::time::Duration;

use vault_db::encryption::{Kdf, Passphrase, SecretBytes};
use vault_db::{EncryptedDatabase, Grant, Permission};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("secrets");
    // In earnest it comes from a person, a file, an environment variable, or a key service: see `vault_db::encryption`.
    let passphrase = || {
        Passphrase::new(SecretBytes::from_string(
            "correct horse battery".to_owned(),
        )?)
    };
    let db = EncryptedDatabase::open(&path, passphrase()?)?;
    let keys = db.vault("api-keys")?;
    keys.put("openai", "sk-…")?;
    keys.put("anthropic", "ant-…")?;
    db.vault("payroll")?.put("alice", &5000)?;

    // A service may read keys whose names it knows, and nothing else.
    let control = db.access_control()?;
    control.set_role("key-reader", [Grant::new("api-*", [Permission::Read])])?;
    let secret = || SecretBytes::from_string("the service's own secret".to_owned());
    control.create_principal("chat-service", &secret()?, ["key-reader"], Kdf::ARGON2ID)?;
    let service = control.log_in("chat-service", &secret()?)?;
    let readable = service.vault("api-keys")?;
    println!(
        "the key begins with {:?}",
        readable
            .get::<String>("openai")?
            .map(|key| key[..3].to_owned())
    );
    println!(
        "listing them: {}",
        readable
            .keys::<String>()
            .err()
            .map_or_else(String::new, |e| e.to_string())
    );
    println!(
        "payroll: {}",
        service
            .vault("payroll")
            .err()
            .map_or_else(String::new, |e| e.to_string())
    );

    // A token for a night's work, revoked in the morning.
    let token = control.issue_token("chat-service", Duration::from_secs(8 * 3600))?;
    assert!(
        control
            .with_token(token.expose())?
            .vault("api-keys")?
            .contains("anthropic")?
    );
    control.revoke_token(token.expose())?;
    println!(
        "in the morning: {}",
        control
            .with_token(token.expose())
            .err()
            .map_or_else(String::new, |e| e.to_string())
    );

    println!("\nwhat the audit log has of it, the last first:");
    for entry in control.audit(10)? {
        println!("  {:?} {} {}", entry.action, entry.principal, entry.detail);
    }
    println!(
        "{} entries, none missing or changed",
        control.verify_audit()?
    );

    // While nobody works with it, the keys are wiped from memory.
    db.lock()?;
    assert!(db.vault("api-keys")?.get::<String>("openai").is_err());
    db.unlock(&passphrase()?)?;
    db.close()?;
    Ok(())
}
