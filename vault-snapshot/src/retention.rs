//! Which snapshots stay, decided purely.
//!
//! Snapshots are gone through from the newest back. A rule of `n` hours keeps the newest snapshot of each of the last `n` hours
//! in which there is one, by the calendar in UTC; days, weeks (of ISO 8601) and months likewise. So gaps do not use a rule up, and
//! a snapshot may be kept by several rules. Kept besides are the newest one, those from after `now`, and whatever a kept one builds
//! on. Two that show the same moment, one of them consolidated out of the other, count as one: the consolidated one.
//!
//! Where a link of a chain is missing, its manifest was lost, and may be put back: whatever of that chain is older is taken for needed. Where the
//! clock had gone back, names run ahead of it, all within one hour: calendars go by the time that the clock said.
//!
//! Physical and logical ones are counted apart, and the newest of each form is kept: documents may be of some vaults only, which their
//! manifest does not tell from a store that had no others, so they never stand in for a snapshot of the files.

use std::collections::{BTreeMap, BTreeSet};

use vault_core::Timestamp;

use crate::archive::{Form, Manifest, SnapshotName};

/// What is kept. Everything that no rule keeps goes, but for the newest of each form. Each number is of physical snapshots, and of
/// logical ones as well.
///
/// ```
/// use vault_snapshot::retention::Retention;
/// let a_month_back = Retention { last: 3, daily: 7, weekly: 4, ..Retention::default() };
/// assert_eq!(a_month_back.monthly, 0);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// So many of the newest.
    pub last: u32,
    /// The newest of each of so many hours.
    pub hourly: u32,
    /// The newest of each of so many days.
    pub daily: u32,
    /// The newest of each of so many weeks, from Monday on.
    pub weekly: u32,
    /// The newest of each of so many months.
    pub monthly: u32,
    /// Those that have one of these tags.
    pub tags: BTreeSet<String>,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is the newest of its form.
    Newest,
    /// It is from after now: the clock went back, and its age cannot be told.
    AheadOfClock,
    /// By [`Retention::last`].
    Last,
    /// By [`Retention::hourly`].
    Hourly,
    /// By [`Retention::daily`].
    Daily,
    /// By [`Retention::weekly`].
    Weekly,
    /// By [`Retention::monthly`].
    Monthly,
    /// By this tag.
    Tag(String),
}

/// What pruning does, each list oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct PrunePlan {
    /// What is kept for its own sake, and why.
    pub keep: Vec<(SnapshotName, Vec<Reason>)>,
    /// What is kept because others build on it: the kept ones that do.
    pub kept_for: Vec<(SnapshotName, Vec<SnapshotName>)>,
    /// What goes.
    pub remove: Vec<SnapshotName>,
}

/// Decides which of the snapshots stay.
#[must_use]
pub fn plan(snapshots: &[Manifest], retention: &Retention, now: Timestamp) -> PrunePlan {
    let reasons = reasons(snapshots, retention, now);
    let by_name = by_name(snapshots);
    let mut needed: BTreeMap<SnapshotName, Vec<SnapshotName>> = BTreeMap::new();
    for &kept in reasons.keys() {
        for name in ancestors(&by_name, kept) {
            needed.entry(name).or_default().push(kept);
        }
    }
    let mut plan = PrunePlan::default();
    for name in snapshots.iter().map(|m| m.name).collect::<BTreeSet<_>>() {
        if let Some(reasons) = reasons.get(&name) {
            let reasons = reasons.iter().cloned().collect();
            plan.keep.push((name, reasons));
        } else if let Some(by) = needed.remove(&name) {
            plan.kept_for.push((name, by));
        } else {
            plan.remove.push(name);
        }
    }
    plan
}

/// The snapshots that build on `name`, directly or not, or may, oldest first.
#[must_use]
pub fn dependents(snapshots: &[Manifest], name: SnapshotName) -> Vec<SnapshotName> {
    let by_name = by_name(snapshots);
    let others = by_name.keys().copied();
    others
        .filter(|&other| ancestors(&by_name, other).any(|ancestor| ancestor == name))
        .collect()
}

type ByName<'a> = BTreeMap<SnapshotName, &'a Manifest>;

fn by_name(snapshots: &[Manifest]) -> ByName<'_> {
    snapshots.iter().map(|m| (m.name, m)).collect()
}

/// What a snapshot builds on, parent by parent; behind a link that is missing, whatever it may lead to.
fn ancestors<'a>(
    by_name: &'a ByName<'_>,
    of: SnapshotName,
) -> impl Iterator<Item = SnapshotName> + 'a {
    let parent = |name: SnapshotName| by_name.get(&name).and_then(|manifest| manifest.parent);
    // Names descend, so that it ends.
    let links = std::iter::successors(parent(of), move |&name| {
        parent(name).filter(|parent| *parent < name)
    });
    let missing = links.clone().find(|name| !by_name.contains_key(name));
    let root = by_name.get(&of).map(|manifest| manifest.chain_root);
    let behind = root.zip(missing).filter(|(root, missing)| root < missing);
    let behind = behind.into_iter().flat_map(move |(root, missing)| {
        let older = by_name.range(root..missing);
        older.filter(move |(_, manifest)| manifest.chain_root == root)
    });
    links.chain(behind.map(|(name, _)| *name))
}

fn reasons(
    snapshots: &[Manifest],
    retention: &Retention,
    now: Timestamp,
) -> BTreeMap<SnapshotName, BTreeSet<Reason>> {
    let mut reasons: BTreeMap<SnapshotName, BTreeSet<Reason>> = BTreeMap::new();
    let mut give = |manifest: &Manifest, reason| {
        reasons.entry(manifest.name).or_default().insert(reason);
    };
    for manifest in snapshots {
        if manifest.time > now {
            give(manifest, Reason::AheadOfClock);
        }
        for tag in manifest.tags.iter().filter(|t| retention.tags.contains(*t)) {
            give(manifest, Reason::Tag(tag.clone()));
        }
    }
    for form in [Form::Physical, Form::Logical] {
        let of_form = snapshots.iter().filter(|manifest| manifest.form == form);
        count(of_form.collect(), retention, &mut give);
    }
    reasons
}

/// Goes through snapshots of one form by the rules that count.
fn count(
    mut newest_first: Vec<&Manifest>,
    retention: &Retention,
    give: &mut impl FnMut(&Manifest, Reason),
) {
    newest_first.sort_unstable_by_key(|m| std::cmp::Reverse((m.moment(), m.name)));
    newest_first.dedup_by_key(|manifest| manifest.moment());
    let Retention {
        last,
        hourly,
        daily,
        weekly,
        monthly,
        ..
    } = *retention;
    type Bucket = fn(&Manifest) -> (i64, i64);
    let rules: [(u32, Reason, Bucket); 6] = [
        (1, Reason::Newest, each),
        (last, Reason::Last, each),
        (hourly, Reason::Hourly, hour),
        (daily, Reason::Daily, day),
        (weekly, Reason::Weekly, week),
        (monthly, Reason::Monthly, month),
    ];
    for (count, reason, bucket) in rules {
        let (mut left, mut before) = (count, None);
        for manifest in &newest_first {
            let bucket = Some(bucket(manifest));
            if left > 0 && bucket != before {
                (left, before) = (left - 1, bucket);
                give(manifest, reason.clone());
            }
        }
    }
}

const HOUR_MS: u64 = 60 * 60 * 1000;

fn each(manifest: &Manifest) -> (i64, i64) {
    (manifest.moment().timestamp().0.cast_signed(), 0)
}

fn hour(manifest: &Manifest) -> (i64, i64) {
    ((made(manifest).timestamp().0 / HOUR_MS).cast_signed(), 0)
}

fn day(manifest: &Manifest) -> (i64, i64) {
    let day = made(manifest).timestamp().0 / (24 * HOUR_MS);
    (day.cast_signed(), 0)
}

fn week(manifest: &Manifest) -> (i64, i64) {
    let week = made(manifest).civil().date().iso_week_date();
    (week.year().into(), week.week().into())
}

fn month(manifest: &Manifest) -> (i64, i64) {
    let date = made(manifest).civil().date();
    (date.year().into(), date.month().into())
}

/// When it was made of the store, to the second: what the clock said, where the name had to be ahead of that.
fn made(manifest: &Manifest) -> SnapshotName {
    let moment = manifest.moment();
    SnapshotName::at(manifest.time).map_or(moment, |time| time.min(moment))
}
