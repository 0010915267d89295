//! The shipper: makes the log durable, and gives what is between the last shipment and there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::transform::{FileKind, HEADER_BYTES, SALT_BYTES};
use vault_core::vfs::{File, read_exact_at};
use vault_core::{Error, Result, SequenceNumber, Timestamp};

use super::kept::{Kept, KeptSegment, checksum};
use super::{LogPiece, ShipOptions, ShipPosition, Shipment, notes};
use crate::frame::{self, FRAME_BYTES};
use crate::layout::{SALT_OFFSET, header_checksum};
use crate::log::peek_start;
use crate::manifest::{Edit, Manifest};
use crate::store::{Store, lock};

/// Gives what is written as shipments, one after the other. [`Lsm::ship_log`](crate::Lsm::ship_log) has an example.
///
/// While it exists, log segments are kept until they are shipped. There is one at a time. It does not keep the store open: once
/// the store is closed, it gives no more. To be shipped last before closing, and begun anew with [`ShipOptions::from`] after opening.
pub struct LogShipper {
    store: Arc<Store>,
    position: ShipPosition,
    shipment_bytes_max: u64,
}

impl fmt::Debug for LogShipper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogShipper")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Drop for LogShipper {
    fn drop(&mut self) {
        self.store.shipping.end();
    }
}

/// Where the store stands.
struct Now {
    log: u64,
    sequence: SequenceNumber,
    time: Timestamp,
}

/// What is read for one shipment, and from where.
struct Part {
    number: u64,
    segment: KeptSegment,
    from: u64,
    to: u64,
    /// The last write before the segment that follows.
    until: Option<SequenceNumber>,
}

impl LogShipper {
    /// Begins to ship.
    pub(crate) fn begin(store: &Arc<Store>, options: &ShipOptions) -> Result<Self> {
        store.check_writable()?;
        let keys = store.env.transform.keys();
        // Neither may keyspaces come or go meanwhile, nor writes.
        let _turn = lock(&store.checkpoint_turn);
        let commit = store.commit()?;
        let manifest = store.manifest()?;
        let now = (commit.last_sequence, store.log_sync.position());
        let position = position(store, &manifest, options.from, now)?;
        let mut kept = Kept::new(position, options.retained_bytes_max);
        keep_segments(store, &manifest, &mut kept)?;
        let begins = kept.segments.values().next().map(|first| first.base);
        let whole = begins.is_some_and(|base| base <= position.log) || position.log == now.1;
        if !whole {
            return Err(gap(
                &position,
                "the log behind it is gone; capture a new base, and begin a new chain",
            ));
        }
        if let Some(keys) = keys {
            kept.keep_keyring(keys)?;
        }
        store.shipping.begin(kept)?;
        drop(manifest);
        drop(commit);
        Ok(Self {
            store: Arc::clone(store),
            position,
            shipment_bytes_max: options.shipment_bytes_max,
        })
    }

    /// Where the last shipment ended, or where this shipper began.
    #[must_use]
    pub const fn position(&self) -> ShipPosition {
        self.position
    }

    /// Whether anything happened behind that: a write, or a keyspace that came, changed or went.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let latest = self.store.visible.load(Ordering::Acquire);
        let changed = self.store.shipping.with(|kept| !kept.changes.is_empty());
        latest > self.position.sequence || changed.unwrap_or(false)
    }

    /// Makes what has been written durable, and gives what of it has not been shipped. Where that is more than one
    /// shipment may hold, [`Shipment::more`] says so. Writers wait for none of it but for a look at where the log ends.
    ///
    /// What is given is the caller's to keep: the next shipment goes on behind it.
    ///
    /// # Errors
    /// [`Error::LogGap`] where the shipper fell behind by more than is kept: then only a new base and a new chain help.
    /// [`Error::Closed`], [`Error::Locked`], [`Error::Poisoned`], [`Error::Io`]; after these it may be tried again where the store can be
    /// written to.
    pub fn ship(&mut self) -> Result<Shipment> {
        let store = Arc::clone(&self.store);
        store.check_writable()?;
        let now = {
            let commit = store.commit()?;
            Now {
                log: store.log_sync.position(),
                sequence: commit.last_sequence,
                time: store.env.clock.now(),
            }
        };
        store.sync_log(now.log)?;
        let taken = store.shipping.with(|kept| self.take(kept, &now));
        let (parts, changes) = taken.unwrap_or(Err(Error::Closed))?;
        let mut pieces = Vec::new();
        let (mut log, mut left) = (self.position.log, self.shipment_bytes_max);
        for part in &parts {
            let piece = self.read(part, &now, left.max(1))?;
            left = left.saturating_sub(piece.bytes.len() as u64);
            log = part.from + piece.bytes.len() as u64;
            pieces.extend((!piece.bytes.is_empty()).then_some(piece));
            if log < part.to || left == 0 {
                break;
            }
        }
        let more = log < parts.last().map_or(log, |part| part.to);
        let next = ShipPosition {
            shipment: self.position.shipment + 1,
            sequence: if more {
                self.position.sequence
            } else {
                now.sequence
            },
            log: if more { log } else { now.log },
            keyspaces: changes
                .last()
                .map_or(self.position.keyspaces, |change| change.2),
            ..self.position
        };
        let mut shipment = Shipment {
            store: store.env.store,
            position: self.position,
            next,
            time: now.time,
            more,
            pieces,
            notes: Vec::new(),
            keyrings: Vec::new(),
        };
        // No epoch begins while this is held: the notes are under keys that are in the keyring beside them.
        let manifest = store.manifest()?;
        let (kept, keyring) = self.keyrings()?;
        shipment.keyrings.clone_from(&kept);
        shipment
            .keyrings
            .extend(keyring.as_ref().map(|(_, bytes)| bytes.clone()));
        let sealed = changes.iter().map(|(at, edit, _)| (*at, edit.clone()));
        shipment.notes = notes::seal(&store.env, &shipment, sealed)?;
        drop(manifest);
        // Only now that nothing can fail any more.
        store.shipping.with(|place| {
            place.changes.drain(..changes.len());
            place.keyrings.drain(..kept.len());
            let version = keyring.map_or(0, |(version, _)| version);
            place.keyring_version = place.keyring_version.max(version);
            place.shipped = next;
            place.trim();
        });
        self.position = next;
        Ok(shipment)
    }

    /// The keyrings that wait to be shipped; and the one there is now, with its version, where that is none of them and was not
    /// shipped before.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn keyrings(&self) -> Result<(Vec<Vec<u8>>, Option<(u64, Vec<u8>)>)> {
        let Some(keys) = self.store.env.transform.keys() else {
            return Ok((Vec::new(), None));
        };
        let kept = self
            .store
            .shipping
            .with(|kept| (kept.keyrings.clone(), kept.keyring_version));
        let (waiting, known) = kept.ok_or(Error::Closed)?;
        let version = keys.version();
        let new = (version != known).then(|| keys.copied()).transpose()?;
        Ok((waiting, new.map(|bytes| (version, bytes))))
    }

    /// What is to be shipped by now.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn take(
        &self,
        kept: &Kept,
        now: &Now,
    ) -> Result<(Vec<Part>, Vec<(SequenceNumber, Edit, u32)>)> {
        if let Some(problem) = kept.lost {
            let problem = format!("{problem}; capture a new base, and begin a new chain");
            return Err(gap(&self.position, &problem));
        }
        let mut parts: Vec<Part> = Vec::new();
        for (&number, segment) in &kept.segments {
            if let Some(last) = parts.last_mut() {
                last.until = Some(segment.before);
            }
            let from = segment.base.max(self.position.log);
            let to = segment.end.map_or(now.log, |end| end.min(now.log));
            if from < to {
                let segment = segment.clone();
                parts.push(Part {
                    number,
                    segment,
                    from,
                    to,
                    until: None,
                });
            }
        }
        let changes = kept
            .changes
            .iter()
            .filter(|change| change.0 <= now.sequence);
        Ok((parts, changes.cloned().collect()))
    }

    /// Reads the records of a part, as many as fit into so many bytes, and one at least.
    fn read(&self, part: &Part, now: &Now, bytes_max: u64) -> Result<LogPiece> {
        let path = self.store.env.path(FileKind::Log, part.number);
        let file = &*part.segment.file;
        let failed = |e| Error::io("read", &path, e);
        let mut header = [0; HEADER_BYTES];
        read_exact_at(file, &mut header, 0).map_err(failed)?;
        let offset = HEADER_BYTES as u64 + (part.from - part.segment.base);
        let whole = part.to - part.from;
        let checksum = header_checksum(&header);
        let len = if whole <= bytes_max {
            whole
        } else {
            whole_records(file, offset, bytes_max, checksum).map_err(failed)?
        };
        let len = usize::try_from(len.min(whole)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        read_exact_at(file, &mut bytes, offset).map_err(failed)?;
        let at = SALT_OFFSET as usize;
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&header[at..at + SALT_BYTES]);
        let first = self.position.sequence.max(part.segment.before) + 1;
        Ok(LogPiece {
            segment: part.number,
            salt,
            checksum: super::replay::checksum(&header, &bytes),
            header: header.to_vec(),
            offset,
            bytes,
            first_sequence: first,
            last_sequence: part.until.unwrap_or(now.sequence).max(first - 1),
        })
    }
}

/// Where shipping begins.
fn position(
    store: &Store,
    manifest: &Manifest,
    from: Option<ShipPosition>,
    (sequence, log): (SequenceNumber, u64),
) -> Result<ShipPosition> {
    let instance = manifest.state().instance.id().unwrap_or_default();
    let keyspaces = checksum(manifest.state());
    let Some(from) = from else {
        let mut chain = [0; 16];
        store.env.random.fill(&mut chain)?;
        return Ok(ShipPosition {
            instance,
            chain,
            shipment: 0,
            sequence,
            log,
            keyspaces,
        });
    };
    let problem = if from.instance != instance {
        "it is that of another instance of the store"
    } else if from.log > log || from.sequence > sequence {
        "the log of the store ends before it: an older copy was put back"
    } else if from.keyspaces != keyspaces {
        "keyspaces came, changed or went while nobody shipped"
    } else {
        return Ok(from);
    };
    let problem = format!("{problem}; capture a new base, and begin a new chain");
    Err(gap(&from, &problem))
}

fn gap(position: &ShipPosition, problem: &str) -> Error {
    Error::LogGap {
        behind: position.sequence,
        problem: problem.to_owned(),
    }
}

/// Holds the segments open that there are, as far as records are in them.
fn keep_segments(store: &Store, manifest: &Manifest, kept: &mut Kept) -> Result<()> {
    for (&number, salt) in &manifest.state().logs {
        // One that was made ready has none: it is heard of when it is begun.
        let Some(start) = peek_start(&store.env, number, Some(salt))? else {
            continue;
        };
        let path = store.env.path(FileKind::Log, number);
        let file = store.env.fs.open(&path);
        let segment = KeptSegment {
            file: file.map_err(|e| Error::io("open", &path, e))?,
            base: start.base,
            end: None,
            before: 0,
            let_go: false,
        };
        kept.add(number, segment, &start);
    }
    kept.trim();
    Ok(())
}

/// How many of the bytes from `offset` on are whole records, if no more than so many are taken, and one at least.
fn whole_records(
    file: &dyn File,
    offset: u64,
    bytes_max: u64,
    checksum: u32,
) -> std::io::Result<u64> {
    let mut len = 0;
    loop {
        let mut begin = [0; FRAME_BYTES];
        read_exact_at(file, &mut begin, offset + len)?;
        let Some((_, sealed)) = frame::decode(checksum, &begin) else {
            if len == 0 {
                let problem = "no record stands where one was written";
                return Err(std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    problem,
                ));
            }
            return Ok(len);
        };
        let record = (FRAME_BYTES + sealed) as u64;
        if len > 0 && len + record > bytes_max {
            return Ok(len);
        }
        len += record;
    }
}
