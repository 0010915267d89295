//! The data layer on an engine that is not Vault's own: it does the same, to the word.

mod actor;

use std::sync::Arc;
use std::time::Duration;

use vault_core::MemoryEngine;
use vault_core::clock::{Clock, ManualClock};
use vault_core::vfs::MemoryFileSystem;
use vault_db::{Database, Durability, Quota, Timestamp};

use actor::Actor;

#[test]
fn another_engine_does_the_same() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let builder = || {
        Database::builder()
            .durability(Durability::Os)
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
    };
    let fs = Arc::new(MemoryFileSystem::new());
    let ours = builder()
        .engine_options(|options| options.file_system(fs))
        .open("/store")
        .unwrap();
    let engine = MemoryEngine::new().with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let other = builder().on(Arc::new(engine)).unwrap();
    assert!(other.lsm().is_none());
    let quota = Quota {
        vaults_max: 3,
        keys_max: 12,
        bytes_max: 400,
    };
    for seed in 0..300 {
        let mut actors = [&ours, &other].map(|db| {
            let tenant = db.create_tenant("t", quota).unwrap();
            Actor::new(tenant, seed)
        });
        for _ in 0..40 {
            clock.advance(Duration::from_secs(1));
            actors.iter_mut().for_each(Actor::step);
        }
        let [of_ours, of_other] = actors.map(|actor| actor.observed);
        assert_eq!(of_ours, of_other, "seed {seed}");
        for db in [&ours, &other] {
            db.drop_tenant("t").unwrap();
        }
    }
}
