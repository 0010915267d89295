//! Making what was read back from the log durable.
//!
//! A process that ended, without the machine ending too, may have left records in the page cache only. They
//! are about to be shown to readers, and new writes will become durable behind them, so they have to be
//! durable first. A sync alone does not do it: after one that failed, the operating system takes the pages
//! for clean, reads them back, and reports the next sync as a success, though they never reached the medium
//! (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). So the records are
//! written once more, byte for byte, over themselves, and then synced. Whatever a loss of power leaves of
//! that is either the old or the same.
//!
//! What is known to have been durable is left alone: everything before the last record that a sync was
//! reported for, and a log that was closed cleanly.

use std::ops::Range;
use std::path::Path;

use vault_core::transform::FileKind;
use vault_core::vfs::{File, read_exact_at};
use vault_core::{Error, Result};

use crate::layout::Env;
use crate::log::Replay;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// Makes the records that were read durable. `synced` is the log position up to which the manifest knows
/// that they are.
pub(crate) fn secure(env: &Env, replay: &Replay, synced: u64) -> Result<()> {
    let synced = synced.max(replay.synced);
    for segment in &replay.used {
        if segment.position <= synced {
            continue;
        }
        let path = env.path(FileKind::Log, segment.number);
        let file = env
            .fs
            .open_for_write(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        rewrite(&*file, &path, 0..segment.end)?;
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
    }
    Ok(())
}

/// Writes a part of a file over itself.
pub(crate) fn rewrite(file: &dyn File, path: &Path, part: Range<u64>) -> Result<()> {
    let wanted = usize::try_from(part.end - part.start).unwrap_or(COPY_BYTES);
    let mut buffer = vec![0; COPY_BYTES.min(wanted)];
    let mut offset = part.start;
    while offset < part.end {
        let len = (part.end - offset).min(buffer.len() as u64) as usize;
        let piece = &mut buffer[..len];
        read_exact_at(file, piece, offset).map_err(|e| Error::io("read", path, e))?;
        file.write_at(piece, offset)
            .map_err(|e| Error::io("write", path, e))?;
        offset += len as u64;
    }
    Ok(())
}
