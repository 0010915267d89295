//! `vaultdb snapshot restore-point`

use std::path::PathBuf;

use serde::Serialize;
use vault_db::snapshot::{PointRestored, SnapshotName};
use vault_db::{Error, Result};

use super::{absolute, stored, with_key};
use crate::arguments::RestorePoint;
use crate::interruption::Watched;
use crate::keys;
use crate::output::{Outcome, Output, path_as_shown};

pub(super) fn run(arguments: &RestorePoint, output: &mut Output) -> Result<Outcome> {
    let snapshots = stored(&arguments.repository)?;
    // Nothing else of it is unsupported than to replay the log of an encrypted store without its key.
    let wants_key = |error: &Error| {
        let wants = matches!(error, Error::UnsupportedSnapshot { .. });
        wants.then(|| arguments.repository.clone())
    };
    let keys = &arguments.keys;
    let restored = keys::with_key(keys, output, wants_key, |key, output| {
        let watched = Watched::begin(output, "restored")?;
        let archive = with_key(&snapshots, key).log_archive(&arguments.log);
        archive.restore_to_with(arguments.until(), &arguments.to, &watched, |replayed| {
            let (done, total) = (replayed.shipments_done, replayed.shipments_total);
            watched.parts(done, total, "shipments of the log replayed")
        })
    })?;
    let PointRestored {
        base,
        sequence,
        batches,
    } = restored;
    let target = absolute(&arguments.to);
    let shown = target.display().to_string();
    let told = Told {
        base,
        target,
        sequence,
        batches,
    };
    output.result(
        &told,
        format_args!(
            "restored into {shown}: what there was after write {sequence}, of snapshot {base} and {batches} batches of the log\n"
        ),
    );
    Ok(Outcome::Well)
}

#[derive(Serialize)]
struct Told {
    base: SnapshotName,
    #[serde(serialize_with = "path_as_shown")]
    target: PathBuf,
    sequence: u64,
    batches: u64,
}
