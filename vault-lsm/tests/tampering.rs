//! Somebody writes to the disk while the store is closed. He knows the format and mends every checksum that needs no key;
//! he keeps what any file has ever been, and has other stores under the same key, clones of this one among them. Whatever
//! he does to files is refused with a typed error, or the store holds what it held. Nothing else.
//!
//! The attacks: bytes changed; records of log and manifest, and blocks of tables, exchanged, repeated, left out; parts and
//! whole files spliced in from elsewhere in the store, from another store, from clones, under their own header, under the
//! one that was there, or with the header edited to fit; another keyspace's domain; older copies put back; files removed,
//! renamed and cut. Each prints what became of it.
//!
//! What is known to be possible, putting back everything at once for one, is held to be no more than that in `rollback.rs`.
//!
//! By default places are visited at a stride. `VAULT_SWEEP=full cargo test --release --test tampering` visits every byte.

mod sweep;
mod tampering_support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sweep::run::Account;
use sweep::{Change, DIRECTORY, Step, noise, workload};
use tampering_support::forge::{self, Kind, field, mend, records};
use tampering_support::{Attack, Outcome, Subject, Tally, blocks_of};

/// Enough for tables on several levels, a keyspace that was dropped, and two openings.
const ROUNDS: u64 = 28;
/// How far apart the bytes are that are changed by default.
const STRIDE: usize = 101;

fn stride() -> usize {
    let full = std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full");
    if full { 1 } else { STRIDE }
}

fn closed() -> Subject {
    Subject::new(&workload(ROUNDS), true)
}

fn killed() -> Subject {
    Subject::new(&workload(ROUNDS), false)
}

/// Bytes worth changing: up to the last that is not zero, and a little beyond.
fn used(bytes: &[u8]) -> usize {
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
    (used + 20).min(bytes.len())
}

/// A file with its checksums mended.
fn mended(path: &Path, original: &[u8], mut bytes: Vec<u8>) -> Vec<u8> {
    let kind = Kind::of(path);
    let records = if kind.has_records() {
        records(original)
    } else {
        Vec::new()
    };
    mend(kind, &records, &mut bytes);
    bytes
}

/// A file in the place of this one.
fn instead(path: &Path, bytes: Vec<u8>) -> Attack {
    vec![(path.to_path_buf(), Some(bytes))]
}

/// Puts one field of a header there.
fn set(bytes: &mut [u8], field: std::ops::Range<usize>, value: &[u8]) {
    bytes[field].copy_from_slice(value);
}

fn change_bytes(subject: &Subject, attack: &'static str) {
    let mut tally = Tally::new(attack);
    for (path, original) in &subject.files {
        for at in (0..used(original)).step_by(stride()) {
            for pattern in [0x01, 0xff] {
                let mut bytes = original.clone();
                bytes[at] ^= pattern;
                let bytes = mended(path, original, bytes);
                let outcome = subject.after(&instead(path, bytes));
                let context = format!("byte {at} ^ {pattern:#x}");
                if subject.closed {
                    tally.note(path, outcome, &context);
                    continue;
                }
                tally.note_end(path, outcome, &context);
                if let Outcome::Shorter(back) = outcome {
                    let left = subject.account.acknowledged - back;
                    let evident = subject.account.durable_before_last;
                    assert!(left >= evident, "{}, {context}: {left}", path.display());
                }
            }
        }
    }
    assert!(tally.refused() > 50);
}

#[test]
fn bytes_of_a_closed_store_changed() {
    change_bytes(&closed(), "bytes changed, closed store");
}

/// The last record of the log or the manifest may pass for one that was never whole.
#[test]
fn bytes_of_a_store_that_was_not_closed_changed() {
    change_bytes(&killed(), "bytes changed, store not closed");
}

/// Every field of each header to what it is elsewhere, one by one, where the byte by byte sweep would not hit it.
#[test]
fn fields_of_headers_edited() {
    let subject = closed();
    let mut tally = Tally::new("fields of headers edited");
    for (path, original) in &subject.files {
        let fields: [(&str, _, &[u8]); 9] = [
            ("kind", field::KIND, &[2]),
            ("plain", field::TRANSFORM, &[0, 0]),
            ("a transform to come", field::TRANSFORM, &[2, 0]),
            ("keyspace 1", field::DOMAIN, &1_u32.to_le_bytes()),
            ("keyspace 2", field::DOMAIN, &2_u32.to_le_bytes()),
            ("the store's own", field::DOMAIN, &[0; 4]),
            ("another store", field::STORE, &[7; 16]),
            ("another number", field::NUMBER, &1_u64.to_le_bytes()),
            ("another epoch", field::EPOCH, &2_u32.to_le_bytes()),
        ];
        for (name, field, value) in fields {
            let mut bytes = original.clone();
            set(&mut bytes, field, value);
            let changed = bytes != *original;
            let outcome = subject.after(&instead(path, mended(path, original, bytes)));
            tally.note(path, outcome, name);
            let one_of_two = Kind::of(path) == Kind::Keyring;
            let refused = matches!(outcome, Outcome::Refused(_));
            assert!(
                !changed || refused || one_of_two,
                "{}: {name}",
                path.display()
            );
        }
    }
}

/// Records of a file of records in another order, one in the place of another, one left out, one twice.
fn orders(count: usize) -> Vec<(String, Vec<usize>)> {
    let as_they_are: Vec<usize> = (0..count).collect();
    let mut orders = Vec::new();
    for i in 0..count {
        let mut without = as_they_are.clone();
        without.remove(i);
        if i + 1 < count {
            orders.push((format!("without {i}"), without));
        }
        let mut twice = as_they_are.clone();
        twice.insert(i, i);
        orders.push((format!("{i} twice"), twice));
        for j in (i + 1..count).step_by(1 + count / 12) {
            let mut exchanged = as_they_are.clone();
            exchanged.swap(i, j);
            orders.push((format!("{i} and {j} exchanged"), exchanged));
            let mut instead = as_they_are.clone();
            instead[i] = j;
            orders.push((format!("{j} in the place of {i}"), instead));
        }
    }
    orders
}

fn exchange_records(subject: &Subject, attack: &'static str) {
    let mut tally = Tally::new(attack);
    let with_records = subject
        .files
        .iter()
        .filter(|(path, _)| Kind::of(path).has_records());
    for (path, original) in with_records {
        let sealed: Vec<&[u8]> = records(original)
            .into_iter()
            .map(|(_, sealed)| &original[sealed])
            .collect();
        for (context, order) in orders(sealed.len()) {
            let picked: Vec<&[u8]> = order.iter().map(|&n| sealed[n]).collect();
            let mut bytes = forge::file_of_records(original, &picked, original.len());
            mend(Kind::of(path), &records(&bytes), &mut bytes);
            let outcome = subject.after(&instead(path, bytes));
            if subject.closed {
                tally.note(path, outcome, &context);
            } else {
                tally.note_end(path, outcome, &context);
            }
        }
    }
    assert!(tally.refused() > 50);
}

#[test]
fn records_of_a_closed_store_exchanged() {
    exchange_records(&closed(), "records exchanged, closed store");
}

#[test]
fn records_of_a_store_that_was_not_closed_exchanged() {
    exchange_records(&killed(), "records exchanged, store not closed");
}

/// A keyspace in tables whose blocks are as long as each other: values of one length that do not compress.
fn with_even_blocks() -> Subject {
    let put =
        |keyspace, n: u64| Change::Put(keyspace, format!("key {n:05}").into_bytes(), noise(n, 450));
    let mut steps = vec![Step::Create("a"), Step::Create("b")];
    for table in 0..2 {
        for keyspace in ["a", "b"] {
            let numbers = table * 100..table * 100 + 8;
            let changes = numbers.map(|n| put(keyspace, n)).collect();
            steps.push(Step::Write {
                changes,
                sync: true,
            });
            steps.push(Step::Flush(Some(keyspace)));
        }
    }
    Subject::new(&steps, true)
}

/// Blocks of one length exchanged within a table, and between tables of one keyspace and of two; blocks of any length
/// exchanged within a table.
#[test]
fn blocks_of_tables_exchanged() {
    let subject = with_even_blocks();
    let mut tally = Tally::new("blocks of tables exchanged");
    let tables: Vec<_> = subject
        .of_kind(Kind::Table)
        .map(|(path, bytes)| (path, bytes, blocks_of(&subject, path)))
        .collect();
    assert!(tables.len() >= 4, "two tables of each of two keyspaces");
    for (n, (path, bytes, blocks)) in tables.iter().enumerate() {
        for (i, one) in blocks.iter().enumerate() {
            for two in &blocks[i + 1..] {
                let parts = [
                    &bytes[..one.start],
                    &bytes[two.clone()],
                    &bytes[one.end..two.start],
                    &bytes[one.clone()],
                    &bytes[two.end..],
                ];
                let outcome = subject.after(&instead(path, mended(path, bytes, parts.concat())));
                tally.note(path, outcome, &format!("{one:?} and {two:?}"));
                assert!(
                    matches!(outcome, Outcome::Refused(_)),
                    "{one:?} and {two:?}"
                );
            }
        }
        for (other, others, theirs) in &tables[n + 1..] {
            for (one, two) in blocks
                .iter()
                .zip(theirs)
                .filter(|(a, b)| a.len() == b.len())
            {
                let (mut here, mut there) = (bytes.to_vec(), others.to_vec());
                here[one.clone()].copy_from_slice(&others[two.clone()]);
                there[two.clone()].copy_from_slice(&bytes[one.clone()]);
                let attack = vec![
                    ((*path).clone(), Some(mended(path, bytes, here))),
                    ((*other).clone(), Some(mended(other, others, there))),
                ];
                let outcome = subject.after(&attack);
                tally.note(path, outcome, &format!("{one:?} with {}", other.display()));
                assert!(
                    matches!(outcome, Outcome::Refused(_)),
                    "{one:?} and {two:?}"
                );
            }
        }
    }
    assert!(tally.refused() > 200, "{}", tally.refused());
}

/// A file in the place of another: as it is, with the header edited to fit, and under the header that was there.
fn forms_of(path: &Path, victim: &[u8], donor: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut fitted = donor.to_vec();
    for part in [field::KIND, field::DOMAIN, field::STORE, field::NUMBER] {
        set(&mut fitted, part.clone(), &victim[part]);
    }
    let mut under = donor.to_vec();
    let header = vault_core::transform::HEADER_BYTES;
    under[..header].copy_from_slice(&victim[..header]);
    vec![
        ("as it is", donor.to_vec()),
        ("with its header edited", mended(path, donor, fitted)),
        (
            "under the header that was there",
            mended(path, donor, under),
        ),
    ]
}

/// The records of one file of records in the place of those of another, one by one and from one on.
fn grafts_of(path: &Path, victim: &[u8], donor: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (own, other) = (records(victim), records(donor));
    let mut grafts = Vec::new();
    for n in 0..own.len().min(other.len()) {
        let kept = |range: std::ops::Range<usize>| range.map(|i| &victim[own[i].1.clone()]);
        let one = [&donor[other[n].1.clone()]];
        let rest = other[n..].iter().map(|(_, sealed)| &donor[sealed.clone()]);
        let single = kept(0..n).chain(one).chain(kept(n + 1..own.len()));
        let forms: [(&str, Vec<&[u8]>); 2] = [
            ("record", single.collect()),
            ("records from", kept(0..n).chain(rest).collect()),
        ];
        for (name, sealed) in forms {
            let mut bytes = forge::file_of_records(victim, &sealed, victim.len());
            mend(Kind::of(path), &records(&bytes), &mut bytes);
            grafts.push((format!("{name} {n}"), bytes));
        }
    }
    grafts
}

/// Puts each donor in the place of each file of the store, whole and in parts.
fn splice(subject: &Subject, tally: &mut Tally, donors: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, victim) in &subject.files {
        let kind = Kind::of(path);
        for (from, donor) in donors {
            if donor == victim {
                continue;
            }
            let context = format!("{} in its place", from.display());
            for (form, bytes) in forms_of(path, victim, donor) {
                let outcome = subject.after(&instead(path, bytes));
                tally.note(path, outcome, &format!("{context} {form}"));
            }
            if kind.has_records() && Kind::of(from) == kind {
                for (form, bytes) in grafts_of(path, victim, donor) {
                    let outcome = subject.after(&instead(path, bytes));
                    tally.note(path, outcome, &format!("{context}, {form}"));
                }
            }
        }
    }
}

#[test]
fn files_of_a_store_spliced() {
    let subject = closed();
    let mut tally = Tally::new("between files of the store");
    splice(&subject, &mut tally, &subject.files);
    for (path, one) in &subject.files {
        for (other, two) in subject.files.range::<PathBuf, _>(path..).skip(1) {
            let attack = vec![
                (path.clone(), Some(two.clone())),
                (other.clone(), Some(one.clone())),
            ];
            let outcome = subject.after(&attack);
            tally.note(
                path,
                outcome,
                &format!("exchanged with {}", other.display()),
            );
        }
    }
    assert!(tally.refused() > 200, "{}", tally.refused());
}

#[test]
fn another_store_under_the_same_key_spliced() {
    let (subject, other) = (closed(), closed());
    let mut tally = Tally::new("from another store under the same key");
    splice(&subject, &mut tally, &other.files);
    assert!(tally.refused() > 200, "{}", tally.refused());
}

/// What each of two stores does by itself: the same files under the same numbers, with other content.
fn apart(seed: u64) -> Vec<Step> {
    let put = |keyspace, n: u64| Change::Put(keyspace, vec![b'q', n as u8], noise(seed + n, 400));
    let write = |n| Step::Write {
        changes: vec![put("a", n), put("b", n)],
        sync: true,
    };
    let mut steps: Vec<Step> = (0..6).map(write).collect();
    steps.push(Step::Flush(None));
    steps.push(Step::Create("c"));
    steps.extend((6..12).map(write));
    steps
}

/// The directory was copied, and both went on: the same store id, the same keys, the same numbers.
#[test]
fn a_clone_that_went_on_spliced() {
    let origin = Subject::new(&workload(12), true);
    let go_on = |seed| {
        let mut account = Account::new();
        account.states = vec![origin.state().clone()];
        account.created = origin.account.created.clone();
        account.possible = origin.account.possible.clone();
        let fs = origin.fs.kill();
        Subject::going_on(&fs, DIRECTORY.as_ref(), account, &apart(seed), true)
    };
    let (subject, clone) = (go_on(1_000), go_on(2_000));
    assert!(subject.state() != clone.state());
    let same_names = subject
        .files
        .keys()
        .filter(|path| clone.files.contains_key(*path));
    assert!(same_names.count() > 5, "they give out the same numbers");
    let mut tally = Tally::new("from a clone that went on");
    splice(&subject, &mut tally, &clone.files);
    splice(&clone, &mut tally, &subject.files);
    assert!(tally.refused() > 300, "{}", tally.refused());
}

/// A checkpoint shares tables with its source, and their keys.
#[test]
fn a_checkpoint_that_went_on_spliced() {
    let copy = "/checkpoint";
    let steps = [workload(12), vec![Step::Checkpoint(copy)], apart(1_000)].concat();
    let subject = Subject::new(&steps, true);
    let origin = Subject::new(&[workload(12), vec![Step::Checkpoint(copy)]].concat(), true);
    let fs = subject.fs.kill();
    let mut account = Account::new();
    account.states = vec![origin.state().clone()];
    account.created = origin.account.created.clone();
    account.possible = origin.account.possible.clone();
    let copy = Subject::going_on(&fs, copy.as_ref(), account, &apart(2_000), true);
    let mut tally = Tally::new("between a store and its checkpoint");
    splice(&subject, &mut tally, &copy.files);
    splice(&copy, &mut tally, &subject.files);
    assert!(tally.refused() > 300, "{}", tally.refused());
}

/// Each file put back to anything that it has ever been, and files that are gone put back where they were.
fn put_back(subject: &Subject, attack: &'static str) {
    let mut tally = Tally::new(attack);
    for (path, copies) in &subject.past {
        for (n, copy) in copies.iter().enumerate() {
            if subject.files.get(path) == Some(copy) {
                continue;
            }
            let outcome = subject.after(&instead(path, copy.clone()));
            let context = format!("copy {n} of {}", copies.len());
            if subject.closed {
                tally.note(path, outcome, &context);
            } else {
                tally.note_end(path, outcome, &context);
            }
        }
    }
    assert!(tally.refused() > 5, "{}", tally.refused());
}

#[test]
fn an_older_copy_of_any_file_of_a_closed_store_put_back() {
    put_back(&closed(), "an older copy put back, closed store");
}

#[test]
fn an_older_copy_of_any_file_of_a_store_that_was_not_closed_put_back() {
    put_back(&killed(), "an older copy put back, store not closed");
}

/// Files removed, one and two at a time.
#[test]
fn files_removed() {
    let subject = closed();
    let mut tally = Tally::new("files removed");
    let paths: Vec<&PathBuf> = subject.files.keys().collect();
    for (n, one) in paths.iter().enumerate() {
        for two in &paths[n..] {
            let mut attack: Attack = vec![((*one).clone(), None)];
            if one != two {
                attack.push(((*two).clone(), None));
            }
            let outcome = subject.after(&attack);
            tally.note(one, outcome, &format!("and {}", two.display()));
            let keyring = |path: &Path| Kind::of(path) == Kind::Keyring;
            let left = one == two && keyring(one);
            assert!(left || matches!(outcome, Outcome::Refused(_)), "{attack:?}");
            if one != two && keyring(one) && keyring(two) {
                assert_eq!(outcome, Outcome::Refused("Corruption"));
            }
        }
    }
}

/// Numbered files under other numbers, free ones and those of others, their headers edited to fit: moved, and copied.
#[test]
fn files_renamed() {
    let subject = closed();
    let mut tally = Tally::new("files renamed");
    let number = |path: &Path| -> Option<u64> { path.file_stem()?.to_str()?.parse().ok() };
    let beyond = subject.files.keys().filter_map(|path| number(path)).max();
    let beyond = beyond.expect("a store has files with numbers") + 5;
    let numbered = subject
        .files
        .iter()
        .filter(|(path, _)| number(path).is_some());
    for (path, bytes) in numbered.clone() {
        let same_kind = numbered
            .clone()
            .filter(|(other, _)| Kind::of(other) == Kind::of(path));
        let taken = same_kind.filter_map(|(other, _)| number(other));
        for to in taken.chain([1, beyond]) {
            let extension = path
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or_default();
            let target = path.with_file_name(format!("{to:06}.{extension}"));
            let mut edited = bytes.clone();
            set(&mut edited, field::NUMBER, &to.to_le_bytes());
            for renamed in [bytes.clone(), mended(path, bytes, edited)] {
                if target == *path {
                    continue;
                }
                let copied = instead(&target, renamed);
                let mut moved = copied.clone();
                moved.push((path.clone(), None));
                tally.note(path, subject.after(&copied), &format!("copied to {to}"));
                let outcome = subject.after(&moved);
                tally.note(path, outcome, &format!("moved to {to}"));
                assert!(
                    matches!(outcome, Outcome::Refused(_)),
                    "{path:?} moved to {to}"
                );
            }
        }
    }
    assert!(tally.refused() > 20, "{}", tally.refused());
}

fn cut_files(subject: &Subject, attack: &'static str) {
    let mut tally = Tally::new(attack);
    for (path, original) in &subject.files {
        let ends = records(original).into_iter().map(|(_, sealed)| sealed.end);
        let ends: Vec<usize> = match Kind::of(path).has_records() {
            true => ends.collect(),
            false => Vec::new(),
        };
        let places = (0..used(original)).step_by(stride()).chain(ends);
        for len in places.filter(|len| *len < original.len()) {
            let bytes = mended(path, original, original[..len].to_vec());
            let outcome = subject.after(&instead(path, bytes));
            if subject.closed {
                tally.note(path, outcome, &format!("cut to {len}"));
            } else {
                tally.note_end(path, outcome, &format!("cut to {len}"));
            }
        }
    }
    assert!(tally.refused() > 50, "{}", tally.refused());
}

#[test]
fn files_of_a_closed_store_cut() {
    cut_files(&closed(), "files cut, closed store");
}

#[test]
fn files_of_a_store_that_was_not_closed_cut() {
    cut_files(&killed(), "files cut, store not closed");
}
