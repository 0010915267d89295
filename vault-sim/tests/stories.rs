//! Plans that found something once, by hand or out of a seed, each with its story.

use std::sync::Arc;

use vault_core::vfs::{FileSystem, MemoryFileSystem, OperationClass};
use vault_core::{Durability, Engine, KeyspaceOptions, Reader, WriteOptions};
use vault_crypto::source::RawKey;
use vault_crypto::{Algorithm, EncryptedProtection};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};
use vault_sim::plan::{Change, Ending, Key, Mishap, Slot, Trouble, Value};
use vault_sim::{Operation, Plan, run_plan};

fn plan(operations: Vec<Operation>) -> Plan {
    let settings = Settings {
        background: BackgroundWork::Manual,
        ..Settings::default()
    };
    Plan {
        engine_seed: 1,
        cipher: Some(Algorithm::ChaCha20Poly1305),
        settings,
        keyspaces: vec![KeyspaceOptions::default(); 2],
        operations,
    }
}

fn run(operations: Vec<Operation>) {
    let plan = plan(operations);
    run_plan(&plan).unwrap_or_else(|failure| panic!("{plan:?}{failure}"));
}

fn put(slot: u8, stamp: u32) -> Operation {
    let (slot, key) = (Slot(slot), Key(20));
    let value = Value {
        stamp,
        bytes: 60,
        noise: false,
    };
    let put = Change::Put {
        slot,
        key,
        value,
        ttl_ms: None,
    };
    Operation::Write {
        changes: vec![put],
        durability: Some(Durability::Sync),
    }
}

const POWER_LOSS: Operation = Operation::Crash {
    after: 0,
    how: Ending::PowerLoss {
        keep_percent: 0,
        seed: 0,
    },
    recovery: Vec::new(),
};

/// The next so manyth operation of this class fails, once.
const fn fail(class: OperationClass, after: u16) -> Operation {
    Operation::Inject(Trouble {
        mishap: Mishap::Io,
        class,
        files: "",
        after,
        persists: false,
        lasts: 2,
    })
}

/// Seed 53 of the first simulations of encrypted stores. A drop found no room for a new log segment, after it had become
/// durable that the log was to be forgotten up to the current one. The next opening flushed everything, and could not
/// let go of that segment, because the log went on in it: what had been dropped could be read there by whoever had the key,
/// for as long as the segment was not full.
#[test]
fn a_drop_on_a_full_disk_is_erased_by_the_next_opening() {
    run(vec![
        put(0, 1),
        put(1, 2),
        Operation::LimitDisk {
            free_bytes: 20 << 10,
            lasts: 2,
        },
        Operation::DropKeyspace(Slot(1)),
        put(0, 3),
        Operation::Reopen(None),
        put(0, 4),
    ]);
}

/// Found by thinking, and by no seed until it was looked for. The secret was changed, and the sync of the directory failed: the
/// new keyring can be read, and its name is not on the medium, nor will any later sync put it there. The store was opened
/// with the new secret, wrote a pointer that names the new keyring's version, and lost power: the old keyring was back,
/// and the store refused for good. Opening has to write the keyring anew before anything relies on it.
#[test]
fn a_keyring_whose_rename_was_never_synced_is_made_durable_before_it_is_relied_on() {
    for after in 0..3 {
        run(vec![
            put(0, 1),
            fail(OperationClass::SyncDir, after),
            Operation::ChangeSecret { passphrase: false },
            put(0, 2),
            POWER_LOSS,
            put(0, 3),
        ]);
    }
}

/// Seed 7001515: the directory could not be synced for longer, so that the opening, too, renamed what it wrote anew, and failed. To
/// the next opening both files looked as they should; neither name was on the medium.
#[test]
fn a_keyring_that_only_looks_whole_is_written_anew_before_it_is_relied_on() {
    let trouble = Trouble {
        mishap: Mishap::NoSpace,
        class: OperationClass::SyncDir,
        files: "",
        after: 0,
        persists: true,
        lasts: 29,
    };
    run(vec![
        Operation::Inject(trouble),
        Operation::ChangeSecret { passphrase: false },
        put(0, 1),
        POWER_LOSS,
        put(0, 2),
    ]);
}

/// The same with a rotation, of which power takes the new epoch's keys away, and with them all that was sealed under them.
#[test]
fn an_epoch_whose_keys_were_never_synced_seals_nothing_before_they_are() {
    for after in 0..4 {
        run(vec![
            put(0, 1),
            fail(OperationClass::SyncDir, after),
            Operation::Rotate,
            Operation::Reopen(None),
            put(0, 2),
            Operation::Flush(None),
            POWER_LOSS,
            put(0, 3),
            Operation::FinishRotation,
        ]);
    }
}

/// Plan 6 of the same operations under many options (`metamorphic.rs`). The last writes before a drop went to what was dropped. An
/// encrypted store lets go of the log with them, and nothing else said which sequence numbers had been given out: after
/// the next opening they were given out again.
#[test]
fn sequence_numbers_do_not_go_back_when_a_drop_lets_go_of_the_log() {
    let key = RawKey::from_slice(&mut [7; 32]).unwrap();
    let options = LsmOptions::default()
        .background(BackgroundWork::Manual)
        .file_system(Arc::new(MemoryFileSystem::new()) as Arc<dyn FileSystem>)
        .protection(Arc::new(EncryptedProtection::with_source(Arc::new(key))));
    let store = Lsm::open("/store", options.clone()).unwrap();
    let [kept, dropped] = ["kept", "dropped"].map(|name| {
        let options = KeyspaceOptions::default();
        store.create_keyspace(name, &options).unwrap()
    });
    for keyspace in [kept, dropped, dropped] {
        let options = WriteOptions::OS;
        store.put(keyspace, b"key", b"value", &options).unwrap();
    }
    store.drop_keyspace(dropped).unwrap();
    assert_eq!(store.latest_sequence(), 3);
    store.close().unwrap();
    let store = Lsm::open("/store", options).unwrap();
    assert_eq!(store.latest_sequence(), 3);
    assert_eq!(
        store.get(kept, b"key").unwrap().as_deref(),
        Some(&b"value"[..])
    );
}
