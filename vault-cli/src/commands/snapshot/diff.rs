//! `vaultdb snapshot diff`, and how differences are told.

use std::fmt;
use std::ops::ControlFlow;

use serde::Serialize;
use vault_db::snapshot::SnapshotName;
use vault_db::{DifferenceKind, Result, Scope, VaultDifference};

use super::{resolve, with_options};
use crate::arguments::Diff;
use crate::output::{Outcome, Output};

/// Most keys that are told: they are held in memory.
const KEYS_TOLD_MAX: usize = 100_000;

pub(super) fn run(arguments: &Diff, output: &mut Output) -> Result<Outcome> {
    let differences = with_options(
        &arguments.source,
        &arguments.repository,
        output,
        |snapshots, _| {
            let older = resolve(snapshots, arguments.older)?;
            let newer = resolve(snapshots, arguments.newer)?;
            let (mut keys, mut keys_left_out) = (Vec::new(), 0);
            let vaults = snapshots.diff(older, newer, &Scope::Everything, |difference| {
                if arguments.keys && keys.len() < KEYS_TOLD_MAX {
                    keys.push(ChangedKey {
                        vault: full_name(difference.tenant, difference.vault),
                        key: difference.key.to_string(),
                        change: difference.kind.into(),
                    });
                } else if arguments.keys {
                    keys_left_out += 1;
                }
                ControlFlow::Continue(())
            })?;
            Ok(Differences {
                older,
                newer,
                vaults: vaults.iter().map(VaultChange::from).collect(),
                keys: arguments.keys.then_some(keys),
                keys_left_out,
            })
        },
    )?;
    output.result(&differences, &differences);
    Ok(Outcome::Well)
}

#[derive(Serialize)]
struct Differences {
    older: SnapshotName,
    newer: SnapshotName,
    vaults: Vec<VaultChange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<ChangedKey>>,
    /// Keys beyond those that can be told.
    keys_left_out: u64,
}

#[derive(Serialize)]
struct ChangedKey {
    vault: String,
    key: String,
    change: Change,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Added,
    Changed,
    Removed,
}

impl From<DifferenceKind> for Change {
    fn from(kind: DifferenceKind) -> Self {
        match kind {
            DifferenceKind::Added => Self::Added,
            DifferenceKind::Changed => Self::Changed,
            DifferenceKind::Removed => Self::Removed,
        }
    }
}

/// What changes, or has changed, of a vault.
#[derive(Debug, Serialize)]
pub(super) struct VaultChange {
    vault: String,
    is_new: bool,
    is_gone: bool,
    added: u64,
    changed: u64,
    removed: u64,
    same: u64,
}

impl From<&VaultDifference> for VaultChange {
    fn from(vault: &VaultDifference) -> Self {
        Self {
            vault: full_name(vault.tenant.as_deref(), &vault.vault),
            is_new: vault.is_new,
            is_gone: vault.is_gone,
            added: vault.added,
            changed: vault.changed,
            removed: vault.removed,
            same: vault.same,
        }
    }
}

impl VaultChange {
    pub(super) const fn is_empty(&self) -> bool {
        !self.is_new && !self.is_gone && self.added + self.changed + self.removed == 0
    }
}

impl fmt::Display for VaultChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vault,
            added,
            changed,
            removed,
            same,
            ..
        } = self;
        write!(
            f,
            "{vault}: {added} added, {changed} changed, {removed} removed, {same} the same"
        )?;
        if self.is_new {
            write!(f, "; the vault is new")?;
        }
        if self.is_gone {
            write!(f, "; the vault is gone")?;
        }
        Ok(())
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ChangedKey { vault, key, change } in self.keys.iter().flatten() {
            let sign = match change {
                Change::Added => '+',
                Change::Changed => '~',
                Change::Removed => '-',
            };
            writeln!(f, "{sign} {vault}: {key}")?;
        }
        if self.keys_left_out > 0 {
            writeln!(f, "and {} keys more, too many to tell", self.keys_left_out)?;
        }
        let changed = || self.vaults.iter().filter(|vault| !vault.is_empty());
        changed().try_for_each(|vault| writeln!(f, "{vault}"))?;
        if changed().next().is_none() {
            writeln!(f, "{} and {} hold the same", self.older, self.newer)?;
        }
        Ok(())
    }
}

/// The name of a vault with its tenant's in front.
fn full_name(tenant: Option<&str>, vault: &str) -> String {
    tenant.map_or_else(|| vault.to_owned(), |tenant| format!("{tenant}/{vault}"))
}
