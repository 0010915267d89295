//! Whole tables: opening, lookups, scans both ways, range tombstones.
//!
//! A table that opens can be asked anything: each answer is an entry that is there, or an error that blames
//! the file. Going backwards meets what going forwards meets. A table whose checksums are right is searched as
//! a list would be.

use std::cmp::Ordering;
use std::fmt;

use arbitrary::Arbitrary;
use vault_core::{Error, Result};
use vault_lsm::fuzzing::{Seals, TableFile, TableReader};

use crate::{assert_blames_the_file, memory};

/// A table.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// The sequence number under which the manifest says that it was ingested; 0: it was not.
    pub ingest_sequence: u64,
    /// The trailer that is looked for.
    pub trailer: u64,
    /// The file.
    pub bytes: &'a [u8],
}

impl Input<'_> {
    fn file(&self, seals: Seals) -> TableFile {
        // As many bits as sequence numbers have: the manifest refuses others.
        TableFile::new(self.bytes, self.ingest_sequence >> 8, seals)
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} bytes, ingested at {}",
            self.bytes.len(),
            self.ingest_sequence >> 8
        )?;
        for seals in [Seals::Kept, Seals::Mended] {
            let Some(opened) = self.file(seals).open() else {
                writeln!(f, "{seals:?}: no properties")?;
                continue;
            };
            writeln!(f, "{seals:?}: {opened:#?}")?;
            let Ok(table) = opened else { continue };
            for tombstone in table.tombstones() {
                writeln!(f, "  range delete {tombstone:?}")?;
            }
            writeln!(f, "  {:#?}", entries(&table, true, true))?;
        }
        Ok(())
    }
}

type Entry = (Vec<u8>, u64, Vec<u8>);

/// Reads it as it is, and with its checksums mended.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    for seals in [Seals::Kept, Seals::Mended] {
        let file = input.file(seals);
        let Some(opened) = memory::bounded(input.bytes.len(), || file.open()) else {
            continue;
        };
        match opened {
            Ok(table) => check_table(input, &table, seals),
            Err(error) => assert_blames_the_file(&error),
        }
    }
}

fn check_table(input: &Input<'_>, table: &TableReader, seals: Seals) {
    assert!(table.tombstones().all(|(start, end, _)| start < end));
    let walks = [(true, true), (true, false), (false, true), (false, false)];
    let walked = walks.map(|(forward, ahead)| {
        let mut count = 0_u64;
        let read = memory::bounded(input.bytes.len(), || {
            table.scan(forward, ahead, |_, _, _| count += 1)
        });
        sound(read).map(|()| count)
    });
    let whole = walked.iter().all(Option::is_some);
    assert!(
        whole || walked.iter().all(Option::is_none),
        "one walk meets damage that another does not: {walked:?}"
    );
    let forwards = sound(entries(table, true, true));
    let mut backwards = sound(entries(table, false, false));
    if let Some(backwards) = &mut backwards {
        backwards.reverse();
    }
    if whole {
        assert_eq!(forwards, backwards);
    }
    let entries = forwards.unwrap_or_default();
    let in_order = entries.is_sorted_by(|a, b| order((&a.0, a.1), (&b.0, b.1)).is_lt());
    search(
        input,
        table,
        &entries,
        whole && in_order && seals == Seals::Kept,
    );
}

/// Looks for every key and between them.
fn search(input: &Input<'_>, table: &TableReader, entries: &[Entry], exact: bool) {
    let mut keys: Vec<Vec<u8>> = vec![Vec::new(), vec![0xff; 9]];
    for (key, ..) in entries.iter().take(PROBED_MAX) {
        keys.extend([
            key.clone(),
            [key, &[0][..]].concat(),
            key[..key.len() / 2].to_vec(),
        ]);
    }
    for key in &keys {
        for trailer in [u64::MAX, input.trailer] {
            let size = input.bytes.len() + key.len();
            let got = sound(memory::bounded(size, || table.get(key, trailer)));
            let sought = sound(memory::bounded(size, || table.seek(key, trailer)));
            if !exact {
                continue;
            }
            let at = entries.partition_point(|e| order((&e.0, e.1), (key, trailer)).is_lt());
            let versions = entries[at..].iter().take_while(|e| e.0 == *key);
            let expected: Vec<_> = versions.map(|e| (e.1, e.2.len())).collect();
            // A scan asks no filter, a lookup does: where that is damaged, it says so.
            if let Some(got) = got {
                assert_eq!(got, expected, "{key:?} from {trailer:#x}");
            }
            let behind = entries.get(at).map(|e| (e.0.clone(), e.1));
            let hit = behind
                .as_ref()
                .is_some_and(|e| *e == (key.clone(), trailer));
            let before = at
                .checked_sub(1)
                .map(|at| &entries[at])
                .map(|e| (e.0.clone(), e.1));
            let before = if hit { behind.clone() } else { before };
            assert_eq!(sought, Some((behind, before)), "{key:?} from {trailer:#x}");
        }
        let bytes = table.approximate_bytes(key, &[0xff; 9]);
        assert!(
            bytes <= input.bytes.len() as u64,
            "more than the file: {bytes}"
        );
    }
}

fn entries(table: &TableReader, forward: bool, ahead: bool) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    table.scan(forward, ahead, |key, trailer, value| {
        entries.push((key.to_vec(), trailer, value.to_vec()));
    })?;
    Ok(entries)
}

/// What was read, if it could be: else the error blames the file.
fn sound<T>(read: Result<T>) -> Option<T> {
    read.inspect_err(|error: &Error| assert_blames_the_file(error))
        .ok()
}

/// Keys that are looked for one by one: all of any table that a fuzzer makes.
const PROBED_MAX: usize = 256;

fn order(a: (&[u8], u64), b: (&[u8], u64)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
}
