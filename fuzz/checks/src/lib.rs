//! What must hold of everything that Vault decodes, whatever bytes it is given.
//!
//! There is a module for each fuzz target, with the form of its input, printed by `Debug` as what it
//! decodes to, and the check. `fuzz/fuzz_targets` feeds the checks with what a fuzzer makes up; the tests of
//! this crate replay what has been found, on the stable compiler; `cargo xtask fuzz` runs all of it.
//!
//! # What every check demands
//! - No input makes a decoder panic, overflow, or go on forever.
//! - What does not make sense is an error that says so, of a kind that a program can act on.
//! - What is decoded lies within the input, in order where order is promised, and comes back the same when it
//!   is encoded and decoded again.
//! - No decoder takes more memory than [`memory::bounded`] grants it.
//!
//! Files are read twice: as they are, and with their checksums mended, so that the decoders behind the
//! checksums are reached.

#![deny(unsafe_code)]

use std::fmt;

use arbitrary::{Arbitrary, Unstructured};

pub mod batch;
pub mod blob;
pub mod block;
pub mod edit;
pub mod filter;
pub mod footer;
pub mod frame;
pub mod header;
pub mod import;
pub mod index;
pub mod keyring;
pub mod log;
pub mod lz4;
pub mod manifest;
pub mod memory;
pub mod merge;
pub mod options;
pub mod pointer;
pub mod properties;
pub mod range;
pub mod record;
pub mod seeds;
pub mod sequences;
pub mod shipment;
pub mod snapshot;
pub mod store;
pub mod stored;
pub mod table;
pub mod tombstones;
pub mod top_index;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// A fuzz target, by name.
pub struct Target {
    /// Its name: that of its module, of its binary, and of its directory in `fuzz/corpus`.
    pub name: &'static str,
    /// What it feeds.
    pub covers: &'static str,
    /// Runs the check on an input in bytes. Says nothing where they are not an input of this target.
    pub check: fn(&[u8]),
    /// Prints the input that bytes stand for.
    pub describe: fn(&[u8]) -> String,
}

macro_rules! target {
    ($module:ident, $covers:literal) => {
        Target {
            name: stringify!($module),
            covers: $covers,
            check: |bytes| decoded(bytes, |input| $module::check(&input)).unwrap_or_default(),
            describe: |bytes| {
                decoded(bytes, |input: $module::Input<'_>| format!("{input:#?}"))
                    .unwrap_or_else(|| "(too short for an input of this target)".to_owned())
            },
        }
    };
}
/// Every target, in the order in which the bytes lie below each other.
pub const TARGETS: [Target; 28] = [
    target!(
        batch,
        "operations of a batch, and the numbers and strings of every format"
    ),
    target!(range, "key ranges, prefixes and their successors"),
    target!(
        merge,
        "operands of the merge operators that every store knows"
    ),
    target!(header, "the header of every file"),
    target!(pointer, "CURRENT"),
    target!(
        keyring,
        "whole keyrings: told without a secret, and opened with the right one"
    ),
    target!(
        frame,
        "frames around records, and the search for them behind damage"
    ),
    target!(record, "records of the log"),
    target!(
        log,
        "whole log segments, several at once, as recovery reads them"
    ),
    target!(options, "options of keyspaces"),
    target!(edit, "edits of the manifest, and what they add up to"),
    target!(manifest, "whole manifests"),
    target!(block, "data blocks: their structure, searches and walks"),
    target!(
        lz4,
        "compressed data blocks, with the length that an index claims"
    ),
    target!(index, "index blocks and their fences"),
    target!(top_index, "top-level index blocks"),
    target!(filter, "filter blocks"),
    target!(properties, "properties of tables"),
    target!(
        tombstones,
        "blocks of range tombstones, and what readers make of them"
    ),
    target!(footer, "footers of tables"),
    target!(
        table,
        "whole tables: opening, lookups, scans both ways, range tombstones"
    ),
    target!(
        blob,
        "whole blob files, pointers into them, and what tables and the manifest keep of them"
    ),
    target!(
        store,
        "whole stores: scrubbed, opened, read, written, flushed, compacted, opened again"
    ),
    target!(
        stored,
        "keys, values and records of the catalog, as the data layer keeps them"
    ),
    target!(import, "texts that a vault is imported from"),
    target!(
        snapshot,
        "manifests of snapshots, and archives that were changed: verified and restored"
    ),
    target!(
        shipment,
        "files of shipments, and shipments that were changed: replayed on a copy"
    ),
    target!(
        sequences,
        "sequences of operations with crashes and faults, against a model"
    ),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Makes an input of bytes as the fuzzer does.
fn decoded<'a, I: Arbitrary<'a> + fmt::Debug, R>(
    bytes: &'a [u8],
    f: impl FnOnce(I) -> R,
) -> Option<R> {
    let input = I::arbitrary_take_rest(Unstructured::new(bytes)).ok()?;
    Some(f(input))
}

/// The bytes of a parser's input, and how they are printed where they decode to nothing.
pub(crate) fn debug_bytes(
    f: &mut fmt::Formatter<'_>,
    bytes: &[u8],
    decoded: Option<&dyn fmt::Debug>,
) -> fmt::Result {
    write!(f, "{} bytes ", bytes.len())?;
    match decoded {
        Some(decoded) => write!(f, "{decoded:#?}"),
        None => write!(
            f,
            "that are refused: {}",
            vault_core::error::printable(bytes)
        ),
    }
}

/// Demands that an error blames the file, and that it says more than nothing.
///
/// # Panics
/// Where it does not.
pub(crate) fn assert_blames_the_file(error: &vault_core::Error) {
    use vault_core::Error;
    assert!(
        matches!(
            error,
            Error::Corruption { .. } | Error::NewerFormat { .. } | Error::Encrypted { .. }
        ),
        "an error of another kind: {error:?}"
    );
    assert!(!error.to_string().is_empty());
}
