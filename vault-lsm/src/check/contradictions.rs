//! What a manifest says that contradicts itself.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Finding, FindingKind, Severity};
use super::stock::Stock;
use super::survey::manifest_name;
use crate::manifest::State;
use crate::table::TableMeta;

/// What the manifest says that contradicts itself.
pub(super) fn state_findings(stock: &Stock, state: &State) -> Vec<Finding> {
    let file = manifest_name(stock);
    let mut findings = Vec::new();
    let mut note = |kind, expected: String, found: String| {
        findings.push(Finding {
            severity: Severity::Damage,
            file: file.clone(),
            offset: None,
            kind,
            expected,
            found,
            advice: "run salvage into a new directory, or restore a copy; this is a bug in what wrote it",
        });
    };
    let mut seen = BTreeSet::new();
    for (id, keyspace) in &state.keyspaces {
        let last = state.last_sequence;
        let mut runs: BTreeMap<(u32, u64), Vec<&TableMeta>> = BTreeMap::new();
        for place in keyspace.tables.values() {
            let meta = &*place.meta;
            if !seen.insert(meta.number) {
                let expected = format!("table {} in one keyspace", meta.number);
                note(FindingKind::Manifest, expected, "in two".to_owned());
            }
            if meta.sequence_max > last {
                let expected = format!("sequence numbers up to {last}");
                let found = format!("{} in table {}", meta.sequence_max, meta.number);
                note(FindingKind::Numbers, expected, found);
            }
            runs.entry((place.level, place.run)).or_default().push(meta);
        }
        for &number in keyspace.blobs.keys() {
            if !seen.insert(number) {
                let expected = format!("file {number} in one place");
                note(FindingKind::Manifest, expected, "in two".to_owned());
            }
        }
        for ((level, run), mut tables) in runs {
            tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
            for pair in tables.windows(2) {
                let (a, b) = (pair[0], pair[1]);
                let apart =
                    a.largest < b.smallest || (a.largest_exclusive && a.largest == b.smallest);
                if !apart {
                    let expected =
                        format!("tables apart in run {run} of level {level} of keyspace {id}");
                    let found = format!("{} and {} overlap", a.number, b.number);
                    note(FindingKind::Overlap, expected, found);
                }
            }
        }
    }
    findings
}
