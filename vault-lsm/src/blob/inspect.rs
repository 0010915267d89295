//! Reads blob files as far as they can be read, and says what of them is not as it should be.
//!
//! [`BlobFile`](super::BlobFile) refuses a file whose header or length is wrong, as a reader must. Here what can be read is:
//! each value for itself, by a pointer to it ([`BlobSources`]), and a file from its first record to its last
//! ([`inspect`]), garbage included.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::transform::{
    BlockTransform, FileHeader, FileIdentity, FileKind, HEADER_BYTES, Unopened,
};
use vault_core::vfs::{File, FileSystem, read_up_to};
use vault_core::{Error, Result, Slice};

use super::file::BlobSource;
use super::record::{RECORD_BYTES_MIN, Record};
use super::{BLOB_VERSION, BlobMeta, Pointer};
use crate::frame::{self, FRAME_BYTES, record_identity};
use crate::layout::header_checksum;
use crate::memory::Memory;
use crate::store::lock;
use crate::sync::Mutex;
use crate::table::TableEnv;

/// Which blob file is to be read, and what is known of it beforehand.
pub(crate) struct Request<'a> {
    pub(crate) path: &'a Path,
    pub(crate) number: u64,
    /// Its keyspace and what the manifest has of it, where there is a manifest.
    pub(crate) expected: Option<(u32, &'a BlobMeta)>,
}

/// What is wrong with a file, by what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Missing,
    /// The operating system could not read it.
    Unreadable,
    Length,
    Header,
    /// A record does not open, or makes no sense.
    Record,
}

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) fault: Fault,
    pub(crate) offset: u64,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// What a file holds, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    pub(crate) bytes: u64,
    pub(crate) values: u64,
    pub(crate) value_bytes: u64,
    pub(crate) problems: Vec<Problem>,
}

impl Inspection {
    fn note(&mut self, fault: Fault, offset: u64, expected: impl Into<String>, found: &str) {
        self.problems.push(Problem {
            fault,
            offset,
            expected: expected.into(),
            found: found.to_owned(),
        });
    }

    fn note_error(&mut self, fault: Fault, offset: u64, expected: &str, error: &Error) {
        let (fault, found) = match error {
            Error::Corruption { problem, .. } => (fault, problem.clone()),
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                (Fault::Missing, "no file".to_owned())
            }
            other => (Fault::Unreadable, other.to_string()),
        };
        self.note(fault, offset, expected, &found);
    }
}

/// Blob files that values are looked up in, by number: those of which at least the header is sound. They stay open, so that beside a
/// writer none of them goes; but a store may have more of them than a process may have files open: then only the last ones used are.
#[derive(Default)]
pub(crate) struct BlobSources {
    sound: BTreeMap<u64, Closed>,
    open: Mutex<Open>,
}

/// The files that are open. The last used stands in front.
#[derive(Default)]
struct Open {
    sources: VecDeque<(u64, Arc<BlobSource>)>,
    /// How many may be; `None`: nothing has set a limit yet.
    most: Option<usize>,
}

impl Open {
    fn add(&mut self, number: u64, source: Arc<BlobSource>) {
        self.sources.push_front((number, source));
        self.sources.truncate(self.most.unwrap_or(usize::MAX));
    }

    /// Does what opens a file; where there are too many, closes half of these, for good, and tries again.
    fn making_room<T>(&mut self, mut open: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match open() {
                Err(Error::TooManyOpenFiles { .. }) if self.sources.len() > 1 => {
                    let most = self.sources.len() / 2;
                    self.sources.truncate(most);
                    self.most = Some(most);
                }
                opened => return opened,
            }
        }
    }
}

/// What is kept of a file that is not open.
struct Closed {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    transform: Arc<dyn BlockTransform>,
    header_checksum: u32,
    memory: Arc<Memory>,
    bytes: u64,
}

impl Closed {
    /// Opens the file again, whose header was sound.
    fn open(&self) -> Result<BlobSource> {
        let file = self.fs.open(&self.path);
        Ok(self.with(file.map_err(|e| Error::io("open", &self.path, e))?))
    }

    fn with(&self, file: Arc<dyn File>) -> BlobSource {
        BlobSource {
            file,
            path: self.path.clone(),
            transform: Arc::clone(&self.transform),
            header_checksum: self.header_checksum,
            memory: Arc::clone(&self.memory),
            bytes: self.bytes,
        }
    }
}

impl BlobSources {
    /// The file with this number, open; `None` where there is no sound one.
    ///
    /// # Errors
    /// It could be opened before and cannot be now: nothing can be said of what is in it.
    fn source(&self, number: u64) -> Result<Option<Arc<BlobSource>>> {
        let Some(closed) = self.sound.get(&number) else {
            return Ok(None);
        };
        let mut open = lock(&self.open);
        let used = match open.sources.iter().position(|(at, _)| *at == number) {
            Some(0) => return Ok(open.sources.front().map(|(_, source)| Arc::clone(source))),
            Some(place) => open.sources.remove(place),
            None => None,
        };
        let source = match used {
            Some((_, source)) => source,
            None => Arc::new(open.making_room(|| closed.open())?),
        };
        open.add(number, Arc::clone(&source));
        Ok(Some(source))
    }

    /// The value of `key` that a pointer leads to; else what is there in its place.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::TooManyOpenFiles`]; [`Error::Io`] where the file could be opened before and cannot be now.
    pub(crate) fn value(&self, key: &[u8], pointer: &Pointer) -> Result<Result<Slice, String>> {
        let Some(source) = self.source(pointer.file)? else {
            return Ok(Err(
                "no blob file with this number that can be read".to_owned()
            ));
        };
        match source.value(key, pointer) {
            Ok(value) => Ok(Ok(value)),
            Err(Error::Locked) => Err(Error::Locked),
            Err(Error::Corruption {
                offset, problem, ..
            }) => Ok(Err(format!("at byte {offset}: {problem}"))),
            Err(other) => Ok(Err(other.to_string())),
        }
    }

    /// Opens a file for looking values up, and notes what is wrong with its header and its length.
    ///
    /// # Errors
    /// What makes it impossible to judge the file at all: [`Error::NewerFormat`], [`Error::TooManyOpenFiles`],
    /// [`Error::Locked`].
    pub(crate) fn open(&mut self, env: &TableEnv, request: &Request<'_>) -> Result<Inspection> {
        let mut inspection = Inspection::default();
        let mut open = lock(&self.open);
        let looked = open.making_room(|| look_at_header(env, request, &mut inspection))?;
        if let Some((closed, file)) = looked {
            let source = Arc::new(closed.with(file));
            open.add(request.number, source);
            self.sound.insert(request.number, closed);
        }
        Ok(inspection)
    }

    /// Reads a file that was [opened](Self::open) from its first record to its last.
    ///
    /// # Errors
    /// What `progress` says; [`Error::Io`] where the file could be opened before and cannot be now.
    pub(crate) fn walk(
        &self,
        request: &Request<'_>,
        inspection: &mut Inspection,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let Some(source) = self.source(request.number)? else {
            return Ok(());
        };
        walk(&source, inspection, progress)?;
        let read = (inspection.values, inspection.value_bytes);
        if let Some((_, meta)) = request.expected
            && inspection.problems.is_empty()
            && read != (meta.values, meta.value_bytes)
        {
            let expected = format!("{} values in {} bytes", meta.values, meta.value_bytes);
            let found = format!("{} values in {} bytes", read.0, read.1);
            inspection.note(Fault::Record, HEADER_BYTES as u64, expected, &found);
        }
        Ok(())
    }
}

/// Reads the header. `None` where nothing behind it can be opened.
fn look_at_header(
    env: &TableEnv,
    request: &Request<'_>,
    inspection: &mut Inspection,
) -> Result<Option<(Closed, Arc<dyn File>)>> {
    let path = request.path;
    let opened = env.fs.open(path).map_err(|e| Error::io("open", path, e));
    let read = opened.and_then(|file| {
        let mut bytes = [0; HEADER_BYTES];
        let read = read_up_to(&*file, &mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
        let len = file.len().map_err(|e| Error::io("measure", path, e))?;
        inspection.bytes = len;
        let header = FileHeader::decode(path, &bytes[..read], FileKind::Blob, BLOB_VERSION)?;
        Ok((file, len, bytes, header))
    });
    let (file, len, bytes, header) = match read {
        Ok(read) => read,
        Err(
            error @ (Error::NewerFormat { .. } | Error::TooManyOpenFiles { .. } | Error::Locked),
        ) => return Err(error),
        Err(error) => {
            inspection.note_error(Fault::Header, 0, "a blob file with a sound header", &error);
            return Ok(None);
        }
    };
    let identity = header.identity;
    let expected = FileIdentity {
        store: env.store,
        kind: FileKind::Blob,
        number: request.number,
        domain: request.expected.map_or(identity.domain, |(id, _)| id),
    };
    if identity != expected {
        let (expected, found) = (format!("header of {expected:?}"), format!("{identity:?}"));
        inspection.note(Fault::Header, 0, expected, &found);
        return Ok(None);
    }
    if let Some((_, meta)) = request.expected {
        if header.salt != meta.salt {
            let found = "that of another file with the same number";
            inspection.note(Fault::Header, 40, "the salt that the manifest has", found);
            return Ok(None);
        }
        if len != meta.bytes {
            let (expected, found) = (format!("{} bytes", meta.bytes), format!("{len} bytes"));
            inspection.note(Fault::Length, len.min(meta.bytes), expected, &found);
        }
    }
    let transform = match header.open(path, &*env.transform) {
        Ok(transform) => transform,
        Err(error @ (Error::Locked | Error::NewerFormat { .. })) => return Err(error),
        Err(error) => {
            let expected = "a blob file that the store's keys open";
            inspection.note(Fault::Header, 10, expected, &error.to_string());
            return Ok(None);
        }
    };
    let closed = Closed {
        fs: Arc::clone(&env.fs),
        path: path.to_path_buf(),
        transform,
        header_checksum: header_checksum(&bytes),
        memory: Arc::clone(&env.memory),
        bytes: len,
    };
    Ok(Some((closed, file)))
}

/// Reads all records. Behind one without a frame, where the next begins is not known, and that is the end of it: pointers
/// lead to what can be read there all the same.
fn walk(
    source: &BlobSource,
    inspection: &mut Inspection,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut offset = HEADER_BYTES as u64;
    let mut ordinal = 0_u32;
    let mut record = Vec::new();
    progress(offset.min(source.bytes))?;
    loop {
        let next = next_record(source, offset, &mut record);
        let (found, len) = match next {
            Ok(framed) => framed,
            Err(error) => {
                let expected = "the frame of a record";
                inspection.note_error(Fault::Record, offset, expected, &error);
                return progress(source.bytes.saturating_sub(offset));
            }
        };
        if found != ordinal {
            let expected = format!("record {ordinal}");
            let found = format!("record {found}");
            inspection.note(Fault::Record, offset, expected, &found);
        }
        let end = offset + len;
        let last = match judge(source, found, &mut record) {
            Ok(Judged::Value) => {
                inspection.values += 1;
                inspection.value_bytes += len;
                false
            }
            Ok(Judged::End(values, bytes)) => {
                let read = (inspection.values, inspection.value_bytes);
                if read != (values, bytes) || end != source.bytes {
                    let expected = format!("the end, behind {values} values in {bytes} bytes");
                    let (values, bytes) = read;
                    let behind = source.bytes - end;
                    let found = format!("{values} in {bytes}, and {behind} bytes behind it");
                    inspection.note(Fault::Record, offset, expected, &found);
                }
                true
            }
            Err(Unopened::Locked) => return Err(Error::Locked),
            Err(Unopened::Damaged) => {
                let found = "one that is not, or that belongs elsewhere";
                inspection.note(Fault::Record, offset, "a record as it was written", found);
                // It was there, so that those behind it keep their numbers.
                inspection.values += 1;
                inspection.value_bytes += len;
                false
            }
        };
        progress(len)?;
        if last {
            return progress(source.bytes - end);
        }
        (offset, ordinal) = (end, found.saturating_add(1));
    }
}

/// What a record turned out to be.
enum Judged {
    Value,
    /// The last: how many values stand before it, in how many bytes.
    End(u64, u64),
}

fn judge(source: &BlobSource, ordinal: u32, record: &mut [u8]) -> Result<Judged, Unopened> {
    let sealed = &mut record[FRAME_BYTES..];
    let payload = source.transform.open(&record_identity(ordinal), sealed)?;
    match Record::decode(payload) {
        Some(Record::Value(_)) => Ok(Judged::Value),
        Some(Record::End {
            values,
            value_bytes,
        }) => Ok(Judged::End(values, value_bytes)),
        None => Err(Unopened::Damaged),
    }
}

/// Reads the record at `offset`, whole. Gives its ordinal and its length.
fn next_record(source: &BlobSource, offset: u64, record: &mut Vec<u8>) -> Result<(u32, u64)> {
    let mut head = [0; FRAME_BYTES];
    source.read_at(&mut head, offset)?;
    let framed = frame::decode(source.header_checksum, &head);
    let broken = |problem: &str| Error::corruption(&source.path, offset, problem);
    let (ordinal, sealed) = framed.ok_or_else(|| broken("bytes that are none"))?;
    let len = FRAME_BYTES + sealed;
    let rest = source.bytes.saturating_sub(offset);
    if len < RECORD_BYTES_MIN || len as u64 > rest {
        return Err(broken(
            "one of a record that goes on behind the end of the file",
        ));
    }
    record.resize(len, 0);
    source.read_at(record, offset)?;
    Ok((ordinal, len as u64))
}
