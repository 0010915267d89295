//! Repair and salvage of encrypted stores: what they write is sealed as the rest is, what they tell withholds what the store
//! holds, and without a keyring they say that nothing can be done and what would help.

mod keyed;

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vault_core::transform::{FileHeader, FileKind, HEADER_BYTES};
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Engine, Error, KeyRange, Reader};
use vault_lsm::Lsm;
use vault_lsm::check::{
    FindingKind, KnownKeyspace, RepairPermission, RepairReport, RepairVerdict, SalvageOptions,
    SalvageReport, repair, salvage,
};

use keyed::{
    CANARIES, DIRECTORY, encrypted, fill, name, options, plain_options, scrubbed, sealed_files,
    verified,
};

const NEW: &str = "/salvaged";

/// Keyspaces by name, with their entries.
type Content = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn content(fs: &MemoryFileSystem, directory: &str) -> Content {
    let store = Lsm::open(directory, options(fs, 5)).expect("it opens");
    let mut content = Content::new();
    for space in store.keyspaces().expect("nothing fails here") {
        let all = store
            .scan(space.id, KeyRange::new::<&[u8]>(..))
            .expect("nothing fails here");
        let entries = all.map(|entry| {
            let (key, value) = entry.expect("it can be read");
            (key.to_vec(), value.to_vec())
        });
        content.insert(space.name.clone(), entries.collect());
    }
    store.close().expect("nothing fails here");
    content
}

fn mend(fs: &MemoryFileSystem, dry_run: bool) -> RepairReport {
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let permission = if dry_run {
        RepairPermission::Plan
    } else {
        RepairPermission::AcceptLoss
    };
    repair(DIRECTORY, &options(fs, 6), permission, &mut go_on).expect("it can be planned")
}

fn rescue(fs: &MemoryFileSystem, known: &SalvageOptions) -> Result<SalvageReport, Error> {
    let mut go_on = |_: &_| ControlFlow::Continue(());
    salvage(DIRECTORY, NEW, &options(fs, 6), known, &mut go_on)
}

fn flip(fs: &MemoryFileSystem, path: &Path, at: usize) {
    let mut bytes = fs.read_file(path).expect("nothing fails here");
    bytes[at] ^= 0x40;
    fs.write_file(path, &bytes).expect("nothing fails here");
}

fn files(fs: &MemoryFileSystem, ending: &str) -> Vec<PathBuf> {
    let files = sealed_files(fs).into_iter().map(|(path, _)| path);
    files.filter(|path| name(path).ends_with(ending)).collect()
}

/// That nothing of what the store holds stands in any file of the file system, whatever directory it is in.
fn assert_nothing_in_the_clear(fs: &MemoryFileSystem) {
    for (path, _) in fs.list() {
        let bytes = fs.read_file(&path).expect("it was just listed");
        for canary in CANARIES {
            let found = bytes
                .windows(canary.len())
                .any(|window| window == canary.as_bytes());
            assert!(!found, "{canary} stands in {}", path.display());
        }
    }
}

/// That nothing of it stands in what is told.
fn assert_withheld(told: &(impl Serialize + Debug), text: &dyn Display) {
    let json = serde_json::to_string(told).expect("plain data");
    for text in [json, format!("{told:#?}"), text.to_string()] {
        for canary in CANARIES {
            assert!(!text.contains(canary), "{canary} is told: {text}");
            // Nor as the numbers of its bytes.
            let numbers = format!("{:?}", canary.as_bytes());
            let numbers = numbers.trim_matches(['[', ']']);
            assert!(!text.contains(numbers), "{canary} is told: {text}");
        }
    }
}

/// Damage of each kind, one at a time.
fn damaged() -> Vec<(&'static str, MemoryFileSystem)> {
    let sound = encrypted(true);
    let mut damaged = Vec::new();
    let mut add = |what, damage: &dyn Fn(&MemoryFileSystem)| {
        let fs = sound.kill();
        damage(&fs);
        damaged.push((what, fs));
    };
    let table = files(&sound, ".tab").remove(0);
    let log = files(&sound, ".log").remove(0);
    let bytes = sound.read_file(&table).expect("it is there");
    add("a data block", &|fs| flip(fs, &table, 200));
    add("a filter or an index", &|fs| {
        flip(fs, &table, bytes.len() - 500);
    });
    add("the footer", &|fs| flip(fs, &table, bytes.len() - 40));
    add("the trailer", &|fs| flip(fs, &table, bytes.len() - 1));
    add("a table's header", &|fs| flip(fs, &table, 40));
    add("a table", &|fs| fs.remove(&table).expect("it is there"));
    add("the log", &|fs| flip(fs, &log, 5000));
    add("the pointer", &|fs| {
        flip(fs, &Path::new(DIRECTORY).join("CURRENT"), 130);
    });
    add("everything", &|fs| {
        flip(fs, &table, 200);
        flip(fs, &log, 9000);
    });
    damaged
}

#[test]
fn repairs_are_sealed_and_tell_nothing_of_what_was_in_the_store() {
    let whole = content(&encrypted(true), DIRECTORY);
    let mut losses = 0;
    for (what, fs) in damaged() {
        let report = verified(&fs);
        assert!(!report.is_clean(), "{what}");
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert_withheld(&report, &findings.join("\n"));
        let planned = mend(&fs, true);
        assert_withheld(&planned, &planned.plan);
        assert_eq!(planned.plan.verdict, RepairVerdict::Repairable, "{what}");
        let mut done = mend(&fs, false);
        assert!(done.done, "{what}: {:#?}", done.plan);
        assert_withheld(&done, &done.plan);
        assert_nothing_in_the_clear(&fs);
        let plan = done.lost.as_ref().expect("it was done").join("plan.txt");
        let text = String::from_utf8(fs.read_file(&plan).expect("it is there")).expect("text");
        assert_eq!(text, done.plan.to_string());

        let report = verified(&fs);
        assert!(report.is_clean(), "{what}: {:#?}", report.findings);
        assert!(scrubbed(&fs).is_clean(), "{what}");
        let left = content(&fs, DIRECTORY);
        if done.plan.losses.is_empty() {
            assert!(left == whole, "{what}");
        }
        losses += done.plan.losses.len();
        // For whoever opened it with the keys, all of it is there.
        for loss in &done.plan.losses {
            assert!(loss.name.as_str().starts_with("canary-space"));
            let keys = [&loss.keys.start, &loss.keys.end];
            let told = keys
                .into_iter()
                .flatten()
                .all(|key| key.bytes().starts_with(b"canary"));
            assert!(
                told,
                "{what}: {:?}",
                keys.map(|key| key.as_ref().map(|key| key.bytes().to_vec()))
            );
        }
        done.plan.reveal_names();
        let text = done.plan.to_string();
        let names = done.plan.losses.is_empty() || text.contains("canary-space");
        assert!(names && !text.contains("canary-key"), "{text}");
    }
    assert!(losses > 5, "{losses}");
}

#[test]
fn salvage_seals_under_new_keys_and_tells_nothing() {
    let whole = content(&encrypted(true), DIRECTORY);
    // A sound store is copied, and so is one whose pointer is gone.
    for lost in [None, Some("CURRENT")] {
        let fs = encrypted(true);
        if let Some(lost) = lost {
            fs.remove(&Path::new(DIRECTORY).join(lost)).unwrap();
        }
        let mut report = rescue(&fs, &SalvageOptions::default()).unwrap();
        assert!(report.complete, "{report:#?}");
        assert_withheld(&report, &format!("{:?}", report.unknown));
        assert_nothing_in_the_clear(&fs);
        assert!(content(&fs, NEW) == whole);
        report.reveal_names();
        assert!(
            report
                .keyspaces
                .iter()
                .any(|space| format!("{}", space.name) == "canary-space-a")
        );
        assert_ne!(keyring(&fs, DIRECTORY), keyring(&fs, NEW));
    }
    // Without a manifest, and with a table that is damaged too.
    let fs = encrypted(true);
    for manifest in files(&fs, ".man") {
        fs.remove(&manifest).unwrap();
    }
    flip(&fs, &files(&fs, ".tab")[0], 300);
    let known = KnownKeyspace {
        name: Some("canary-space-b".to_owned()),
        merge_operator: None,
    };
    let known = SalvageOptions {
        keyspaces: BTreeMap::from([(2, known)]),
    };
    let report = rescue(&fs, &known).unwrap();
    assert!(!report.complete && !report.unknown.is_empty());
    assert_withheld(&report, &format!("{:?}", report.unknown));
    // What was made up tells nothing, and helps.
    let names: Vec<String> = report
        .keyspaces
        .iter()
        .map(|space| space.name.to_string())
        .collect();
    assert_eq!(names[0], "recovered-1");
    assert!(names[1].contains("withheld"), "{names:?}");
    assert_nothing_in_the_clear(&fs);
    let found = content(&fs, NEW);
    assert!(found["canary-space-b"] == whole["canary-space-b"]);
    assert!(found["recovered-1"].len() > 40);
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let report = vault_lsm::check::scrub(NEW, &plain_options(&fs, 1), &mut go_on).unwrap();
    assert!(report.is_clean() && report.encrypted, "{report:#?}");
}

fn keyring(fs: &MemoryFileSystem, directory: &str) -> Vec<u8> {
    let path = Path::new(directory).join("KEYRING");
    fs.read_file(&path).expect("there is one")
}

/// A store that was never salvaged as what it is not: neither with no protection, nor a plain one with keys.
#[test]
fn encrypted_and_plain_stores_are_not_taken_for_each_other() {
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let all = Default::default();
    for without in ["", "CURRENT", ".man"] {
        let fs = encrypted(true);
        let plain = MemoryFileSystem::new();
        fill(|| plain_options(&plain, 7)).unwrap().close().unwrap();
        for fs in [&fs, &plain] {
            for path in files(fs, without) {
                if !without.is_empty() {
                    fs.remove(&path).unwrap();
                }
            }
        }
        let none = SalvageOptions::default();
        let errors = [
            vault_lsm::check::verify(DIRECTORY, &plain_options(&fs, 1), &all, &mut go_on).err(),
            repair(
                DIRECTORY,
                &plain_options(&fs, 1),
                RepairPermission::AcceptLoss,
                &mut go_on,
            )
            .err(),
            salvage(DIRECTORY, NEW, &plain_options(&fs, 1), &none, &mut go_on).err(),
        ];
        for error in errors {
            assert!(
                matches!(error, Some(Error::Encrypted { .. })),
                "{without}: {error:?}"
            );
        }
        let errors = [
            vault_lsm::check::verify(DIRECTORY, &options(&plain, 1), &all, &mut go_on).err(),
            repair(
                DIRECTORY,
                &options(&plain, 1),
                RepairPermission::AcceptLoss,
                &mut go_on,
            )
            .err(),
            salvage(DIRECTORY, NEW, &options(&plain, 1), &none, &mut go_on).err(),
        ];
        for error in errors {
            assert!(
                matches!(error, Some(Error::NotEncrypted { .. })),
                "{without}: {error:?}"
            );
        }
        assert!(!fs.list().iter().any(|(path, _)| path.starts_with(NEW)));
    }
}

#[test]
fn without_any_keyring_nothing_can_be_salvaged_and_that_is_said() {
    for damage in ["missing", "damaged"] {
        let fs = encrypted(true);
        let exported = keyring(&fs, DIRECTORY);
        for file in ["KEYRING", "KEYRING.copy"] {
            let path = Path::new(DIRECTORY).join(file);
            if damage == "missing" {
                fs.remove(&path).unwrap();
            } else {
                flip(&fs, &path, 200);
            }
        }
        let error = rescue(&fs, &SalvageOptions::default()).unwrap_err();
        assert!(matches!(&error, Error::Corruption { path, .. } if path.ends_with("KEYRING")));
        let text = error.to_string();
        assert!(text.contains("nothing of this store can be read"), "{text}");
        assert!(
            text.contains("put back the keyring") && text.contains("exported"),
            "{text}"
        );
        assert!(!fs.list().iter().any(|(path, _)| path.starts_with(NEW)));
        let report = scrubbed(&fs);
        assert_eq!(report.damaged_files(), ["KEYRING", "KEYRING.copy"]);
        // Which is what helps.
        fs.write_file(Path::new(DIRECTORY).join("KEYRING"), &exported)
            .unwrap();
        assert!(rescue(&fs, &SalvageOptions::default()).unwrap().complete);
    }
    // One of the two is enough.
    for file in ["KEYRING", "KEYRING.copy"] {
        let fs = encrypted(true);
        fs.remove(&Path::new(DIRECTORY).join(file)).unwrap();
        assert!(rescue(&fs, &SalvageOptions::default()).unwrap().complete);
    }
}

/// A file that says of itself that it is of this store, but is sealed otherwise, or under a key that there is not, costs
/// itself and keeps nobody from the rest.
#[test]
fn a_file_that_no_key_opens_costs_itself_alone() {
    for (field, bytes) in [(10, vec![0, 0]), (66, vec![9, 0, 0, 0]), (64, vec![77, 0])] {
        let fs = encrypted(true);
        let table = files(&fs, ".tab").remove(0);
        let mut forged = fs.read_file(&table).unwrap();
        forged[field..field + bytes.len()].copy_from_slice(&bytes);
        let sum = crc32fast::hash(&forged[..124]);
        forged[124..128].copy_from_slice(&sum.to_le_bytes());
        fs.write_file(&table, &forged).unwrap();
        let header = FileHeader::decode(&table, &forged[..HEADER_BYTES], FileKind::Table, 1);
        assert!(header.is_ok());
        let report = verified(&fs);
        assert_eq!(
            report.damaged_files(),
            [name(&table)],
            "{:#?}",
            report.findings
        );
        assert!(
            report
                .findings
                .iter()
                .any(|finding| finding.kind == FindingKind::Header)
        );
        let planned = mend(&fs, true);
        assert_eq!(planned.plan.verdict, RepairVerdict::Repairable);
        for manifest in files(&fs, ".man") {
            fs.remove(&manifest).unwrap();
        }
        let report = rescue(&fs, &SalvageOptions::default()).unwrap();
        assert!(!report.complete);
        assert!(content(&fs, NEW)["recovered-2"].len() > 60);
    }
}
