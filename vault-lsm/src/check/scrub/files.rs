//! One file of an encrypted store, looked at without a key.

use std::path::Path;

use vault_core::transform::{FileHeader, FileKind, HEADER_BYTES, KEYRING_COPY_NAME, KEYRING_NAME};
use vault_core::vfs::{File, FileSystem, read_beginning, read_up_to, read_whole};
use vault_core::{Error, Result};

use super::Expected;
use super::frames::{self, Fault, is_sound};
use crate::blob::BLOB_VERSION;
use crate::check::report::{Finding, FindingKind, Severity};
use crate::check::stock::{Entry, KEYRING_LOST_ADVICE};
use crate::layout::{NameMeaning, meaning_of};
use crate::log::LOG_VERSION;
use crate::manifest::{MANIFEST_VERSION, POINTER_VERSION};
use crate::table::TABLE_VERSION;
use crate::table::trailer::{self, TrailerFault};

/// Where a header says how its file is sealed.
pub(in crate::check) const TRANSFORM_OFFSET: u64 = 10;
/// Where a header says of which keyspace its file is.
const DOMAIN_OFFSET: u64 = 12;
/// Where a header says whose its file is.
const STORE_OFFSET: u64 = 16;
/// Where a header says which number its file has.
const NUMBER_OFFSET: u64 = 32;
/// The newest version of the keyring that this build knows of.
const KEYRING_VERSION: u16 = 1;
/// No pointer and no keyring is longer.
const SMALL_FILE_BYTES_MAX: u64 = 32 << 20;

const RESTORE: &str =
    "restore the file from a copy, or run verify with the store's keys, which says what it costs";
const ASK_THE_KEYS: &str =
    "run verify with the store's keys: they tell whether it counts, which nobody can without";
const NOTHING: &str = "nothing: opening the store cuts it";
pub(super) const KEYRING_ADVICE: &str = "open the store for writing with its passphrase or key: the file is written anew from the other one";

/// What was seen of a file.
#[derive(Debug, Default)]
pub(super) struct Look {
    name: String,
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) pieces: u64,
    pub(super) findings: Vec<Finding>,
}

impl Look {
    /// Whether nothing is wrong or in doubt.
    pub(super) fn is_clean(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.severity == Severity::Note)
    }

    /// Whether something is in doubt that a writer at work would explain.
    pub(super) fn is_in_doubt(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| finding.severity == Severity::Unchecked)
    }

    /// Whether all that is wrong or in doubt was so before.
    pub(super) fn is_as_before(&self, before: &Self) -> bool {
        let wrong = |finding: &&Finding| finding.severity != Severity::Note;
        let mut wrong = self.findings.iter().filter(wrong);
        wrong.all(|finding| before.findings.contains(finding))
    }

    /// Takes what was not so before for the work of a writer.
    pub(super) fn beside_a_writer(mut self, before: &Self) -> Self {
        for finding in &mut self.findings {
            if finding.severity != Severity::Note && !before.findings.contains(finding) {
                finding.severity = Severity::Note;
                finding.kind = FindingKind::Orphan;
                finding.advice = "nothing: a writer is at work on it";
            }
        }
        self
    }

    fn note(
        &mut self,
        severity: Severity,
        kind: FindingKind,
        offset: Option<u64>,
        [expected, found]: [&str; 2],
        advice: &'static str,
    ) {
        self.findings.push(Finding {
            severity,
            file: self.name.clone(),
            offset,
            kind,
            expected: expected.to_owned(),
            found: found.to_owned(),
            advice,
        });
    }

    pub(super) fn damage(&mut self, kind: FindingKind, offset: u64, expected: &str, found: &str) {
        let advice = match kind {
            FindingKind::Keyring => KEYRING_ADVICE,
            _ => RESTORE,
        };
        self.note(
            Severity::Damage,
            kind,
            Some(offset),
            [expected, found],
            advice,
        );
    }

    pub(super) fn doubt(&mut self, kind: FindingKind, offset: u64, expected: &str, found: &str) {
        let words = [expected, found];
        self.note(Severity::Unchecked, kind, Some(offset), words, ASK_THE_KEYS);
    }
}

/// Finds out what most files say of their store: the pointer and the keyring count as any other. `None` where no header can
/// be read.
///
/// # Errors
/// [`Error::NewerFormat`].
pub(in crate::check) fn survey_headers(
    fs: &dyn FileSystem,
    directory: &Path,
    entries: &[Entry],
) -> Result<Option<Expected>> {
    let mut seen: Vec<(Expected, usize)> = Vec::new();
    for entry in entries {
        let Some(kind) = super::kind_of(entry) else {
            continue;
        };
        let path = directory.join(&entry.name);
        let mut bytes = [0; HEADER_BYTES];
        let read = fs
            .open(&path)
            .and_then(|file| read_up_to(&*file, &mut bytes, 0));
        let header =
            match FileHeader::decode(&path, &bytes[..read.unwrap_or(0)], kind, version_of(kind)) {
                Ok(header) => header,
                Err(error @ Error::NewerFormat { .. }) => return Err(error),
                Err(_) => continue,
            };
        let says = Expected {
            store: header.identity.store,
            transform: header.transform,
        };
        match seen.iter_mut().find(|(other, _)| *other == says) {
            Some((_, count)) => *count += 1,
            None => seen.push((says, 1)),
        }
    }
    let most = seen
        .into_iter()
        .max_by_key(|(says, count)| (*count, says.transform));
    Ok(most.map(|(says, _)| says))
}

const fn version_of(kind: FileKind) -> u16 {
    match kind {
        FileKind::Log => LOG_VERSION,
        FileKind::Manifest => MANIFEST_VERSION,
        FileKind::Table => TABLE_VERSION,
        FileKind::Keyring => KEYRING_VERSION,
        FileKind::Blob => BLOB_VERSION,
        FileKind::Pointer | FileKind::Archive => POINTER_VERSION,
    }
}

/// Looks at a file. `None` where it is gone.
///
/// # Errors
/// [`Error::NewerFormat`], and what `progress` says.
pub(super) fn look(
    fs: &dyn FileSystem,
    directory: &Path,
    name: &str,
    kind: FileKind,
    store: &Expected,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Option<Look>> {
    let mut look = Look {
        name: name.to_owned(),
        ..Look::default()
    };
    let path = directory.join(name);
    let mut start = [0; HEADER_BYTES];
    let opened = fs.open(&path).and_then(|file| {
        let len = file.len()?;
        let read = read_up_to(&*file, &mut start, 0)?;
        Ok((file, len, read))
    });
    let (file, len, read) = match opened {
        Ok(opened) => opened,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            look.unreadable(&e);
            return Ok(Some(look));
        }
    };
    look.bytes = len;
    let header_checksum = match FileHeader::decode(&path, &start[..read], kind, version_of(kind)) {
        Ok(header) => {
            look.header(&header, kind, store);
            u32::from_le_bytes([start[124], start[125], start[126], start[127]])
        }
        Err(error @ Error::NewerFormat { .. }) => return Err(error),
        Err(error) => {
            look.no_header(kind, &start[..read], &error);
            progress(len)?;
            return Ok(Some(look));
        }
    };
    match kind {
        FileKind::Table => look.table(&*file, progress)?,
        FileKind::Blob => look.blob(&*file, header_checksum, progress)?,
        FileKind::Log | FileKind::Manifest => {
            look.framed(&*file, kind, header_checksum);
            progress(len)?;
        }
        _ => {
            look.small(&*file, kind);
            progress(len)?;
        }
    }
    Ok(Some(look))
}

impl Look {
    pub(super) fn unreadable(&mut self, error: &std::io::Error) {
        let advice =
            "look at the system's log: where the disk is at fault, copy the store elsewhere first";
        let words = ["a file that can be read", &*error.to_string()];
        self.note(
            Severity::Unchecked,
            FindingKind::Unreadable,
            None,
            words,
            advice,
        );
    }

    /// Holds a header against the name of its file and against the other files.
    fn header(&mut self, header: &FileHeader, kind: FileKind, store: &Expected) {
        let what = if kind == FileKind::Keyring {
            FindingKind::Keyring
        } else {
            FindingKind::Header
        };
        let identity = header.identity;
        if identity.store != store.store {
            let (expected, found) = (
                "a file of the store that the others are of",
                "one of another store",
            );
            self.damage(what, STORE_OFFSET, expected, found);
        }
        if header.transform != store.transform {
            let expected = format!(
                "a file sealed as the others are, by transform {}",
                store.transform
            );
            let found = format!("transform {}", header.transform);
            self.damage(what, TRANSFORM_OFFSET, &expected, &found);
        }
        if let NameMeaning::Numbered(_, number) = meaning_of(Path::new(&self.name))
            && identity.number != number
        {
            let expected = format!("the file with the number {number}");
            let found = format!("the one with the number {}", identity.number);
            self.damage(what, NUMBER_OFFSET, &expected, &found);
        }
        let of_keyspace = matches!(kind, FileKind::Table | FileKind::Blob);
        if (identity.domain == 0) == of_keyspace {
            let expected = if of_keyspace {
                "a file of a keyspace"
            } else {
                "a file of the store's own"
            };
            let found = format!("one of keyspace {}", identity.domain);
            self.damage(what, DOMAIN_OFFSET, expected, &found);
        }
    }

    /// A file whose header cannot be used.
    fn no_header(&mut self, kind: FileKind, start: &[u8], error: &Error) {
        let replaced_whole = matches!(kind, FileKind::Pointer | FileKind::Keyring);
        let what = match kind {
            FileKind::Pointer => FindingKind::Pointer,
            FileKind::Keyring => FindingKind::Keyring,
            _ => FindingKind::Header,
        };
        let (expected, found) = (
            format!("a {} with a sound header", kind.name()),
            match error {
                Error::Corruption { problem, .. } => problem.clone(),
                other => other.to_string(),
            },
        );
        // Others have their names before their first byte is durable: a killed writer leaves them without.
        let begun = start.len() < HEADER_BYTES || start.iter().all(|&byte| byte == 0);
        if begun && !replaced_whole {
            let found = format!("{found}: it was never written, or was lost");
            self.doubt(what, 0, &expected, &found);
        } else {
            self.damage(what, 0, &expected, &found);
        }
    }

    fn framed(&mut self, file: &dyn File, kind: FileKind, header_checksum: u32) {
        let bytes = match read_whole(file) {
            Ok(bytes) => bytes,
            Err(e) => return self.unreadable(&e),
        };
        let what = if kind == FileKind::Log {
            FindingKind::Log
        } else {
            FindingKind::Manifest
        };
        let walked = frames::walk(&bytes, header_checksum);
        self.records = walked.records;
        for broken in walked.broken {
            let (offset, bytes) = (broken.offset as u64, broken.bytes);
            let expected = "a record that is what was written";
            match broken.fault {
                Fault::Damaged => {
                    let found = format!("{bytes} bytes that are not, and that were whole once");
                    self.damage(what, offset, expected, &found);
                }
                Fault::Misplaced => {
                    self.damage(
                        what,
                        offset,
                        "the next record",
                        "one that belongs elsewhere in the file",
                    );
                }
                // A segment of the log has its full length before its first record.
                Fault::CutShort if kind == FileKind::Log => {
                    self.damage(what, offset, expected, "the end of the file within it");
                }
                Fault::CutShort => {
                    let found =
                        "the end of the file within it: cut off while it was written, or since";
                    self.doubt(what, offset, expected, found);
                }
                Fault::Unclear => {
                    let found = format!(
                        "{bytes} bytes with zeros among them: a piece was lost with the power before it was synced, or was lost since"
                    );
                    self.doubt(what, offset, expected, &found);
                }
                Fault::Torn => {
                    let found = "one that was never whole, and zeros behind it";
                    let words = [expected, found];
                    let kind = FindingKind::TornTail;
                    self.note(Severity::Note, kind, Some(offset), words, NOTHING);
                }
            }
        }
    }

    /// The pointer or a keyring: replaced as a whole, so never torn.
    fn small(&mut self, file: &dyn File, kind: FileKind) {
        let bytes = match read_beginning(file, SMALL_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) => return self.unreadable(&e),
        };
        if kind == FileKind::Pointer {
            if !is_sound(&bytes[HEADER_BYTES.min(bytes.len())..]) {
                let at = HEADER_BYTES as u64;
                let (expected, found) = ("the pointer that was written", "bytes that are not");
                self.damage(FindingKind::Pointer, at, expected, found);
            }
        } else if !is_sound(&bytes) || bytes.len() <= HEADER_BYTES + 4 {
            let (expected, found) = ("the keyring that was written", "bytes that are not");
            self.damage(FindingKind::Keyring, HEADER_BYTES as u64, expected, found);
        }
    }

    fn table(
        &mut self,
        file: &dyn File,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let len = self.bytes;
        let mut pieces = 0_u64;
        let faults = trailer::check(file, len, &mut |bytes| {
            pieces += 1;
            progress(bytes)
        })?;
        if pieces == 0 {
            progress(len)?;
        }
        let bad = faults.len() as u64;
        // The trailer itself was told of too.
        self.pieces = pieces.saturating_sub(1).saturating_sub(bad);
        for fault in faults {
            match fault {
                TrailerFault::Absent => {
                    let found = format!(
                        "a file of {len} bytes that ends in something else: it was never finished, or its end was lost"
                    );
                    self.doubt(
                        FindingKind::Trailer,
                        len,
                        "checksums at the end of the table",
                        &found,
                    );
                }
                TrailerFault::Trailer { problem } => {
                    let expected = "checksums at the end of the table";
                    self.damage(FindingKind::Trailer, len, expected, &problem);
                }
                TrailerFault::Chunk {
                    offset,
                    bytes,
                    stored,
                    found,
                } => {
                    let expected = format!("{bytes} bytes with the checksum {stored:08x}");
                    self.damage(
                        FindingKind::Trailer,
                        offset,
                        &expected,
                        &format!("{found:08x}"),
                    );
                }
                TrailerFault::Unreadable { problem, .. } => {
                    self.unreadable(&std::io::Error::other(problem));
                }
            }
        }
        Ok(())
    }
}

/// Looks at both files of the keyring, as `verify` does beside what it reads with their keys.
///
/// # Errors
/// [`Error::NewerFormat`], [`Error::Io`].
pub(in crate::check) fn keyring_findings(
    fs: &dyn FileSystem,
    directory: &Path,
    store: [u8; 16],
    transform: u16,
) -> Result<Vec<Finding>> {
    let expected = Expected { store, transform };
    let mut findings = Vec::new();
    for name in [KEYRING_NAME, KEYRING_COPY_NAME] {
        match look(
            fs,
            directory,
            name,
            FileKind::Keyring,
            &expected,
            &mut |_| Ok(()),
        )? {
            Some(look) => findings.extend(look.findings),
            None => findings.push(no_keyring(name, KEYRING_ADVICE)),
        }
    }
    if findings.is_empty() {
        findings.extend(compare_keyrings(fs, directory)?);
    }
    Ok(findings)
}

pub(super) fn no_keyring(name: &str, advice: &'static str) -> Finding {
    Finding {
        severity: Severity::Damage,
        file: name.to_owned(),
        offset: None,
        kind: FindingKind::Keyring,
        expected: "the keys of the store, wrapped".to_owned(),
        found: "no file".to_owned(),
        advice,
    }
}

/// Advice for a keyring that is missing, by whether there is the other one.
pub(super) const fn keyring_advice(other_is_there: bool) -> &'static str {
    if other_is_there {
        KEYRING_ADVICE
    } else {
        KEYRING_LOST_ADVICE
    }
}

/// Holds the two files of the keyring against each other; each is whole.
pub(super) fn compare_keyrings(fs: &dyn FileSystem, directory: &Path) -> Result<Option<Finding>> {
    let read = |name: &str| -> Result<(u64, Vec<u8>)> {
        let path = directory.join(name);
        let bytes = fs
            .open(&path)
            .and_then(|file| read_beginning(&*file, SMALL_FILE_BYTES_MAX))
            .map_err(|e| Error::io("read", &path, e))?;
        let header = FileHeader::decode(&path, &bytes, FileKind::Keyring, KEYRING_VERSION)?;
        Ok((header.identity.number, bytes))
    };
    // The copy first: it is replaced last, so beside a live writer it is never the newer one.
    let (copy, copied) = read(KEYRING_COPY_NAME)?;
    let (version, bytes) = read(KEYRING_NAME)?;
    if copied == bytes {
        return Ok(None);
    }
    let finding = |severity, file: &str, found: String, advice| Finding {
        severity,
        file: file.to_owned(),
        offset: Some(NUMBER_OFFSET),
        kind: FindingKind::Keyring,
        expected: "the same in both files of the keyring".to_owned(),
        found,
        advice,
    };
    Ok(Some(if copy < version {
        let found = format!(
            "version {copy}, and {KEYRING_NAME} has {version}: its writer was killed between the two"
        );
        let advice = "nothing: the next change or opening writes it anew";
        finding(Severity::Note, KEYRING_COPY_NAME, found, advice)
    } else {
        let found = format!(
            "version {version}, and {KEYRING_COPY_NAME} has {copy} with other bytes: an older one was put back"
        );
        finding(Severity::Damage, KEYRING_NAME, found, KEYRING_ADVICE)
    }))
}
