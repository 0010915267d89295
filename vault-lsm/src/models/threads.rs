//! The whole engine on real threads, for ThreadSanitizer (`cargo xtask sanitize thread`).
//!
//! The [`bank`](super::bank) is open on a real disk, with `sync/threads.rs` for locks. There is no block cache:
//! its locks are the standard library's, which the sanitizer does not see through.

use std::sync::Arc;

use vault_core::Durability;
use vault_core::vfs::DiskFileSystem;

use super::bank::{Bank, EACH, Place, run};

#[test]
fn the_bank_on_real_threads() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = Place {
        fs: Arc::new(DiskFileSystem::new()),
        directory: directory.path().to_path_buf(),
        cache_bytes: 0,
        moves: EACH,
    };
    let works: [fn(&Bank); 6] = [
        |bank| bank.move_on(0, Durability::Os),
        |bank| bank.move_on(1, Durability::Sync),
        |bank| (0..8).for_each(|_| bank.check_snapshots()),
        |bank| (0..8).for_each(|_| bank.compact()),
        Bank::check_checkpoint,
        |bank| (0..8).for_each(|_| bank.create_ingest_and_drop()),
    ];
    run(&place, &works, 2);
}
