//! The command line.

mod snapshot;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use vault_db::engine::check::KnownKeyspace;

pub(crate) use snapshot::{
    Create, Diff, Drill, Name, Named, Prune, Repository, Restore, RestorePoint, Snapshot,
    VerifySnapshot,
};

/// Works on Vault stores.
#[derive(Debug, Parser)]
#[command(name = "vaultdb", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Prints one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Prints no progress and no notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 all is well, or done and nothing lost; 1 damage was found, or something was or would be lost; \
2 the command line is wrong; 3 it could not be done, or not to its end: \
the message says why; 4 it was done, and its result could not be written";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks every byte of a store; writes nothing, and works beside a process that has it open
    Verify(Verify),
    /// Brings a damaged store back to where it opens, keeping a copy of what it drops
    Repair(Repair),
    /// Makes a new store of what is left of one that cannot be repaired
    Salvage(Salvage),
    /// Makes, looks into, restores and keeps snapshots
    #[command(subcommand)]
    Snapshot(Snapshot),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The store's directory
    pub(crate) store: PathBuf,
    /// How many of the data blocks to read, as in `10%`; all else is read in any case
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = percent)]
    pub(crate) sample: f64,
    /// Chooses which blocks are read where not all are
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Looks at a part of the store alone
    #[arg(long, value_enum)]
    pub(crate) only: Option<Part>,
    /// Checks the files of an encrypted store by their checksums, for whoever has no key: finds accidents, and neither what
    /// somebody changed on purpose nor that a file is missing
    #[arg(long, conflicts_with_all = ["sample", "seed", "only", "key_source"])]
    pub(crate) without_keys: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

/// Where the key of an encrypted store comes from. Without any of these, a passphrase is asked for at the terminal.
#[derive(Debug, clap::Args)]
#[group(id = "key_source", multiple = false)]
#[command(next_help_heading = "Encrypted stores")]
pub(crate) struct Keys {
    /// The key: a file of 32 bytes or 64 hexadecimal digits, which nobody but its owner may read
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The key: an environment variable with 64 hexadecimal digits
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key_env: Option<String>,
    /// The key: what a command, given to the shell, prints as 64 hexadecimal digits
    #[arg(long, value_name = "COMMAND")]
    pub(crate) key_command: Option<String>,
    /// The passphrase: an environment variable
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) passphrase_env: Option<String>,
    /// The passphrase: the first line that a command, given to the shell, prints
    #[arg(long, value_name = "COMMAND")]
    pub(crate) passphrase_command: Option<String>,
}

/// A part of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The tables, with pointer and manifest
    Tables,
    /// The log, with pointer and manifest
    Log,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Repair {
    /// The store's directory; no process may have it open
    pub(crate) store: PathBuf,
    /// Says what would be done and what would be lost, and changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Goes on although entries are lost; without it such a repair is only planned
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// Tells the names of keyspaces of an encrypted store; its keys and values are never told
    #[arg(long)]
    pub(crate) show_names: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Salvage {
    /// The directory of the old store; nothing in it is changed
    pub(crate) from: PathBuf,
    /// The directory of the new one; it must be empty, or not be there
    pub(crate) into: PathBuf,
    /// What is known of a keyspace: its name, and its merge operator if it has one; may be repeated
    #[arg(long, value_name = "ID=NAME[:OPERATOR]", value_parser = keyspace)]
    pub(crate) keyspace: Vec<(u32, KnownKeyspace)>,
    /// Tells the names of keyspaces of an encrypted store; its keys and values are never told
    #[arg(long)]
    pub(crate) show_names: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("give a number above 0 and up to 100, as in 10%".to_owned()),
    }
}

fn keyspace(text: &str) -> Result<(u32, KnownKeyspace), String> {
    let wrong =
        || "give an id, a name and perhaps an operator, as in 3=visits:vault.counter".to_owned();
    let (id, rest) = text.split_once('=').ok_or_else(wrong)?;
    let id = id.parse().map_err(|_| wrong())?;
    let (name, operator) = match rest.split_once(':') {
        Some((name, operator)) => (name, Some(operator.to_owned())),
        None => (rest, None),
    };
    let name = (!name.is_empty()).then(|| name.to_owned());
    let known = KnownKeyspace {
        name,
        merge_operator: operator,
    };
    Ok((id, known))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn percents_and_keyspaces_are_read() {
        assert_eq!(percent("10%"), Ok(10.0));
        assert_eq!(percent("0.5"), Ok(0.5));
        for wrong in ["0", "-1%", "101%", "many", "NaN", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
        let (id, known) = keyspace("3=visits:vault.counter").unwrap();
        assert_eq!((id, known.name.as_deref()), (3, Some("visits")));
        assert_eq!(known.merge_operator.as_deref(), Some("vault.counter"));
        assert_eq!(keyspace("4=:vault.append").unwrap().1.name, None);
        assert!(keyspace("visits").is_err() && keyspace("x=visits").is_err());
    }
}
