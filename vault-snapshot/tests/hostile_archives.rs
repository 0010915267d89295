//! Archives that somebody else made, or a disk: refused with a word on what is wrong, before anything is written.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::io::Write;
use std::path::Path;

use vault_core::ErrorKind;
use vault_core::vfs::FileSystem;
use vault_snapshot::archive::{Error, Form, Hex, Manifest, SnapshotName};
use vault_snapshot::repository::{CreateOptions, Limits, Parent, Source};
use vault_snapshot::retention::Retention;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use support::*;

/// A snapshot that is about to be forged.
struct Victim {
    world: World,
    name: SnapshotName,
    manifest: Manifest,
    /// What its archive holds, but for the manifest.
    entries: Vec<(String, Vec<u8>)>,
}

impl Victim {
    fn new() -> Self {
        let world = World::new();
        let mut files = some_files(1);
        files.retain(|_, content| content.len() < 1000);
        let manifest = world.create(&files, Parent::None).unwrap();
        let entries = files
            .into_iter()
            .map(|(name, content)| (format!("store/{name}"), content));
        Self {
            name: manifest.name,
            manifest,
            entries: entries.collect(),
            world,
        }
    }

    /// One of documents.
    fn logical() -> Self {
        let world = World::new();
        let mut source = Source::new(STORE, Form::Logical);
        source.documents.push(document("users", 1));
        let manifest = world
            .repository
            .create(source, &CreateOptions::default(), &())
            .unwrap();
        let path = "vaults/users.json";
        let content = world
            .repository
            .read_entry(manifest.name, path, 1000)
            .unwrap();
        Self {
            name: manifest.name,
            manifest,
            entries: vec![(path.into(), content)],
            world,
        }
    }

    fn archive(&self) -> Vec<u8> {
        self.world
            .fs
            .read_file(self.world.archive_path(self.name))
            .unwrap()
    }

    fn put_archive(&self, bytes: &[u8]) {
        self.world
            .fs
            .write_file(self.world.archive_path(self.name), bytes)
            .unwrap();
    }

    fn put_manifest(&self, bytes: &[u8]) {
        self.world
            .fs
            .write_file(self.world.manifest_path(self.name), bytes)
            .unwrap();
    }

    /// An archive of these entries and the manifest, as any zip program would make it.
    fn zip(&self, entries: &[(String, Vec<u8>)], json: &[u8]) -> Vec<u8> {
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let method = match self.manifest.form {
            Form::Physical => CompressionMethod::Stored,
            Form::Logical => CompressionMethod::Deflated,
        };
        let options = SimpleFileOptions::default().compression_method(method);
        for (path, content) in entries {
            zip.start_file(path, options).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.start_file("manifest.json", options).unwrap();
        zip.write_all(json).unwrap();
        zip.finish().unwrap().into_inner()
    }

    /// Puts a changed manifest both inside and beside, and the entries as they were.
    fn forge(&self, change: impl FnOnce(&mut Manifest)) {
        let mut manifest = self.manifest.clone();
        change(&mut manifest);
        let json = manifest.to_json();
        self.put_archive(&self.zip(&self.entries, &json));
        self.put_manifest(&json);
    }

    /// What is refused, and that nothing is changed by it; gives the error.
    #[track_caller]
    fn refused(&self) -> Error {
        self.refused_by(|world| world.extract(self.name).map(drop))
    }

    #[track_caller]
    fn refused_by(&self, work: impl FnOnce(&World) -> Result<(), Error>) -> Error {
        let before = picture(&self.world.fs);
        let verified = self.world.repository.verify(self.name, &());
        assert!(verified.is_err(), "{verified:?}");
        let error = work(&self.world).unwrap_err();
        assert_eq!(picture(&self.world.fs), before, "nothing was changed");
        assert_eq!(self.world.fs.kind(Path::new("/restored")).unwrap(), None);
        error
    }

    #[track_caller]
    fn damaged(&self, part: &str) {
        let error = self.refused();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Restore);
        assert!(error.to_string().contains(part), "{part:?} in {error}");
    }
}

#[test]
fn an_archive_that_any_zip_program_made_is_taken() {
    for victim in [Victim::new(), Victim::logical()] {
        victim.forge(|_| {});
        victim.world.repository.verify(victim.name, &()).unwrap();
        victim.world.extract(victim.name).unwrap();
    }
}

#[test]
fn what_is_no_zip_is_refused() {
    let victim = Victim::new();
    for bytes in [
        &b""[..],
        b"PK",
        b"not a zip archive at all, but long enough to hold one's end",
    ] {
        victim.put_archive(bytes);
        victim.damaged("");
    }
    victim.put_archive(&[0; 100_000]);
    victim.damaged("does not end as a zip archive");
    victim
        .world
        .fs
        .remove(&victim.world.archive_path(victim.name))
        .unwrap();
    victim.damaged("the archive is missing");
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let victim = Victim::new();
    let whole = victim.archive();
    for len in 0..whole.len() {
        victim.put_archive(&whole[..len]);
        let verified = victim.world.repository.verify(victim.name, &());
        assert!(
            matches!(verified, Err(Error::Damaged { .. })),
            "{len}: {verified:?}"
        );
    }
    victim.put_archive(&whole[..whole.len() / 2]);
    victim.damaged("");
}

/// Some bytes of a zip say nothing about what is in it, the times of entries above all. Whatever is not refused is restored as
/// it was.
#[test]
fn a_changed_byte_is_refused_or_changes_nothing() {
    for victim in [Victim::new(), Victim::logical()] {
        let whole = victim.archive();
        let right = victim.world.extract(victim.name).unwrap();
        let mut passed = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            victim.put_archive(&bytes);
            match victim.world.repository.verify(victim.name, &()) {
                Ok(_) => {
                    let target = format!("/again/{at}");
                    victim.world.extract_to(victim.name, &target).unwrap();
                    assert_eq!(files_in(&victim.world.fs, &target), right, "byte {at}");
                    passed += 1;
                }
                Err(Error::Damaged { .. }) => {}
                Err(other) => panic!("byte {at}: {other:?}"),
            }
        }
        assert!(passed < whole.len() / 5, "{passed} of {} pass", whole.len());
    }
}

#[test]
fn a_changed_byte_of_the_manifest_is_refused() {
    let victim = Victim::new();
    let json = victim.manifest.to_json();
    for at in 0..json.len() {
        let mut bytes = json.clone();
        bytes[at] ^= 1 << (at % 7);
        victim.put_manifest(&bytes);
        let verified = victim.world.repository.verify(victim.name, &());
        let refused = matches!(
            verified,
            Err(Error::Damaged { .. } | Error::NewerFormat { .. })
        );
        assert!(refused, "byte {at}: {verified:?}");
    }
}

#[test]
fn anything_before_or_behind_the_archive_is_refused() {
    let victim = Victim::new();
    let whole = victim.archive();
    victim.put_archive(&[b"#!/bin/sh\n", &whole[..]].concat());
    victim.damaged("");
    victim.put_archive(&[&whole[..], b"more"].concat());
    victim.damaged("does not end as a zip archive");
    let mut commented = whole.clone();
    let len = commented.len();
    commented[len - 2] = 4;
    commented.extend_from_slice(b"more");
    victim.put_archive(&commented);
    victim.damaged("does not end as a zip archive");
    // A second archive behind the first: other programs might read the first.
    victim.put_archive(&[&whole[..], &whole[..]].concat());
    victim.damaged("");
}

#[test]
fn a_manifest_that_is_missing_makes_it_no_snapshot() {
    let victim = Victim::new();
    victim
        .world
        .fs
        .remove(&victim.world.manifest_path(victim.name))
        .unwrap();
    assert!(matches!(victim.refused(), Error::NoSuchSnapshot { .. }));
    assert!(victim.world.repository.list().unwrap().is_empty());
}

#[test]
fn a_manifest_that_is_missing_inside_is_refused() {
    let victim = Victim::new();
    let json = victim.manifest.to_json();
    // As many entries as there must be.
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (path, content) in &victim.entries {
        zip.start_file(path, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.start_file("manifest.txt", options).unwrap();
    zip.write_all(&json).unwrap();
    victim.put_archive(&zip.finish().unwrap().into_inner());
    victim.damaged("\"manifest.json\" is missing");
}

#[test]
fn manifests_that_differ_are_refused() {
    let victim = Victim::new();
    let mut other = victim.manifest.clone();
    other.note = "put back".into();
    victim.put_manifest(&other.to_json());
    victim.damaged("differs");
    other.note = String::new();
    other.sequence += 1;
    victim.put_manifest(&other.to_json());
    victim.damaged("differs");
}

#[test]
fn a_manifest_that_is_none_is_refused() {
    let victim = Victim::new();
    let json = String::from_utf8(victim.manifest.to_json()).unwrap();
    let deep = "[".repeat(100_000);
    let with = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        json.replacen(from, to, 1)
    };
    let sha = victim.manifest.entries[0].sha256.to_string();
    for bad in [
        "",
        "{}",
        "null",
        "[]",
        "\0",
        &deep,
        &with("{", ""),
        &with("\"format_version\": 1", "\"format_version\": 0"),
        &with("\"format_version\": 1", "\"format_version\": -1"),
        &with("\"format_version\": 1", "\"format_version\": \"1\""),
        &with("\"full\"", "\"half\""),
        &with("\"physical\"", "\"logical\""),
        &with(&sha, &sha[1..]),
        &with(&sha, &sha.to_uppercase()),
        &with("2026-11-22T153000Z", "2026-11-22"),
        &with("2026-11-22T153000Z", "../../../etc/p"),
        &with("\"bytes\": ", "\"bytes\": -"),
        &with("\"bytes\": ", "\"bytes\": 99999999999999999999"),
        &with(
            "\"sequence\": 4711",
            "\"sequence\": 4711, \"sequence\": 4712",
        ),
    ] {
        victim.put_manifest(bad.as_bytes());
        victim.damaged("manifest.json");
        let survey = victim.world.repository.survey().unwrap();
        assert_eq!(survey.unreadable.len(), 1, "it is there, and is not listed");
        assert!(survey.snapshots.is_empty());
        assert!(victim.world.repository.list().unwrap().is_empty());
        // Nobody can tell what it builds on, so nothing is removed.
        let pruned = victim.world.repository.prune(&Retention::default(), false);
        assert!(matches!(pruned, Err(Error::Damaged { .. })));
    }
}

#[test]
fn a_newer_manifest_is_refused_with_advice() {
    let victim = Victim::new();
    victim.put_manifest(br#"{"format_version": 2, "everything": ["is", "different"]}"#);
    let error = victim.refused();
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        victim.world.repository.survey().unwrap().unreadable.len(),
        1
    );
}

#[test]
fn fields_from_later_are_passed_over() {
    let victim = Victim::new();
    let json = String::from_utf8(victim.manifest.to_json()).unwrap();
    let more = json.replacen("{", "{\"colour\": {\"of\": [\"money\"]},", 1);
    victim.put_archive(&victim.zip(&victim.entries, more.as_bytes()));
    victim.put_manifest(more.as_bytes());
    victim.world.repository.verify(victim.name, &()).unwrap();
    victim.world.extract(victim.name).unwrap();
}

#[test]
fn a_manifest_over_the_limits_is_refused() {
    let victim = Victim::new();
    let limits = [
        Limits {
            manifest_bytes_max: 4096,
            ..Limits::default()
        },
        Limits {
            entries_max: 2,
            ..Limits::default()
        },
        Limits {
            snapshot_bytes_max: 100,
            ..Limits::default()
        },
    ];
    let mut json = victim.manifest.to_json();
    json.extend_from_slice(&[b' '; 4096]);
    victim.put_manifest(&json);
    for limits in limits {
        let world = World::with(victim.world.fs.clone(), limits);
        let error = world.extract(victim.name).unwrap_err();
        assert!(matches!(error, Error::OverLimit { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Input);
        assert_eq!(world.repository.survey().unwrap().unreadable.len(), 1);
    }
}

#[test]
fn wrong_hashes_are_refused() {
    let victim = Victim::new();
    victim.forge(|manifest| manifest.entries[3].sha256 = Hex([1; 32]));
    victim.damaged("its SHA-256 is");
    let path = victim.manifest.entries[3].path.clone();
    let error = victim.refused_by(|world| {
        world
            .repository
            .read_entry(victim.name, &path, 1000)
            .map(drop)
    });
    assert!(matches!(error, Error::Damaged { .. }));
}

#[test]
fn wrong_lengths_are_refused() {
    let victim = Victim::new();
    for change in [1, 1_000_000, 0u64.wrapping_sub(1)] {
        victim.forge(|manifest| {
            let entry = &mut manifest.entries[2];
            entry.bytes = entry.bytes.wrapping_add(change);
        });
        victim.damaged("the manifest says");
    }
}

#[test]
fn more_or_fewer_entries_than_the_manifest_says_are_refused() {
    let victim = Victim::new();
    let json = victim.manifest.to_json();
    let mut fewer = victim.entries.clone();
    fewer.pop();
    victim.put_archive(&victim.zip(&fewer, &json));
    victim.damaged("entries were expected");
    let mut more = victim.entries.clone();
    more.push(("store/zzz".into(), b"smuggled".to_vec()));
    victim.put_archive(&victim.zip(&more, &json));
    victim.damaged("entries were expected");
    let mut others = victim.entries.clone();
    others[0].0 = "store/zzz".into();
    victim.put_archive(&victim.zip(&others, &json));
    victim.damaged("is missing");
}

/// Which of two entries of one name is meant depends on who reads them.
#[test]
fn entries_that_are_there_twice_are_refused() {
    let victim = Victim::new();
    let json = victim.manifest.to_json();
    let mut twice = victim.entries.clone();
    let last = twice.len() - 1;
    // Made under another name of the same length, and then renamed byte by byte.
    let name = twice[last].0.clone();
    let alias = name.replace("CURRENT", "CURRENX");
    assert_ne!(name, alias);
    twice.push((alias.clone(), b"smuggled".to_vec()));
    let mut bytes = victim.zip(&twice, &json);
    while let Some(at) = position(&bytes, alias.as_bytes()) {
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    }
    victim.put_archive(&bytes);
    victim.damaged("");
    // The manifest, too.
    victim.forge(|manifest| {
        let again = manifest.entries[0].clone();
        manifest.entries.insert(0, again);
    });
    victim.damaged("twice or out of order");
    victim.forge(|manifest| manifest.entries.swap(0, 1));
    victim.damaged("twice or out of order");
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[test]
fn names_that_lead_out_of_the_target_are_refused() {
    let evil = [
        "../evil",
        "store/../../evil",
        "store/..",
        "/etc/passwd",
        "store//etc/passwd",
        "C:\\evil",
        "store/C:evil",
        "store\\evil",
        "store/a\\..\\..\\evil",
        "store/CON",
        "store/nul.txt",
        "store/COM1",
        "store/LPT9.log",
        "store/evil.",
        "store/e\u{202e}vil",
        "store/evil\0.table",
        "evil",
        "vaults/evil.json",
        "store/",
    ];
    for name in evil {
        let mut victim = Victim::new();
        // Both the archive and the manifest say so, and agree.
        let mut manifest = victim.manifest.clone();
        manifest.entries[0].path = name.into();
        manifest.entries.sort_by(|a, b| a.path.cmp(&b.path));
        victim.entries[0].0 = name.into();
        let json = manifest.to_json();
        victim.put_archive(&victim.zip(&victim.entries, &json));
        victim.put_manifest(&json);
        victim.damaged("manifest.json");
        // The archive alone.
        victim.put_archive(&victim.zip(&victim.entries, &victim.manifest.to_json()));
        victim.put_manifest(&victim.manifest.to_json());
        victim.damaged("");
    }
}

#[test]
fn a_document_under_another_name_is_refused() {
    let victim = Victim::logical();
    victim.forge(|manifest| manifest.entries[0].document = Some("tokens".into()));
    victim.damaged("does not belong");
    victim.forge(|manifest| manifest.entries[0].document = None);
    victim.damaged("does not belong");
}

/// The kind of file that the upper half of an entry's attributes says.
fn set_mode(bytes: &mut [u8], path: &str, mode: u32) {
    // In the directory, 46 bytes before the name; the header before the entry has no such field.
    let is_header = |&at: &usize| {
        bytes[at..].starts_with(b"PK\x01\x02") && bytes[at + 46..].starts_with(path.as_bytes())
    };
    let header = (0..bytes.len() - 46).find(is_header).unwrap();
    bytes[header + 5] = 3;
    bytes[header + 38..header + 42].copy_from_slice(&(mode << 16).to_le_bytes());
}

#[test]
fn links_directories_and_devices_are_refused() {
    let victim = Victim::new();
    let json = victim.manifest.to_json();
    for mode in [
        0o120_777, 0o040_755, 0o020_666, 0o060_666, 0o010_644, 0o140_755,
    ] {
        let mut bytes = victim.zip(&victim.entries, &json);
        set_mode(&mut bytes, &victim.entries[1].0, mode);
        victim.put_archive(&bytes);
        victim.damaged("is a link, a directory or a device");
        let mut bytes = victim.zip(&victim.entries, &json);
        set_mode(&mut bytes, "manifest.json", mode);
        victim.put_archive(&bytes);
        victim.damaged("is a link, a directory or a device");
    }
    let mut bytes = victim.zip(&victim.entries, &json);
    set_mode(&mut bytes, &victim.entries[1].0, 0o100_600);
    victim.put_archive(&bytes);
    victim.world.repository.verify(victim.name, &()).unwrap();
}

#[test]
fn files_that_are_compressed_are_refused() {
    let mut victim = Victim::new();
    victim.manifest.form = Form::Logical;
    let bytes = victim.zip(
        &victim.entries,
        &victim
            .world
            .repository
            .manifest(victim.name)
            .unwrap()
            .to_json(),
    );
    victim.put_archive(&bytes);
    victim.damaged("is compressed as");
}

/// Ten mebibytes that say they are a hundred bytes.
#[test]
fn what_unpacks_to_more_than_it_says_is_refused() {
    const SAID: u32 = 100;
    const REALLY: u32 = 10 << 20;
    let mut victim = Victim::logical();
    victim.entries[0].1 = vec![b' '; REALLY as usize];
    let mut manifest = victim.manifest.clone();
    manifest.entries[0].bytes = SAID.into();
    let json = manifest.to_json();
    let mut bytes = victim.zip(&victim.entries, &json);
    let mut patched = 0;
    while let Some(at) = position(&bytes, &REALLY.to_le_bytes()) {
        bytes[at..at + 4].copy_from_slice(&SAID.to_le_bytes());
        patched += 1;
    }
    assert_eq!(patched, 2, "in the directory and before the entry");
    victim.put_archive(&bytes);
    victim.put_manifest(&json);
    victim.damaged("vaults/users.json");
}

/// One that says how large it is, which is too large.
#[test]
fn a_bomb_that_says_what_it_is_is_over_the_limit() {
    let mut victim = Victim::logical();
    victim.entries[0].1 = vec![b' '; 10 << 20];
    victim.forge(|manifest| manifest.entries[0].bytes = 10 << 20);
    assert!(victim.archive().len() < 20_000);
    let limits = Limits {
        snapshot_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let world = World::with(victim.world.fs.clone(), limits);
    let before = picture(&world.fs);
    let error = world.extract(victim.name).unwrap_err();
    assert!(
        matches!(
            error,
            Error::OverLimit {
                setting: "snapshot_bytes_max",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(picture(&world.fs), before);
    let error = victim
        .world
        .repository
        .read_entry(victim.name, "vaults/users.json", 1000)
        .unwrap_err();
    assert!(matches!(error, Error::OverLimit { .. }), "{error}");
}

/// A directory that says it has four billion entries is not made room for.
#[test]
fn an_end_record_that_promises_too_much_is_refused() {
    let victim = Victim::new();
    let whole = victim.archive();
    let end = whole.len() - 22;
    for (at, with) in [
        (end + 8, vec![255, 255, 255, 255]),
        (end + 10, vec![255, 255]),
        (end + 12, vec![255, 255, 255, 127]),
        (end + 16, vec![255, 255, 255, 127]),
        (end + 4, vec![7, 0]),
    ] {
        let mut bytes = whole.clone();
        bytes[at..at + with.len()].copy_from_slice(&with);
        victim.put_archive(&bytes);
        victim.damaged("");
    }
}

/// Two entries that share their bytes: few bytes become many.
#[test]
fn entries_that_overlap_are_refused() {
    let mut victim = Victim::new();
    let same = vec![9; 500];
    victim.entries[1].1.clone_from(&same);
    victim.entries[2].1.clone_from(&same);
    let mut manifest = victim.manifest.clone();
    for at in [1, 2] {
        manifest.entries[at].bytes = 500;
    }
    let json = manifest.to_json();
    let mut bytes = victim.zip(&victim.entries, &json);
    let headers: Vec<_> = (0..bytes.len() - 4)
        .filter(|&at| bytes[at..].starts_with(b"PK\x01\x02"))
        .collect();
    let first = bytes[headers[1] + 42..headers[1] + 46].to_vec();
    bytes[headers[2] + 42..headers[2] + 46].copy_from_slice(&first);
    victim.put_archive(&bytes);
    victim.put_manifest(&json);
    victim.damaged("");
}
