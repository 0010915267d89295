//! What is told of what was done: all of it, and where that cannot be written, not a success.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use vault_core::vfs::{DiskFileSystem, EntryKind, FileSystem};

use super::support::{Two, flip, name, two};

#[test]
fn one_that_cannot_be_checked_takes_nothing_from_what_was_found() {
    let Two {
        place,
        names: [first, _],
        ..
    } = two();
    let third = place.json(0, &["create", "store", "snapshots", "--full"]);
    let third = name(&third["name"]).to_owned();
    flip(&place.archive(&first), 3000);
    let manifest = DiskFileSystem.open_for_write(&place.manifest(&third));
    let (manifest, newer) = (manifest.unwrap(), br#"{"format_version": 7}"#);
    manifest.write_at(newer, 0).unwrap();
    manifest.set_len(newer.len() as u64).unwrap();
    let verified = place.json(1, &["verify", "snapshots", "--all"]);
    let verdicts: Vec<&str> = verified
        .as_array()
        .unwrap()
        .iter()
        .map(|checked| checked["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["damaged", "damaged", "unchecked"]);
    let said = place.ends(1, &["verify", "snapshots", "--all"]);
    assert!(said.contains("format version 7"), "{said}");
    assert!(said.contains("could not be checked"), "{said}");
    // Nothing is damaged, and not everything was checked.
    flip(&place.archive(&first), 3000);
    place.ends(3, &["verify", "snapshots", "--all"]);
}

#[test]
#[cfg(target_os = "linux")]
#[expect(
    clippy::disallowed_methods,
    reason = "a process is given a file of the system's, and a device"
)]
fn a_result_that_cannot_be_written_is_no_success() {
    let Two { place, .. } = two();
    let vaultdb = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vaultdb"));
        command
            .current_dir(place.at("."))
            .args(["snapshot", "list", "snapshots"]);
        command
    };
    for form in [&["--json"][..], &[]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = vaultdb()
            .args(form)
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(told.contains("could not be written"), "{told}");
        // Nobody reads any more, and nobody needs to be told.
        let mut ended = vaultdb()
            .args(form)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(ended.stdout.take());
        let output = ended.wait_with_output().unwrap();
        assert_eq!(output.stderr, b"");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_path_that_is_no_text_is_told_as_it_is_shown() {
    use std::os::unix::ffi::OsStrExt;

    let Two { place, .. } = two();
    let target = OsStr::from_bytes(b"new-\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_vaultdb"))
        .current_dir(place.at("."))
        .args([
            "snapshot",
            "--json",
            "restore",
            "snapshots",
            "latest",
            "--to",
        ])
        .arg(target)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = told["target"].as_str().unwrap();
    assert!(shown.ends_with("new-\u{fffd}"), "{told}");
    let target = place.at(".").join(target);
    let kind = DiskFileSystem.kind(&target).unwrap();
    assert_eq!(kind, Some(EntryKind::Directory));
}
