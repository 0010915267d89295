//! What a repair would do and what would be lost by it, decided before anything is done.
//!
//! [`plan`] is pure: a survey goes in, a [`RepairPlan`] comes out.
//!
//! # The rules
//! - A table that has faults is written anew with every entry that can be read; one of which nothing can
//!   be read is dropped. Its place in its run stays the same.
//! - A blob file that has faults is dropped. The tables that point into it are written anew, with those of its values that
//!   can be read in them; entries whose values cannot be read are lost.
//! - A log that is damaged ends before the damage. What stands before it goes into tables, so that no
//!   segment has to be changed.
//! - A manifest that is damaged is replaced only where what is left of it agrees with the files that are
//!   there. Anything else would be guessing: that is salvage.
//! - What an entry hid is visible once the entry is gone. Each loss says whether that can happen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use vault_core::SequenceNumber;
use vault_core::transform::FileKind;
use vault_core::vfs::EntryKind;

use super::content::{Content, KeySpan};
use super::log::Contents;
use super::report::{Count, Finding, FindingKind, Loss, Severity};
use super::survey::{Survey, SurveyedTable};
use crate::layout::{NameMeaning, POINTER_NAME, file_name};
use crate::manifest::State;
use crate::table::TableMeta;
use crate::table::inspect::{Fault, LostSpan};

/// Whether a store can be repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairVerdict {
    /// There is nothing to repair.
    Sound,
    /// It can be repaired as the plan says.
    Repairable,
    /// What makes up the store is not known well enough: its content can be salvaged into a new one.
    NeedsSalvage {
        /// Why.
        reasons: Vec<String>,
    },
}

/// Something that a repair does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum RepairAction {
    /// Writes what can be read of a table into a new one in its place.
    RewriteTable {
        /// The table.
        file: String,
        /// Entries that are kept.
        entries_kept: u64,
        /// Range deletes that are kept.
        range_deletes_kept: u64,
    },
    /// Takes a table out of the store.
    DropTable {
        /// The table.
        file: String,
    },
    /// Takes a blob file out of the store, once the tables that point into it hold those of its values that can be read.
    DropBlob {
        /// The blob file.
        file: String,
    },
    /// Writes what stands before the damage of the log into tables, and goes on with an empty log.
    FlushLog {
        /// The segments of the log.
        segments: Vec<String>,
        /// Batches that are kept.
        batches_kept: u64,
        /// The last sequence number that is kept.
        last_sequence_kept: SequenceNumber,
    },
    /// Writes a new manifest, and a new pointer to it.
    NewManifest {
        /// The manifest that it continues.
        from: String,
    },
    /// Puts aside a file that nothing refers to.
    RemoveOrphan {
        /// The file.
        file: String,
    },
}

impl fmt::Display for RepairAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RewriteTable {
                file,
                entries_kept,
                range_deletes_kept,
            } => write!(
                f,
                "write {file} anew with the {entries_kept} entries and {range_deletes_kept} range \
                 deletes that can be read"
            ),
            Self::DropBlob { file } => write!(
                f,
                "take {file} out of the store, with what can be read of it kept in the tables that point into it"
            ),
            Self::DropTable { file } => write!(f, "take {file} out of the store"),
            Self::FlushLog {
                segments,
                batches_kept,
                last_sequence_kept,
            } => write!(
                f,
                "write the {batches_kept} batches of the log that stand before the damage, up to sequence \
                 number {last_sequence_kept}, into tables, and go on without {}",
                segments.join(", ")
            ),
            Self::NewManifest { from } => {
                write!(
                    f,
                    "write a new manifest from what {from} says, and a pointer to it"
                )
            }
            Self::RemoveOrphan { file } => write!(f, "put {file} aside, which nothing refers to"),
        }
    }
}

/// What a repair would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairPlan {
    /// Whether it can be done.
    pub verdict: RepairVerdict,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What would be done, in this order.
    pub actions: Vec<RepairAction>,
    /// What would be lost. What is not named here stays exactly as it is.
    pub losses: Vec<Loss>,
    /// Files of which a copy goes into the directory `lost`.
    pub set_aside: Vec<String>,
}

impl RepairPlan {
    /// Has the names of keyspaces told in the text of the plan, of an encrypted store too. Keys never are.
    pub fn reveal_names(&mut self) {
        self.losses.iter_mut().for_each(|loss| loss.name.reveal());
    }
}

impl fmt::Display for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        match &self.verdict {
            RepairVerdict::Sound => return writeln!(f, "nothing to repair"),
            RepairVerdict::NeedsSalvage { reasons } => {
                writeln!(
                    f,
                    "cannot be repaired in place; salvage it into a new directory:"
                )?;
                return reasons
                    .iter()
                    .try_for_each(|reason| writeln!(f, "- {reason}"));
            }
            RepairVerdict::Repairable => {}
        }
        for action in &self.actions {
            writeln!(f, "will {action}")?;
        }
        for file in &self.set_aside {
            writeln!(f, "will keep a copy of {file}")?;
        }
        for loss in &self.losses {
            writeln!(f, "{loss}")?;
        }
        if self.losses.is_empty() {
            writeln!(f, "nothing would be lost")?;
        }
        Ok(())
    }
}

/// What of a damaged log is kept, and what is not.
#[derive(Debug, Default)]
pub(crate) struct LogDamage {
    pub(crate) kept: Contents,
    /// Operations behind the damage that can still be read, by keyspace.
    pub(crate) lost: BTreeMap<u32, LostOperations>,
    /// Whether there is also something that cannot be read.
    pub(crate) more: bool,
    pub(crate) last_sequence: SequenceNumber,
    /// The damage, in words.
    pub(crate) problem: String,
    /// The file it is in.
    pub(crate) file: String,
}

/// Operations of a keyspace that stand behind damage.
#[derive(Debug, Clone)]
pub(crate) struct LostOperations {
    pub(crate) entries: u64,
    pub(crate) range_deletes: u64,
    pub(crate) first: Vec<u8>,
    pub(crate) last: Vec<u8>,
    pub(crate) sequences: (u64, u64),
}

/// Decides what a repair of the store does.
pub(crate) fn plan(survey: &Survey, log: Option<&LogDamage>) -> RepairPlan {
    let mut plan = RepairPlan {
        verdict: RepairVerdict::Sound,
        findings: survey.findings.clone(),
        actions: Vec::new(),
        losses: Vec::new(),
        set_aside: Vec::new(),
    };
    let reasons = reasons_for_salvage(survey);
    let (Some(state), []) = (survey.stock.state(), &reasons[..]) else {
        plan.verdict = RepairVerdict::NeedsSalvage { reasons };
        return plan;
    };
    for table in &survey.tables {
        plan_table(&mut plan, survey, state, table);
    }
    for blob in survey.blobs.iter().filter(|blob| !blob.sound) {
        let file = file_name(FileKind::Blob, blob.number);
        if survey.stock.numbers(FileKind::Blob).contains(&blob.number) {
            plan.set_aside.push(file.clone());
        }
        plan.actions.push(RepairAction::DropBlob { file });
    }
    if let Some(damage) = log {
        plan_log(&mut plan, survey, state, damage);
    }
    plan_orphans(&mut plan, survey);
    let pointer_kind = |finding: &Finding| {
        finding.severity == Severity::Damage
            && matches!(finding.kind, FindingKind::Pointer | FindingKind::Manifest)
    };
    let pointed = survey.findings.iter().any(pointer_kind);
    if plan.actions.is_empty() && !pointed {
        return plan;
    }
    plan.verdict = RepairVerdict::Repairable;
    let number = survey.stock.manifest.as_ref().map_or(0, |m| m.number);
    let from = file_name(FileKind::Manifest, number);
    plan.set_aside.push(from.clone());
    plan.actions.push(RepairAction::NewManifest { from });
    let has_pointer = |entry: &super::stock::Entry| entry.name == POINTER_NAME;
    if survey.stock.entries.iter().any(has_pointer) {
        plan.set_aside.push(POINTER_NAME.to_owned());
    }
    plan.set_aside.sort();
    plan.set_aside.dedup();
    plan
}

/// Why it is not known what makes up the store.
fn reasons_for_salvage(survey: &Survey) -> Vec<String> {
    let mut reasons = Vec::new();
    let stock = &survey.stock;
    let Some(state) = stock.state() else {
        return vec!["no manifest can be read".to_owned()];
    };
    let of_kind = |kinds: &[FindingKind]| {
        let damage = survey.findings.iter();
        let damage = damage.filter(|f| f.severity == Severity::Damage && kinds.contains(&f.kind));
        damage.cloned().collect::<Vec<_>>()
    };
    for finding in of_kind(&[FindingKind::Overlap, FindingKind::Numbers]) {
        reasons.push(finding.to_string());
    }
    let number = stock
        .manifest
        .as_ref()
        .map_or(0, |manifest| manifest.number);
    let other = stock
        .pointer
        .is_some_and(|pointer| pointer.manifest != number);
    if of_kind(&[FindingKind::Manifest]).is_empty() && !other && !stock.passed_over {
        return reasons;
    }
    // Part of the manifest is missing. What is left is believed only where it agrees with the files.
    for contradiction in &stock.contradictions {
        reasons.push(format!(
            "behind the damage of the manifest, {contradiction}"
        ));
    }
    let named: BTreeSet<_> = state.files().map(|(kind, n)| (kind as u8, n)).collect();
    for kind in [FileKind::Table, FileKind::Blob] {
        let there = stock.numbers(kind);
        for number in there.iter().filter(|&&n| !named.contains(&(kind as u8, n))) {
            let file = file_name(kind, *number);
            reasons.push(format!(
                "{file} is there, and what is left of the manifest does not say whether it counts"
            ));
        }
        let missing = state
            .files()
            .filter(|(of, n)| *of == kind && !there.contains(n));
        for (_, number) in missing {
            let file = file_name(kind, number);
            reasons.push(format!(
                "{file} is missing, and the lost part of the manifest may say what replaced it"
            ));
        }
    }
    let logs = stock.numbers(FileKind::Log);
    for number in &logs {
        if !state.logs.contains_key(number)
            && super::log::holds_records(&stock.env, *number).unwrap_or(true)
        {
            let file = file_name(FileKind::Log, *number);
            reasons.push(format!(
                "{file} holds writes that the manifest knows nothing of"
            ));
        }
    }
    for number in state.logs.keys().filter(|number| !logs.contains(number)) {
        let file = file_name(FileKind::Log, *number);
        reasons.push(format!("{file} is missing, and the manifest's end with it"));
    }
    reasons
}

fn plan_table(plan: &mut RepairPlan, survey: &Survey, state: &State, table: &SurveyedTable) {
    let inspection = &table.inspection;
    if !survey.must_rewrite(table) {
        return;
    }
    let content = Content::of(&*survey.stock.env.transform);
    let meta = &*table.meta;
    let file = file_name(FileKind::Table, meta.number);
    if !inspection
        .problems
        .iter()
        .any(|p| p.fault == Fault::Missing)
    {
        plan.set_aside.push(file.clone());
    }
    if inspection.entries == 0 && inspection.tombstones.is_empty() {
        plan.actions.push(RepairAction::DropTable { file });
    } else {
        plan.actions.push(RepairAction::RewriteTable {
            file,
            entries_kept: inspection.entries,
            range_deletes_kept: inspection.tombstones.len() as u64,
        });
    }
    let older = |keys: &KeySpan| older_overlaps(survey, table, keys);
    let loss = |keys: KeySpan, entries, range_deletes, resurrects, reason: &str| Loss {
        file: file_name(FileKind::Table, meta.number),
        keyspace: table.keyspace,
        name: state
            .keyspaces
            .get(&table.keyspace)
            .map_or_else(|| content.name(""), |keyspace| content.name(&keyspace.name)),
        resurrects,
        keys,
        entries,
        range_deletes,
        sequences: Some((meta.sequence_min, meta.sequence_max)),
        reason: reason.to_owned(),
    };
    if let Some(reason) = &inspection.lost_whole {
        let keys = span_of(content, meta);
        let deletes = meta.range_tombstones;
        let (entries, deletes) = (Count::Exactly(meta.entries), Count::Exactly(deletes));
        let resurrects = older(&keys);
        plan.losses
            .push(loss(keys, entries, deletes, resurrects, reason));
        return;
    }
    let missing = meta.entries.saturating_sub(inspection.entries);
    let entries = match inspection.lost.len() {
        1 => Count::Exactly(missing),
        _ => Count::AtMost(missing),
    };
    for lost in &inspection.lost {
        let keys = span_within(content, meta, lost);
        // Older versions of the last key may stand in the next block of the same table.
        let resurrects = older(&keys) || (lost.end.is_some() && lost.end_included);
        let reason = if lost.bytes == 0 {
            "values that are kept apart cannot be read".to_owned()
        } else {
            let (bytes, offset) = (lost.bytes, lost.offset);
            format!("{bytes} bytes at byte {offset} cannot be read")
        };
        let none = Count::Exactly(0);
        plan.losses
            .push(loss(keys, entries, none, resurrects, &reason));
    }
    if inspection.tombstones_lost {
        let deletes = Count::Exactly(meta.range_tombstones);
        let reason = "the block of range deletes cannot be read";
        let (keys, none) = (span_of(content, meta), Count::Exactly(0));
        plan.losses.push(loss(keys, none, deletes, true, reason));
    }
}

/// Where a table's keys lie.
fn span_of(content: Content, meta: &TableMeta) -> KeySpan {
    KeySpan {
        start: Some(content.key(meta.smallest.clone())),
        end: Some(content.key(meta.largest.clone())),
        end_included: !meta.largest_exclusive,
    }
}

fn span_within(content: Content, meta: &TableMeta, lost: &LostSpan) -> KeySpan {
    let whole = span_of(content, meta);
    let key = |bytes| content.key(bytes);
    KeySpan {
        start: lost.start.clone().map(key).or(whole.start),
        end_included: lost
            .end
            .as_ref()
            .map_or(whole.end_included, |_| lost.end_included),
        end: lost.end.clone().map(key).or(whole.end),
    }
}

/// Whether an older run of the keyspace has anything within the span.
fn older_overlaps(survey: &Survey, table: &SurveyedTable, keys: &KeySpan) -> bool {
    let older = |other: &&SurveyedTable| {
        other.keyspace == table.keyspace
            && (other.level > table.level || (other.level == table.level && other.run < table.run))
    };
    survey.tables.iter().filter(older).any(|other| {
        let meta = &*other.meta;
        let starts_behind = keys
            .end
            .as_ref()
            .is_some_and(|end| meta.smallest[..] > *end.bytes());
        let ends_before = keys
            .start
            .as_ref()
            .is_some_and(|start| meta.largest[..] < *start.bytes());
        !starts_behind && !ends_before
    })
}

fn plan_log(plan: &mut RepairPlan, survey: &Survey, state: &State, damage: &LogDamage) {
    let segments = state.logs.keys();
    let segments: Vec<String> = segments.map(|&n| file_name(FileKind::Log, n)).collect();
    let there = |name: &&String| {
        let mut entries = survey.stock.entries.iter();
        entries.any(|entry| entry.name == **name)
    };
    plan.set_aside
        .extend(segments.iter().filter(there).cloned());
    plan.actions.push(RepairAction::FlushLog {
        segments,
        batches_kept: damage.kept.batches,
        last_sequence_kept: damage.kept.last_sequence,
    });
    let content = Content::of(&*survey.stock.env.transform);
    let first = damage.kept.last_sequence + 1;
    for (&id, keyspace) in &state.keyspaces {
        let lost = damage.lost.get(&id);
        if lost.is_none() && !damage.more {
            continue;
        }
        let keys = match lost {
            Some(lost) if !damage.more => KeySpan {
                start: Some(content.key(lost.first.clone())),
                end: Some(content.key(lost.last.clone())),
                end_included: true,
            },
            _ => KeySpan::ALL,
        };
        let count = |count: Option<u64>| match (count.unwrap_or(0), damage.more) {
            (0, true) => Count::Unknown,
            (count, true) => Count::AtLeast(count),
            (count, false) => Count::Exactly(count),
        };
        let sequences = match lost {
            Some(lost) if !damage.more => lost.sequences,
            _ => (first, damage.last_sequence.max(first)),
        };
        plan.losses.push(Loss {
            file: damage.file.clone(),
            keyspace: id,
            name: content.name(&keyspace.name),
            keys,
            entries: count(lost.map(|lost| lost.entries)),
            range_deletes: count(lost.map(|lost| lost.range_deletes)),
            sequences: Some(sequences),
            resurrects: damage.kept.batches > 0 || !keyspace.tables.is_empty(),
            reason: format!(
                "{}; writes behind it that were not in tables yet go. A batch across keyspaces may stay in \
                 one of them",
                damage.problem
            ),
        });
    }
}

fn plan_orphans(plan: &mut RepairPlan, survey: &Survey) {
    let orphan = |finding: &&Finding| finding.kind == FindingKind::Orphan;
    for finding in survey.findings.iter().filter(orphan) {
        let is_file = survey.stock.entries.iter().any(|entry| {
            entry.name == finding.file
                && entry.kind == EntryKind::File
                && matches!(
                    entry.meaning,
                    NameMeaning::Numbered(..) | NameMeaning::Unfinished
                )
        });
        if is_file {
            let file = finding.file.clone();
            plan.set_aside.push(file.clone());
            plan.actions.push(RepairAction::RemoveOrphan { file });
        }
    }
}
