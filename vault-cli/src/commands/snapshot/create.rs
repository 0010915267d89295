//! `vaultdb snapshot create`

use vault_db::snapshot::{Form, Manifest, Parent, SnapshotOptions};
use vault_db::{Error, Result};

use super::row::Row;
use super::{Access, open_store};
use crate::arguments::Create;
use crate::interruption::Watched;
use crate::keys::{self, Key};
use crate::output::{Outcome, Output};

pub(super) fn run(arguments: &Create, output: &mut Output) -> Result<Outcome> {
    let (made, closed) =
        keys::with_key(&arguments.keys, output, keys::wants_key, |key, output| {
            create(arguments, key, output)
        })?;
    let row = Row::from(&made);
    output.result(&row, format_args!("made {row}\n"));
    if let Err(error) = closed {
        output.remark(&format_args!(
            "the snapshot is made; closing the store failed: {error}"
        ));
    }
    Ok(Outcome::Well)
}

/// Gives what came of closing the store, too: that changes nothing about the snapshot.
fn create(
    arguments: &Create,
    key: Option<&Key>,
    output: &mut Output,
) -> Result<(Manifest, Result<()>)> {
    let watched = Watched::begin(output, "copied")?;
    let database = open_store(&arguments.store, key, Access::Write)?;
    let options = SnapshotOptions {
        form: match arguments.logical {
            true => Form::Logical,
            false => Form::Physical,
        },
        scope: arguments.scope(),
        parent: match arguments.full {
            true => Parent::None,
            false => Parent::Newest,
        },
        tags: arguments.tag.clone(),
        note: arguments.note.clone(),
        danger_in_the_clear: arguments.in_the_clear,
        ..SnapshotOptions::default()
    };
    let made = database
        .snapshots(&arguments.repository)?
        .create_with(&options, &watched);
    let closed = database.close();
    let made = made.map_err(|error| match error {
        // The same in words of the command line.
        Error::UnsupportedSnapshot { .. } if key.is_some() && arguments.logical => {
            Error::UnsupportedSnapshot {
                problem: "a logical snapshot has every entry of this encrypted store in the clear; leave --logical out, or say that \
                          this is meant with --in-the-clear",
            }
        }
        error => error,
    })?;
    Ok((made, closed))
}
