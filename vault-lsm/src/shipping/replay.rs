//! Replaying shipments on a restored copy, up to a point.
//!
//! Everything is checked before the copy is written to for the first time, as far as it can be: what does not belong to it is refused with
//! nothing changed. From then on its batches are written again one by one, as at first: under a sequence number each, into the log and
//! memtables. An end midway leaves a copy that is at an earlier point, from which the same replay goes on.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::transform::{
    BlockTransform, FileHeader, FileKind, HEADER_BYTES, KEYRING_COPY_NAME, KEYRING_NAME,
    StorePlace, Transform,
};
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Engine, Error, Result, SequenceNumber, Timestamp, WriteBatch};

use super::notes::{self, Change};
use super::{LogPiece, ShipPosition, Shipment};
use crate::engine::Lsm;
use crate::frame::{self, FRAME_BYTES, record_identity};
use crate::log::LOG_VERSION;
use crate::log::record::{self, Body};
use crate::manifest::{Edit, Instance};
use crate::options::{LsmOptions, OpenMode};
use crate::restored::is_marked;

/// How far a replay goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// To the end of the last shipment.
    End,
    /// To this sequence number: what was written as one goes whole or not at all, and not if a part of it is beyond. What became of
    /// keyspaces right behind this write is beyond it too.
    Sequence(SequenceNumber),
    /// To this time: shipments that were made later are not replayed. So it is as exact as shipments are frequent.
    Time(Timestamp),
}

/// What came of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The last write that the store holds now.
    pub sequence: SequenceNumber,
    /// Batches that were written again.
    pub batches: u64,
    /// When the last shipment was made of which something counted.
    pub time: Timestamp,
}

/// Brings a restored copy, which nobody has opened for writing and nobody has open, forward by what was shipped.
///
/// `shipments` are those of one chain in their order without a gap, from the last one that ends ([`Shipment::next`]) before the sequence
/// number of the base on; earlier ones do no harm. What was shipped at a time ([`Shipment::more`]) is begun with its first one. The
/// store in `directory` is opened as `options` say, with the secret that the shipping store had; its merge operators have to be
/// registered. Afterwards it is closed, and a copy still: it can be replayed on once more, further, until it is first opened for
/// writing.
///
/// ```
/// # use vault_core::vfs::{DiskFileSystem, FileSystem, read_whole};
/// # use vault_core::{Engine, KeyspaceOptions, Reader, WriteOptions};
/// # use vault_lsm::{Lsm, LsmOptions};
/// use vault_lsm::shipping::{ShipOptions, Until, replay_shipped};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let store = Lsm::open(directory.path().join("store"), LsmOptions::default())?;
/// let users = store.create_keyspace("users", &KeyspaceOptions::default())?;
/// let mut shipper = store.ship_log(&ShipOptions::default())?;
/// let base = store.capture()?;
/// let wanted = store.put(users, b"alice", b"admin", &WriteOptions::default())?;
/// store.put(users, b"alice", b"nobody", &WriteOptions::default())?;
/// let shipment = shipper.ship()?;
///
/// let copy = directory.path().join("copy");
/// # DiskFileSystem.create_dir_all(&copy)?;
/// for file in &base.files {
/// #   let bytes = read_whole(&*file.content)?;
/// #   DiskFileSystem.create(&copy.join(&file.name))?.write_at(&bytes, 0)?;
///     // … is written to `copy`.
/// }
/// let options = LsmOptions::default();
/// replay_shipped(&copy, &options, [Ok(shipment)], Until::Sequence(wanted))?;
/// let copy = Lsm::open(&copy, options)?;
/// assert_eq!(copy.get(users, b"alice")?.as_deref(), Some(&b"admin"[..]));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// - [`Error::LogGap`] where shipments or pieces are missing, or data was ingested past the log: a newer base is needed to go
///   beyond.
/// - [`Error::UnfitLog`] where they are of another store, instance or chain, or sealed under keys that are not there, or where the
///   store was opened for writing since it was restored.
/// - [`Error::InvalidSetting`] where the point lies before the base.
/// - [`Error::Corruption`] with the shipment and segment where a piece is not what was shipped.
/// - Those of opening a store and of writing to it, and what the iterator gives.
pub fn replay_shipped(
    directory: impl AsRef<Path>,
    options: &LsmOptions,
    shipments: impl IntoIterator<Item = Result<Shipment>>,
    until: Until,
) -> Result<Replayed> {
    let mut replay = Replay::new(directory.as_ref(), options, until)?;
    for shipment in shipments {
        if !replay.shipment(&shipment?)? {
            break;
        }
    }
    replay.finish()
}

/// The checksum of a piece.
pub(super) fn checksum(header: &[u8], records: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(records);
    hasher.finalize()
}

/// A replay that is under way.
struct Replay {
    directory: PathBuf,
    options: LsmOptions,
    until: Until,
    /// The copy, as it is read, and as it is written to from the first change on.
    base: Lsm,
    target: Option<Lsm>,
    /// The last write that the copy holds.
    applied: SequenceNumber,
    /// Where the shipment before ended.
    last: Option<ShipPosition>,
    /// What became of keyspaces, not applied yet, behind which write.
    changes: VecDeque<Change>,
    /// The keys that came with shipments, newest last.
    rings: Vec<Arc<dyn Transform>>,
    /// The segment whose records were read last, its keys, and the ordinal of the next record.
    segment: Option<(Vec<u8>, Arc<dyn BlockTransform>, u32)>,
    outcome: Replayed,
}

impl Replay {
    fn new(directory: &Path, options: &LsmOptions, until: Until) -> Result<Self> {
        let base = Lsm::open_read_only(directory, options)?;
        let applied = base.latest_sequence();
        let replay = Self {
            directory: directory.to_path_buf(),
            options: options.clone().mode(OpenMode::MustExist),
            until,
            base,
            target: None,
            applied,
            last: None,
            changes: VecDeque::new(),
            rings: Vec::new(),
            segment: None,
            outcome: Replayed {
                sequence: applied,
                batches: 0,
                time: Timestamp::default(),
            },
        };
        if matches!(until, Until::Sequence(sequence) if sequence < applied) {
            return Err(replay.before_base());
        }
        Ok(replay)
    }

    /// Replays a shipment. Gives whether there is more to replay.
    fn shipment(&mut self, shipment: &Shipment) -> Result<bool> {
        self.check_follows(shipment)?;
        if matches!(self.until, Until::Time(time) if shipment.time > time) {
            return if self.last.is_some() {
                Ok(false)
            } else {
                Err(self.before_base())
            };
        }
        self.last = Some(shipment.next);
        for keyring in &shipment.keyrings {
            self.add_ring(keyring)?;
        }
        let changes = self.notes(shipment)?;
        self.changes.extend(changes);
        for piece in &shipment.pieces {
            if !self.piece(shipment, piece)? {
                self.outcome.time = shipment.time;
                return Ok(false);
            }
        }
        self.outcome.time = shipment.time;
        let reached = shipment.next.sequence;
        match self.until {
            Until::Sequence(sequence) if sequence <= self.applied => Ok(false),
            _ if reached > self.applied => Err(self.gap(format!(
                "everything up to {reached} was written by then, and some of it is not in the log: what is ingested is not, \
                 and needs a newer base"
            ))),
            _ => Ok(true),
        }
    }

    /// Refuses a shipment that is not the next one, or none of this store.
    fn check_follows(&self, shipment: &Shipment) -> Result<()> {
        let store = self.base.store();
        if shipment.store != store.env.store {
            return Err(self.unfit("it is that of another store".to_owned()));
        }
        let of = match store.instance {
            Instance::CopyOf(of) => of,
            Instance::Own(of) if is_marked(&*store.env.fs, &self.directory)? => of,
            Instance::Own(_) | Instance::Unknown => {
                let problem = "it was opened for writing since it was restored; restore it anew";
                return Err(self.unfit(problem.to_owned()));
            }
        };
        if shipment.position.instance != of {
            let problem = "it is that of another instance of the store, which goes its own way";
            return Err(self.unfit(problem.to_owned()));
        }
        let begins = shipment.position;
        match self.last {
            Some(last) if last == begins => Ok(()),
            Some(last) if last.chain != begins.chain => {
                let problem = "one shipment is of another chain than the one before it";
                Err(self.unfit(problem.to_owned()))
            }
            Some(last) => Err(self.gap(format!(
                "shipment {} was expected, and {} came",
                last.shipment, begins.shipment
            ))),
            None if begins.sequence < self.applied => Ok(()),
            // The chain begins here: nothing of it came before.
            None if begins.sequence == self.applied && begins.shipment == 0 => Ok(()),
            None => Err(self.gap(format!(
                "the first shipment begins behind {}: begin with the one that ends before the base",
                begins.sequence
            ))),
        }
    }

    /// Takes up keys that came with a shipment, if the secret of the copy opens them: it may have been changed before or after. What is
    /// sealed under keys that are missing then is refused when it comes.
    fn add_ring(&mut self, keyring: &[u8]) -> Result<()> {
        let memory = MemoryFileSystem::new();
        for name in [KEYRING_NAME, KEYRING_COPY_NAME] {
            let path = Path::new("/").join(name);
            let written = memory.write_file(&path, keyring);
            written.map_err(|e| Error::io("take up", &path, e))?;
        }
        let fs: Arc<dyn FileSystem> = Arc::new(memory);
        let place = StorePlace {
            fs: &fs,
            random: &self.options.random,
            directory: Path::new("/"),
            store: self.base.store().env.store,
            writable: false,
        };
        match self.options.protection.open(&place) {
            Ok(ring) => self.rings.push(ring),
            Err(Error::WrongKey { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The keys there are, those first that are likely to fit.
    fn transforms(&self) -> impl Iterator<Item = &Arc<dyn Transform>> {
        let own = std::iter::once(&self.base.store().env.transform);
        self.rings.iter().rev().chain(own)
    }

    fn notes(&self, shipment: &Shipment) -> Result<Vec<Change>> {
        let number = shipment.position.shipment;
        let path = PathBuf::from(format!("the notes of shipment {number}"));
        for transform in self.transforms() {
            let opened = notes::open(&path, shipment, &**transform)?;
            if let Some(notes) = opened {
                return Ok(notes);
            }
        }
        if self.rings.is_empty() && self.base.store().env.transform.keys().is_none() {
            return Err(Error::corruption(
                &path,
                HEADER_BYTES as u64,
                "they do not open",
            ));
        }
        Err(self.other_keys(number))
    }

    /// Replays a piece. Gives whether there is more to replay.
    fn piece(&mut self, shipment: &Shipment, piece: &LogPiece) -> Result<bool> {
        let number = shipment.position.shipment;
        let path = PathBuf::from(format!("shipment {number}, segment {}", piece.segment));
        if checksum(&piece.header, &piece.bytes) != piece.checksum {
            let problem = "the bytes are not those that were shipped; get them once more";
            return Err(Error::corruption(&path, piece.offset, problem));
        }
        let header = FileHeader::decode(&path, &piece.header, FileKind::Log, LOG_VERSION)?;
        let identity = header.identity;
        if identity.store != shipment.store || identity.number != piece.segment {
            return Err(Error::corruption(
                &path,
                16,
                "the header is that of another segment",
            ));
        }
        let mut at = 0;
        while at < piece.bytes.len() {
            let offset = piece.offset.saturating_add(at as u64);
            let damaged = |problem: &str| Error::corruption(&path, offset, problem);
            let seed = &piece.header[HEADER_BYTES - 4..HEADER_BYTES];
            let seed = u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]);
            let framed = frame::decode(seed, &piece.bytes[at..]);
            let (ordinal, len) = framed.ok_or_else(|| damaged("no record stands here"))?;
            let begin = at + FRAME_BYTES;
            let sealed = piece.bytes.get(begin..begin.saturating_add(len));
            let sealed = sealed.ok_or_else(|| damaged("the record is not whole"))?;
            let payload = self
                .opened(&header, &piece.header, ordinal, sealed)?
                .ok_or_else(|| self.other_keys(number))?;
            let record = record::decode(&payload);
            let record = record.ok_or_else(|| damaged("a record that opens makes no sense"))?;
            if let Body::Batch {
                first_sequence,
                count,
                operations,
            } = record.body
            {
                let batch = WriteBatch::from_encoded(operations);
                let batch = batch.filter(|batch| batch.len() == count as usize && count > 0);
                let batch = batch.ok_or_else(|| damaged("a batch that makes no sense"))?;
                if !self.batch(first_sequence, &batch)? {
                    return Ok(false);
                }
            }
            at = begin + len;
        }
        Ok(true)
    }

    /// Opens a record; `None` where none of the keys does.
    fn opened(
        &mut self,
        header: &FileHeader,
        bytes: &[u8],
        ordinal: u32,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let open = |blocks: &dyn BlockTransform| {
            let mut sealed = sealed.to_vec();
            let payload = blocks.open(&record_identity(ordinal), &mut sealed);
            payload.map(<[u8]>::to_vec).ok()
        };
        if let Some((of, blocks, next)) = &mut self.segment
            && *of == bytes
        {
            if *next != ordinal {
                let expected = *next;
                return Err(self.gap(format!(
                    "record {expected} of its segment was expected, and {ordinal} came"
                )));
            }
            let payload = open(&**blocks);
            *next = next.saturating_add(1);
            return Ok(payload);
        }
        let path = Path::new("a shipped segment");
        let found = self.transforms().find_map(|transform| {
            let blocks = header.open(path, &**transform).ok()?;
            open(&*blocks).map(|payload| (blocks, payload))
        });
        Ok(found.map(|(blocks, payload)| {
            self.segment = Some((bytes.to_vec(), blocks, ordinal.saturating_add(1)));
            payload
        }))
    }

    /// Writes a batch again, unless the copy holds it or it is beyond the point. Gives whether there is more to replay.
    fn batch(&mut self, first: SequenceNumber, batch: &WriteBatch) -> Result<bool> {
        let last = first.saturating_add(batch.len() as u64 - 1);
        if last <= self.applied {
            return Ok(true);
        }
        let follows = first == self.applied + 1;
        match self.until {
            // What is missing before this batch lies beyond as well, unless the point is in it.
            Until::Sequence(sequence)
                if last > sequence && (follows || sequence <= self.applied) =>
            {
                return Ok(false);
            }
            _ => {}
        }
        if !follows {
            return Err(self.gap(format!(
                "the next batch in the log begins at {first}: a piece is missing, or what was ingested, which is not in the log, \
                 and needs a newer base"
            )));
        }
        self.apply_changes(first)?;
        let written = self.target()?.store().write_again(batch)?;
        if written != last {
            return Err(self.unfit(format!("write {last} came out as {written}")));
        }
        self.applied = last;
        self.outcome.batches += 1;
        Ok(true)
    }

    /// Applies what became of keyspaces before this write.
    fn apply_changes(&mut self, before: SequenceNumber) -> Result<()> {
        while self.changes.front().is_some_and(|(at, _)| *at < before)
            && let Some((_, edit)) = self.changes.pop_front()
        {
            self.change(edit)?;
        }
        Ok(())
    }

    /// Applies what became of a keyspace, unless the copy knows it already.
    fn change(&mut self, edit: Edit) -> Result<()> {
        let target = self.target()?.clone();
        let known = target.keyspaces()?;
        let find = |id: u32| known.iter().find(|info| info.id.0 == id);
        match edit {
            Edit::CreateKeyspace { id, name, options } => {
                let next = target.store().manifest()?.state().next_keyspace;
                if id < next {
                    return Ok(());
                }
                let created = target.create_keyspace(&name, &options)?;
                if created.0 != id {
                    return Err(self.unfit(format!("keyspace {id} came out as {}", created.0)));
                }
            }
            Edit::AlterKeyspace { id, options } => {
                if let Some(info) = find(id) {
                    target.create_keyspace(&info.name, &options)?;
                }
            }
            Edit::DropKeyspace { id } => {
                if let Some(info) = find(id) {
                    target.drop_keyspace(info.id)?;
                }
            }
            _ => return Err(self.unfit("its notes say what no notes say".to_owned())),
        }
        Ok(())
    }

    /// The copy, open for writing.
    fn target(&mut self) -> Result<&Lsm> {
        let target = match self.target.take() {
            Some(target) => target,
            None => {
                let mut options = self.options.clone();
                options.replaying = true;
                Lsm::open(&self.directory, options)?
            }
        };
        Ok(self.target.insert(target))
    }

    fn finish(mut self) -> Result<Replayed> {
        if self.last.is_none() {
            return Err(Error::InvalidSetting {
                setting: "shipments",
                problem: "there are none".to_owned(),
            });
        }
        // The first shipment of a group tells of changes that may lie behind what came of the group. Nothing is dropped before its time.
        let behind = self.applied.saturating_add(1);
        if !matches!(self.until, Until::Sequence(_)) {
            self.changes
                .retain(|(at, edit)| *at < behind || matches!(edit, Edit::CreateKeyspace { .. }));
        }
        match self.until {
            Until::Time(_) => {
                let reached = self.last.map_or(0, |last| last.sequence);
                if reached < self.outcome.sequence && self.outcome.batches == 0 {
                    return Err(self.before_base());
                }
                self.apply_changes(SequenceNumber::MAX)?;
            }
            Until::End => self.apply_changes(SequenceNumber::MAX)?,
            Until::Sequence(sequence) => self.apply_changes(sequence.min(behind))?,
        }
        if let Some(target) = self.target.take() {
            target.sync()?;
            target.close()?;
        }
        Ok(Replayed {
            sequence: self.applied,
            ..self.outcome
        })
    }

    fn gap(&self, problem: String) -> Error {
        Error::LogGap {
            behind: self.applied,
            problem,
        }
    }

    fn unfit(&self, problem: String) -> Error {
        Error::UnfitLog {
            path: self.directory.clone(),
            problem,
        }
    }

    fn other_keys(&self, shipment: u64) -> Error {
        self.unfit(format!(
            "shipment {shipment} is sealed under keys that neither the store has nor an earlier shipment: begin with the one that \
             brought them, or capture a newer base"
        ))
    }

    fn before_base(&self) -> Error {
        let base = self.applied;
        Error::InvalidSetting {
            setting: "until",
            problem: format!(
                "the store was restored to write {base}, and the point lies before it; restore an older base"
            ),
        }
    }
}
