//! Reads a manifest as far as it can be read, the records behind damage too.
//!
//! [`super::read`] refuses a damaged manifest, as an opening must. Whoever repairs or salvages a store wants to know
//! what stands before the damage, and which edits behind it can still be read.

use std::path::Path;

use vault_core::codec::Decoder;
use vault_core::transform::{FileHeader, FileKind, HEADER_BYTES, Salt, Transform};
use vault_core::vfs::{FileSystem, read_whole};
use vault_core::{Error, Result};

use super::{Edit, MANIFEST_VERSION, State, apply_record};
use crate::frame::{Next, Records};

/// A manifest, read as far as it goes.
pub(crate) struct Scanned {
    pub(crate) number: u64,
    /// The store it belongs to.
    pub(crate) store: [u8; 16],
    /// Its salt.
    pub(crate) salt: Salt,
    /// What the records up to `end` add up to.
    pub(crate) state: State,
    /// Records up to `end`.
    pub(crate) records: u64,
    /// Where the records end that are whole and follow one another.
    pub(crate) end: u64,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// What is wrong at `end`; `None` where the file just ends.
    pub(crate) problem: Option<String>,
    /// The edits of each record behind `end` that opens; none where they make no sense.
    pub(crate) behind: Vec<Vec<Edit>>,
}

/// Reads the manifest `number`.
///
/// # Errors
/// [`Error::Corruption`] where its header cannot be used, so that nothing can be read; [`Error::NewerFormat`],
/// [`Error::Encrypted`], [`Error::NotEncrypted`], [`Error::Io`].
pub(crate) fn scan(
    fs: &dyn FileSystem,
    transform: &dyn Transform,
    path: &Path,
    number: u64,
) -> Result<Scanned> {
    let file = fs.open(path).map_err(|e| Error::io("open", path, e))?;
    let mut bytes = read_whole(&*file).map_err(|e| Error::io("read", path, e))?;
    let read = bytes.len();
    let header = FileHeader::decode(path, &bytes, FileKind::Manifest, MANIFEST_VERSION)?;
    if header.identity.number != number || header.identity.domain != 0 {
        let problem = format!("the header is that of {:?}", header.identity);
        return Err(Error::corruption(path, 16, problem));
    }
    let blocks = header.open(path, transform)?;
    let at = HEADER_BYTES - 4;
    let checksum = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut records = Records::new(&mut bytes, checksum, &*blocks);
    let mut scanned = Scanned {
        number,
        store: header.identity.store,
        salt: header.salt,
        state: State::default(),
        records: 0,
        end: HEADER_BYTES as u64,
        bytes: read as u64,
        problem: None,
        behind: Vec::new(),
    };
    scanned.read(&mut records, checksum);
    // The manifest's own number, and that of the pointer to it, stand in no edit.
    scanned.state.next_file = scanned.state.next_file.max(number + 1);
    Ok(scanned)
}

impl Scanned {
    fn read(&mut self, records: &mut Records<'_>, mut chain: u32) {
        while self.problem.is_none() {
            match records.next() {
                Next::Record {
                    payload,
                    sealed_checksum,
                    ..
                } => {
                    let mut state = self.state.clone();
                    match apply_record(&mut state, payload, chain) {
                        Ok(()) => {
                            self.state = state;
                            self.records += 1;
                            chain = sealed_checksum;
                        }
                        Err(problem) => {
                            self.problem = Some(problem);
                            self.behind.push(edits(payload).unwrap_or_default());
                            break;
                        }
                    }
                    self.end = records.offset() as u64;
                }
                Next::End => return,
                Next::Broken => {
                    self.problem = Some("a record does not open".to_owned());
                    if !records.resume_behind() {
                        return;
                    }
                }
            }
        }
        loop {
            match records.next() {
                Next::Record { payload, .. } => {
                    self.behind.push(edits(payload).unwrap_or_default());
                }
                Next::End => return,
                Next::Broken => {
                    if !records.resume_behind() {
                        return;
                    }
                }
            }
        }
    }

    /// Applies what can be read behind the damage too. Gives what of it contradicts what came before: then a
    /// record between them mattered.
    pub(crate) fn apply_behind(&mut self) -> Vec<String> {
        let mut contradictions = Vec::new();
        for edits in &self.behind {
            if edits.is_empty() {
                contradictions.push("a record makes no sense".to_owned());
            }
            let outcomes = edits.iter().map(|edit| self.state.apply(edit));
            contradictions.extend(outcomes.filter_map(Result::err));
        }
        contradictions
    }

    /// Whether the edits end where they should: at the file's end, or at a record that was never whole,
    /// which nothing relied on. `durable` is how far the pointer says that they were durable.
    pub(crate) fn is_sound(&self, durable: u64) -> bool {
        self.end >= durable && (self.problem.is_none() || self.behind.is_empty())
    }
}

fn edits(payload: &[u8]) -> Option<Vec<Edit>> {
    let mut decoder = Decoder::new(payload);
    decoder.u32()?;
    let mut edits = Vec::new();
    while !decoder.is_empty() {
        edits.push(Edit::decode(&mut decoder)?);
    }
    Some(edits)
}
