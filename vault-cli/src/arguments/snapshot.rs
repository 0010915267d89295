//! The command line of `vaultdb snapshot`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Subcommand};
use vault_db::snapshot::{Retention, SnapshotName, Until};
use vault_db::{Scope, Timestamp, VaultChoice};

use super::Keys;

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Makes a snapshot of a store that no process has open; one that has it open makes its own
    Create(Create),
    /// Says which snapshots there are, and what was interrupted
    List(Repository),
    /// Reads all of a snapshot and holds it against its hashes, without keys; where the key is at hand, or none is needed, every
    /// block of its files, too
    Verify(VerifySnapshot),
    /// Says what came, changed and went between two snapshots, without unpacking either
    Diff(Diff),
    /// Gets the content of a snapshot back: into a new directory, or in place into a store
    Restore(Restore),
    /// Removes snapshots that no rule keeps and no kept one builds on
    Prune(Prune),
    /// Makes a full snapshot out of an incremental one and what that builds on
    Consolidate(Named),
    /// Removes what was left behind by what was interrupted
    Clean(Repository),
    /// Restores the newest snapshot into a temporary directory, reads every entry, and removes it again
    Drill(Drill),
    /// Makes a store of what there was at any point in time, of a snapshot and an archive of the log
    RestorePoint(RestorePoint),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Repository {
    /// The repository's directory
    pub(crate) repository: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The repository's directory
    pub(crate) repository: PathBuf,
    /// The snapshot's name, or `latest`
    pub(crate) name: Name,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The store's directory
    pub(crate) store: PathBuf,
    /// The repository's directory; it is made where it is missing
    pub(crate) repository: PathBuf,
    /// Stores every file again, and builds on no other snapshot
    #[arg(long)]
    pub(crate) full: bool,
    /// Makes a document of JSON for each vault instead of taking the store's files
    #[arg(long, conflicts_with = "full")]
    pub(crate) logical: bool,
    /// A vault to take, with --logical; may be repeated
    #[arg(long, value_name = "NAME", requires = "logical")]
    pub(crate) vault: Vec<String>,
    /// The tenant whose vaults to take, with --logical
    #[arg(long, value_name = "NAME", requires = "logical")]
    pub(crate) tenant: Option<String>,
    /// A word for retention; may be repeated
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// Anything worth saying about it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
    /// Has the documents of an encrypted store lie in the repository in the clear
    #[arg(long, requires = "logical")]
    pub(crate) in_the_clear: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

impl Create {
    pub(crate) fn scope(&self) -> Scope {
        let vaults = self.vault.iter().map(VaultChoice::named);
        scope(vaults.collect(), self.tenant.as_deref())
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifySnapshot {
    /// The repository's directory
    pub(crate) repository: PathBuf,
    /// The snapshot's name; the latest where none is given
    #[arg(default_value = LATEST)]
    pub(crate) name: Name,
    /// Verifies every snapshot of the repository
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// The repository's directory
    pub(crate) repository: PathBuf,
    /// The older snapshot's name, or `latest`
    pub(crate) older: Name,
    /// The newer snapshot's name, or `latest`
    pub(crate) newer: Name,
    /// Tells every key that differs, too
    #[arg(long)]
    pub(crate) keys: bool,
    #[command(flatten)]
    pub(crate) source: Keys,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("place").required(true).args(["to", "into"]))]
pub(crate) struct Restore {
    /// The repository's directory
    pub(crate) repository: PathBuf,
    /// The snapshot's name, or `latest`
    pub(crate) name: Name,
    /// Makes a new store in this directory, which must be empty, or not be there
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) to: Option<PathBuf>,
    /// Has it take the place of what is in this store, at one moment and whole; no process may have the store open
    #[arg(long, value_name = "STORE")]
    pub(crate) into: Option<PathBuf>,
    /// Refuses a snapshot of a generation before this one, which you have kept elsewhere
    #[arg(long, value_name = "N", conflicts_with = "into")]
    pub(crate) least_generation: Option<u64>,
    /// A vault to restore, with --into, and the name to restore it under if it is to lie beside the one there is; may be
    /// repeated
    #[arg(long, value_name = "NAME[=UNDER]", value_parser = vault_choice, conflicts_with = "to")]
    pub(crate) vault: Vec<VaultChoice>,
    /// The tenant whose vaults to restore, with --into
    #[arg(long, value_name = "NAME", conflicts_with = "to")]
    pub(crate) tenant: Option<String>,
    /// Verifies the snapshot, says what would be done, and changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

impl Restore {
    pub(crate) fn scope(&self) -> Scope {
        scope(self.vault.clone(), self.tenant.as_deref())
    }
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("rules").required(true).multiple(true).args(RULES))]
pub(crate) struct Prune {
    /// The repository's directory
    pub(crate) repository: PathBuf,
    /// Keeps so many of the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_last: Option<u32>,
    /// Keeps the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_hourly: Option<u32>,
    /// Keeps the newest of each of the last N days that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_daily: Option<u32>,
    /// Keeps the newest of each of the last N weeks, from Monday on, that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_weekly: Option<u32>,
    /// Keeps the newest of each of the last N months that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_monthly: Option<u32>,
    /// Keeps what has this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(crate) keep_tag: Vec<String>,
    /// Says what would go and why the rest stays, and removes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Prune {
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            last: self.keep_last.unwrap_or(0),
            hourly: self.keep_hourly.unwrap_or(0),
            daily: self.keep_daily.unwrap_or(0),
            weekly: self.keep_weekly.unwrap_or(0),
            monthly: self.keep_monthly.unwrap_or(0),
            tags: self.keep_tag.iter().cloned().collect(),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Drill {
    /// The repository's directory
    pub(crate) repository: PathBuf,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("point").required(true).args(["sequence", "time", "end"]))]
pub(crate) struct RestorePoint {
    /// The repository's directory
    pub(crate) repository: PathBuf,
    /// The directory of the archive of the log
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) log: PathBuf,
    /// Up to this write, as a sequence number
    #[arg(long, value_name = "N")]
    pub(crate) sequence: Option<u64>,
    /// Up to this time, as in `2026-11-22T15:30:00Z`, or in milliseconds since 1970; as exact as the log was shipped often
    #[arg(long, value_parser = time)]
    pub(crate) time: Option<Timestamp>,
    /// Up to the last write that was shipped
    #[arg(long)]
    pub(crate) end: bool,
    /// The directory of the new store; it must be empty, or not be there
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

impl RestorePoint {
    /// The command line lets through exactly one.
    pub(crate) fn until(&self) -> Until {
        match (self.sequence, self.time) {
            (Some(sequence), _) => Until::Sequence(sequence),
            (None, Some(time)) => Until::Time(time),
            (None, None) => Until::End,
        }
    }
}

/// The rules of pruning, one of which there must be: without any, everything but the newest would go.
const RULES: [&str; 6] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_tag",
];

/// What stands for the newest snapshot.
const LATEST: &str = "latest";

/// Which snapshot is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Latest,
    Of(SnapshotName),
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == LATEST {
            return Ok(Self::Latest);
        }
        let name = text.parse::<SnapshotName>();
        name.map(Self::Of).map_err(|error| error.to_string())
    }
}

fn scope(vaults: Vec<VaultChoice>, tenant: Option<&str>) -> Scope {
    match (vaults.is_empty(), tenant) {
        (true, None) => Scope::Everything,
        (true, Some(tenant)) => Scope::Tenant(tenant.to_owned()),
        (false, None) => Scope::Vaults(vaults),
        (false, Some(tenant)) => {
            Scope::Vaults(vaults.into_iter().map(|vault| vault.of(tenant)).collect())
        }
    }
}

/// No name of a vault has an equals sign in it.
fn vault_choice(text: &str) -> Result<VaultChoice, Infallible> {
    Ok(match text.split_once('=') {
        Some((name, under)) => VaultChoice::named(name).under(under),
        None => VaultChoice::named(text),
    })
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(milliseconds) = text.parse::<u64>() {
        return Ok(Timestamp(milliseconds));
    }
    let wrong = "give a time as in 2026-11-22T15:30:00Z, or milliseconds since 1970";
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong.to_owned())?;
    let milliseconds = u64::try_from(time.as_millisecond());
    milliseconds.map(Timestamp).map_err(|_| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_times_and_vaults_are_read() {
        assert_eq!("latest".parse::<Name>().unwrap(), Name::Latest);
        let named = "2026-11-22T153000Z".parse::<Name>().unwrap();
        assert!(matches!(named, Name::Of(name) if name.to_string() == "2026-11-22T153000Z"));
        assert!("Latest".parse::<Name>().is_err() && "../x".parse::<Name>().is_err());

        assert_eq!(time("1795361400999"), Ok(Timestamp(1_795_361_400_999)));
        let expected = Ok(Timestamp(1_795_361_400_500));
        assert_eq!(time("2026-11-22T15:30:00.5Z"), expected);
        assert_eq!(time("2026-11-22T16:30:00.5+01:00"), expected);
        for wrong in ["", "yesterday", "2026-11-22", "1969-12-31T23:59:59Z", "-1"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }

        let beside = VaultChoice::named("a").under("b");
        assert_eq!(vault_choice("a=b"), Ok(beside.clone()));
        assert_eq!(scope(vec![], None), Scope::Everything);
        assert_eq!(scope(vec![], Some("t")), Scope::Tenant("t".to_owned()));
        let of_tenant = Scope::Vaults(vec![beside.clone().of("t")]);
        assert_eq!(scope(vec![beside], Some("t")), of_tenant);
    }
}
