//! A session store: sessions end by themselves, and live on while they are used.
//!
//! `cargo run --example sessions`

#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vault_db::engine::Clock;
use vault_db::{Database, Result, Timestamp, Vault};

const SESSION_TIME: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    user_id: u64,
    active_workspace: String,
}

fn create(sessions: &Vault, id: &str, user_id: u64) -> Result<()> {
    let session = Session {
        user_id,
        active_workspace: "project_alpha".to_owned(),
    };
    sessions.put_for(id, &session, SESSION_TIME)
}

/// Gives a session that is still good, and lets it live for as long again.
fn validate(sessions: &Vault, id: &str) -> Result<Option<Session>> {
    if !sessions.expire(id, Some(SESSION_TIME))? {
        return Ok(None);
    }
    sessions.get(id)
}

fn main() -> Result<()> {
    // A clock that the example can move; leave it out, and sessions end by the system's.
    let clock = Arc::new(vault_db::engine::ManualClock::new(Timestamp(
        1_700_000_000_000,
    )));
    let db = Database::builder()
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .temp()?;
    let sessions = db.vault("sessions")?;
    create(&sessions, "s1", 7)?;
    create(&sessions, "s2", 8)?;

    clock.advance(Duration::from_secs(20 * 60));
    let session = validate(&sessions, "s1")?;
    println!(
        "after 20 minutes, s1 is of user {:?}",
        session.map(|session| session.user_id)
    );

    clock.advance(Duration::from_secs(20 * 60));
    assert!(validate(&sessions, "s1")?.is_some(), "it was used");
    assert!(validate(&sessions, "s2")?.is_none(), "it was not");
    println!("after 40 minutes, {} session is left", sessions.len()?);

    // Expired sessions are never seen. Cleaning up takes them out of the lists as well.
    println!("cleaned up {}", sessions.cleanup_expired()?);
    Ok(())
}
