//! Reading an archive that anybody may have made.
//!
//! # What is held against what, before a byte of content is used
//! - The archive ends in its end record, without anything behind or before: an archive has one reading, whoever reads it.
//!   It says how many entries there are, and that is held against the manifest before the directory is read into memory.
//! - No name is there twice, no entries overlap, and the header before each entry agrees with the directory.
//! - The entries are those that the manifest says lie here, and the manifest itself, which is the last: no more, no fewer.
//!   Each is a plain file (no link, no device), not encrypted, of the length that the manifest says; files are stored,
//!   documents stored or deflated.
//! - The manifest inside is the one outside, byte by byte.
//!
//! Content is then read up to the length that was said and one byte further, so that a small entry never becomes a large
//! one, and its hash is held against the manifest's.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vault_core::Error as CoreError;
use zip::{CompressionMethod, ZipArchive};

use super::error::{Error, Result};
use super::manifest::{Entry, Form, Manifest};
use super::path::PATH_BYTES_MAX;
use crate::destination::{Content, MANIFEST_FILE};

/// What is read ahead for small reads, in bytes.
const WINDOW_BYTES: usize = 64 * 1024;
/// Length of the record that ends an archive.
const END_BYTES: u64 = 22;
/// Length of the pointer to the record of Zip64, which stands before the last.
const LOCATOR_BYTES: u64 = 20;
/// Length of the record of Zip64.
const END64_BYTES: u64 = 56;
/// Most that an entry takes in the directory: its header, its name, and what zip writers add.
const DIRECTORY_ENTRY_BYTES_MAX: u64 = 46 + PATH_BYTES_MAX as u64 + 256;

/// An archive that was held against its manifest.
pub(crate) struct ArchiveReader {
    zip: ZipArchive<Window>,
    failure: Failure,
    location: String,
}

/// The first error of the place that an archive is read from: what zip makes of it tells less.
type Failure = Arc<Mutex<Option<io::Error>>>;

impl ArchiveReader {
    /// Opens the archive of the snapshot that `manifest` describes, of which `json` is the copy outside.
    pub(crate) fn open(
        content: Arc<dyn Content>,
        location: String,
        manifest: &Manifest,
        json: &[u8],
    ) -> Result<Self> {
        let failure = Failure::default();
        let io = |error| CoreError::io("read", Path::new(&location), error);
        let bytes = content.bytes().map_err(io)?;
        let mut window = Window {
            content,
            bytes,
            position: 0,
            ahead: Vec::new(),
            ahead_at: 0,
            failure: Arc::clone(&failure),
        };
        let entries = manifest.own_entries().count() as u64 + 1;
        let ended = check_end(&mut window, entries);
        if let Some(error) = take(&failure) {
            return Err(io(error).into());
        }
        ended.map_err(|problem| Error::damaged(&location, problem))?;
        let zip = ZipArchive::new(window)
            .map_err(|error| failed(&failure, &location, &error.to_string()))?;
        let mut archive = Self {
            zip,
            failure,
            location,
        };
        archive.check_directory(manifest)?;
        archive.check_manifest(json)?;
        Ok(archive)
    }

    fn check_directory(&mut self, manifest: &Manifest) -> Result<()> {
        let consistent = self.zip.validate_header_consistency();
        consistent.map_err(|error| self.failed(&error.to_string()))?;
        if self.zip.offset() != 0 || !self.zip.comment().is_empty() {
            return Err(self.damaged("there is something before or behind the archive"));
        }
        let wanted = manifest.own_entries().count() + 1;
        if self.zip.len() != wanted {
            let found = self.zip.len();
            return Err(self.damaged(format!("{wanted} entries were expected, {found} are there")));
        }
        for entry in manifest.own_entries() {
            let header = self.header(&entry.path)?;
            let stored = match manifest.form {
                Form::Physical => header.compression == CompressionMethod::Stored,
                Form::Logical => header.is_simple(),
            };
            self.check_header(&entry.path, &header, stored)?;
            if header.bytes != entry.bytes {
                return Err(self.damaged(format!(
                    "entry {:?} has {} bytes, the manifest says {}",
                    entry.path, header.bytes, entry.bytes
                )));
            }
        }
        let last = self.header(MANIFEST_FILE)?;
        self.check_header(MANIFEST_FILE, &last, last.is_simple())?;
        if last.index + 1 != wanted {
            return Err(self.damaged("the manifest is not the last entry"));
        }
        Ok(())
    }

    fn check_header(&self, path: &str, header: &Header, stored: bool) -> Result<()> {
        if !header.plain_file {
            return Err(self.damaged(format!("entry {path:?} is a link, a directory or a device")));
        }
        if header.encrypted {
            return Err(self.damaged(format!("entry {path:?} is encrypted by zip")));
        }
        if !stored {
            let method = header.compression;
            return Err(self.damaged(format!("entry {path:?} is compressed as {method}")));
        }
        Ok(())
    }

    fn check_manifest(&mut self, json: &[u8]) -> Result<()> {
        let header = self.header(MANIFEST_FILE)?;
        let mut inside = Vec::with_capacity(json.len() + 1);
        if header.bytes == json.len() as u64 {
            let limit = json.len() as u64 + 1;
            let entry = self.zip.by_index(header.index);
            let read = entry
                .map_err(io::Error::from)
                .and_then(|entry| entry.take(limit).read_to_end(&mut inside));
            read.map_err(|error| self.failed(&error.to_string()))?;
        }
        if inside != json {
            return Err(self.damaged("the manifest inside differs from the one beside the archive"));
        }
        Ok(())
    }

    fn header(&self, path: &str) -> Result<Header> {
        let index = self.zip.index_for_name_raw(path.as_bytes());
        let index = index.ok_or_else(|| self.damaged(format!("entry {path:?} is missing")))?;
        let found = self.zip.by_index_data(index);
        let found = found.map_err(|error| self.failed(&error.to_string()))?;
        // The upper half are the permissions of Unix: what kind of file it is, where it says so.
        const KIND: u32 = 0o170_000;
        const REGULAR: u32 = 0o100_000;
        let kind = found.external_attributes() >> 16 & KIND;
        Ok(Header {
            index,
            bytes: found.size(),
            compression: found.compression(),
            encrypted: found.encrypted(),
            plain_file: found.is_file() && (kind == 0 || kind == REGULAR),
        })
    }

    /// Where the bytes of an entry lie that is stored as it is.
    pub(crate) fn stored_at(&mut self, entry: &Entry) -> Result<u64> {
        let header = self.header(&entry.path)?;
        let place = format!("{}: {}", self.location, entry.path);
        if header.compression != CompressionMethod::Stored {
            return Err(Error::damaged(
                place,
                "it is compressed; files are stored as they are",
            ));
        }
        let found = self.zip.by_index(header.index);
        let found = found.map_err(|error| failed(&self.failure, &place, &error.to_string()))?;
        let start = found.data_start();
        start.ok_or_else(|| Error::damaged(place, "it is not clear where it begins"))
    }

    /// Reads an entry from its beginning, `chunk` by `chunk`.
    pub(crate) fn entry<'a>(&'a mut self, entry: &Entry) -> Result<EntryReader<'a>> {
        let header = self.header(&entry.path)?;
        let place = format!("{}: {}", self.location, entry.path);
        let reader = self.zip.by_index(header.index);
        let reader = reader.map_err(|error| failed(&self.failure, &place, &error.to_string()))?;
        Ok(EntryReader {
            reader: Box::new(reader),
            left: entry.bytes,
            failure: &self.failure,
            place,
        })
    }

    fn damaged(&self, problem: impl std::fmt::Display) -> Error {
        Error::damaged(&self.location, problem)
    }

    fn failed(&self, problem: &str) -> Error {
        failed(&self.failure, &self.location, problem)
    }
}

/// What the directory says of an entry.
struct Header {
    index: usize,
    bytes: u64,
    compression: CompressionMethod,
    encrypted: bool,
    plain_file: bool,
}

impl Header {
    fn is_simple(&self) -> bool {
        let method = self.compression;
        method == CompressionMethod::Stored || method == CompressionMethod::Deflated
    }
}

/// The content of an entry.
pub(crate) struct EntryReader<'a> {
    reader: Box<dyn Read + 'a>,
    left: u64,
    failure: &'a Failure,
    place: String,
}

impl EntryReader<'_> {
    /// Fills the buffer, or as much of it as the entry still has; 0 at its end, of which it makes sure.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut filled = 0;
        while filled < wanted {
            let read = self.reader.read(&mut buffer[filled..wanted]);
            match read.map_err(|error| failed(self.failure, &self.place, &error.to_string()))? {
                0 => return Err(Error::damaged(&self.place, "it ends too early")),
                read => filled += read,
            }
        }
        self.left -= filled as u64;
        if self.left == 0 {
            // The end is asked for, so that zip looks at its own checksum, too.
            let more = self.reader.read(&mut [0]);
            let more = more.map_err(|error| failed(self.failure, &self.place, &error.to_string()));
            if more? > 0 {
                return Err(Error::damaged(
                    &self.place,
                    "it goes on behind the length that the manifest says",
                ));
            }
        }
        Ok(filled)
    }
}

/// What really went wrong: the place's own error, or else what zip says of the bytes.
fn failed(failure: &Failure, location: &str, problem: &str) -> Error {
    match take(failure) {
        Some(error) => CoreError::io("read", Path::new(location), error).into(),
        None => Error::damaged(location, problem),
    }
}

fn take(failure: &Failure) -> Option<io::Error> {
    failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
}

/// Holds the record that ends the archive, and that of Zip64, against the number of entries that there must be: reading
/// the directory takes memory by what they say.
fn check_end(window: &mut Window, entries: u64) -> Result<(), String> {
    let short = |_| "it is cut short, or no zip archive".to_owned();
    let end_at = window.bytes.checked_sub(END_BYTES);
    let end_at = end_at.ok_or("it is too short for a zip archive")?;
    let mut end = [0; END_BYTES as usize];
    window.read_exact_at(&mut end, end_at).map_err(short)?;
    if end[..4] != *b"PK\x05\x06" || end[20..] != [0, 0] {
        return Err("it does not end as a zip archive: it is cut short, or something else".into());
    }
    let mut found = u64::from(u16::from_le_bytes([end[10], end[11]]));
    let mut directory = u64::from(u32::from_le_bytes([end[12], end[13], end[14], end[15]]));
    let mut locator = [0; LOCATOR_BYTES as usize];
    let locator_at = end_at.saturating_sub(LOCATOR_BYTES);
    window
        .read_exact_at(&mut locator, locator_at)
        .map_err(short)?;
    if locator[..4] == *b"PK\x06\x07" {
        let at = |bytes: &[u8], at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut end64 = [0; END64_BYTES as usize];
        let end64_at = at(&locator, 8);
        if end64_at.checked_add(END64_BYTES) != Some(locator_at) {
            return Err("its Zip64 record is not where it belongs".into());
        }
        window.read_exact_at(&mut end64, end64_at).map_err(short)?;
        if end64[..4] != *b"PK\x06\x06" {
            return Err("its Zip64 record is missing".into());
        }
        (found, directory) = (at(&end64, 32), at(&end64, 40));
    }
    if found != entries {
        return Err(format!(
            "{entries} entries were expected, {found} are there"
        ));
    }
    if directory > entries * DIRECTORY_ENTRY_BYTES_MAX {
        return Err(format!(
            "its directory takes {directory} bytes for {entries} entries"
        ));
    }
    Ok(())
}

/// An archive as zip wants to read it. Large reads go through; for small ones it reads ahead.
struct Window {
    content: Arc<dyn Content>,
    bytes: u64,
    position: u64,
    ahead: Vec<u8>,
    ahead_at: u64,
    failure: Failure,
}

impl Window {
    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.position = offset;
        self.read_exact(buffer)
    }

    /// Reads what there must be.
    fn fetch(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let fetched = match self.content.read_at(buffer, offset) {
            Ok(read) if read == buffer.len() => return Ok(()),
            Ok(read) => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{} bytes wanted at byte {offset}, {read} were given",
                    buffer.len()
                ),
            ),
            Err(error) => error,
        };
        let answer = io::Error::new(fetched.kind(), "the archive cannot be read");
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(fetched);
        Err(answer)
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.saturating_sub(self.position);
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let ahead_end = self.ahead_at + self.ahead.len() as u64;
        if !(self.ahead_at..ahead_end).contains(&self.position) {
            if wanted >= WINDOW_BYTES {
                self.fetch(&mut buffer[..wanted], self.position)?;
                self.position += wanted as u64;
                return Ok(wanted);
            }
            let mut ahead = std::mem::take(&mut self.ahead);
            ahead.resize(
                usize::try_from(left).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES)),
                0,
            );
            self.fetch(&mut ahead, self.position)?;
            (self.ahead, self.ahead_at) = (ahead, self.position);
        }
        let at = usize::try_from(self.position - self.ahead_at).unwrap_or(usize::MAX);
        let ahead = &self.ahead[at..];
        let copied = wanted.min(ahead.len());
        buffer[..copied].copy_from_slice(&ahead[..copied]);
        self.position += copied as u64;
        Ok(copied)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
