//! Point reads: memtables, then runs, newest first, until one decides.

use std::ops::ControlFlow;

use vault_core::{Clock, EntryInfo, Error, Result, SequenceNumber, Slice};

use crate::blob::Pointer;
use crate::internal_key::seek_trailer;
use crate::keyspace::KeyspaceView;
use crate::read::visible::{Malformed, Resolver};
use crate::table::key_hash;

/// Looks a key up as a reader at `snapshot` sees it.
pub(crate) fn get(
    view: &KeyspaceView,
    key: &[u8],
    snapshot: SequenceNumber,
    clock: &dyn Clock,
) -> Result<Option<Slice>> {
    let resolver = resolve(view, key, snapshot, clock)?;
    finish(view, key, resolver)
}

/// As [`get`], without reading a value that is kept apart.
pub(crate) fn entry_info(
    view: &KeyspaceView,
    key: &[u8],
    snapshot: SequenceNumber,
    clock: &dyn Clock,
) -> Result<Option<EntryInfo>> {
    let resolver = resolve(view, key, snapshot, clock)?;
    if let Some(info) = resolver.entry_info() {
        return Ok(info);
    }
    let folded = finish(view, key, resolver)?;
    Ok(folded.map(|value| EntryInfo {
        value_bytes: value.len() as u64,
        expiry: None,
    }))
}

#[inline]
fn resolve<'a>(
    view: &'a KeyspaceView,
    key: &'a [u8],
    snapshot: SequenceNumber,
    clock: &'a dyn Clock,
) -> Result<Resolver<'a>> {
    let operator = view.keyspace.operator.as_deref();
    let mut resolver = Resolver::new(key, snapshot, clock, operator);
    if !ask_memtables(view, key, snapshot, &mut resolver)? {
        ask_runs(view, key, snapshot, &mut resolver)?;
    }
    Ok(resolver)
}

#[inline]
fn finish(view: &KeyspaceView, key: &[u8], resolver: Resolver<'_>) -> Result<Option<Slice>> {
    resolver
        .finish(|pointer| value_apart(view, key, pointer))
        .map_err(|error| view.keyspace.discreet(error))
}

/// Offers the versions in memtables. Gives whether the outcome is decided.
fn ask_memtables(
    view: &KeyspaceView,
    key: &[u8],
    snapshot: SequenceNumber,
    resolver: &mut Resolver<'_>,
) -> Result<bool> {
    for buffer in view.buffers() {
        let memtable = &buffer.memtable;
        if let Some(covering) = memtable
            .range_tombstones()
            .and_then(|all| all.covering(key, snapshot))
        {
            resolver.hide_below(covering);
        }
        let mut malformed = None;
        let _ = memtable.visit(key, seek_trailer(snapshot), |trailer, stored| {
            resolver
                .offer(trailer, stored, |skip| Slice::from(&stored[skip..]))
                .unwrap_or_else(|error| {
                    malformed = Some(error);
                    ControlFlow::Break(())
                })
        });
        check(malformed, view)?;
        if resolver.is_decided() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn ask_runs(
    view: &KeyspaceView,
    key: &[u8],
    snapshot: SequenceNumber,
    resolver: &mut Resolver<'_>,
) -> Result<()> {
    let presence = &view.keyspace.presence;
    let mut hash = None;
    let mut runs = view.version.runs().peekable();
    while let Some(run) = runs.next() {
        let Some(file) = run.find(key) else { continue };
        if let Some(covering) = file
            .tombstones
            .as_ref()
            .and_then(|all| all.covering(key, snapshot))
        {
            resolver.hide_below(covering);
        }
        let is_oldest = runs.peek().is_none();
        let hash = *hash.get_or_insert_with(|| key_hash(key));
        let asked = (!is_oldest || presence.is_uncertain()).then_some(hash);
        let (mut malformed, mut met) = (None, false);
        let _ = file
            .table
            .visit(key, asked, seek_trailer(snapshot), |trailer, stored| {
                met = true;
                resolver
                    .offer(trailer, &stored, |skip| {
                        if skip == 0 {
                            stored.clone()
                        } else {
                            Slice::from(&stored[skip..])
                        }
                    })
                    .unwrap_or_else(|error| {
                        malformed = Some(error);
                        ControlFlow::Break(())
                    })
            })?;
        if is_oldest {
            presence.note(met, hash);
        }
        check(malformed, view)?;
        if resolver.is_decided() {
            break;
        }
    }
    Ok(())
}

/// Reads a value that is kept apart.
pub(crate) fn value_apart(view: &KeyspaceView, key: &[u8], pointer: &Pointer) -> Result<Slice> {
    let file = view.version.blob(pointer.file);
    file.ok_or_else(|| malformed_entry(view))?
        .read(key, pointer)
}

fn check(malformed: Option<Malformed>, view: &KeyspaceView) -> Result<()> {
    malformed.map_or(Ok(()), |_| Err(malformed_entry(view)))
}

/// An entry that opened but makes no sense.
pub(crate) fn malformed_entry(view: &KeyspaceView) -> Error {
    let path = std::path::Path::new(&view.keyspace.name);
    Error::corruption(
        path,
        0,
        "an entry of this keyspace has an unknown kind, no room for its expiry, or a pointer that leads nowhere",
    )
}
