//! What fuzz targets reach of the decoders. Behind the feature `fuzzing`, for this repository alone.
//!
//! The decoders are private, and stand behind checksums that no fuzzer gets past by guessing. So here each
//! is opened by a thin wrapper, and files are made ready for reading in two ways ([`Seals`]): as they are, or
//! with every checksum mended, so that what stands behind the checksums is reached.
//!
//! Making ready and reading are apart, so that a harness can measure the reading alone. The wrappers check
//! nothing: what must hold stands in `fuzz/checks`.

use std::path::Path;
use std::sync::Arc;

use vault_core::Result;
use vault_core::Timestamp;
use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::transform::{
    BlockIdentity, BlockTransform, ChecksumTransform, FileHeader, FileIdentity, HEADER_BYTES,
    PARAMETER_BYTES, Protection, SALT_BYTES, Salt, StorePlace, Transform, Unopened,
};
use vault_core::vfs::{FileSystem, MemoryFileSystem};

use crate::frame::{self, FRAME_BYTES, Next, Records};
use crate::layout::Env;

pub use crate::blob::fuzzing::{BlobFile, BlobWalk, blob_meta, blob_pointer, blob_uses};
pub use crate::log::fuzzing::{LogFiles, LogRead, LogRecord, log_record};
pub use crate::manifest::fuzzing::{
    ManifestEdit, ManifestFile, ManifestRead, PointerFile, PointerRead, decode_options,
    encode_options, manifest_edit,
};
pub use crate::shipping::fuzzing::mend_shipment;
pub use crate::table::fuzzing::{
    DataBlock, FilterBlock, FooterBlock, IndexBlock, Lz4Block, PropertiesBlock, TableFile,
    TableParts, TableReader, TombstoneBlock, TopIndexBlock,
};

/// How a file is made ready for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seals {
    /// As it is: nearly always, a checksum stops the reader early.
    Kept,
    /// Headers and frames are given the checksums that they should have, and the seals of blocks are
    /// not looked at: whatever stands behind them is read.
    Mended,
}

impl Seals {
    /// The transform that reads such files.
    #[must_use]
    pub fn transform(self) -> Arc<dyn Transform> {
        match self {
            Self::Kept => Arc::new(ChecksumTransform),
            Self::Mended => Arc::new(Blind),
        }
    }

    /// The file with the seals that this asks for. With `chained`, its records begin with the checksum of
    /// the one before, as those of a manifest do.
    #[must_use]
    pub fn prepare(self, bytes: &[u8], records: Option<Chained>) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if self == Self::Mended {
            mend_header(&mut bytes);
            if let Some(chained) = records {
                mend_records(&mut bytes, chained);
            }
        }
        bytes
    }
}

/// Protects a store with a transform that was chosen beforehand.
#[derive(Debug)]
pub struct Fixed(pub Arc<dyn Transform>);

impl Protection for Fixed {
    fn create(&self, _: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        Ok(Arc::clone(&self.0))
    }

    fn open(&self, _: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        Ok(Arc::clone(&self.0))
    }
}

/// Whether the records of a file begin with the checksum of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chained {
    /// Those of a manifest do.
    Yes,
    /// Those of a log do not.
    No,
}

/// Takes the place of the checksums: as long as them, and satisfied with anything.
#[derive(Debug)]
struct Blind;

impl Transform for Blind {
    fn id(&self) -> u16 {
        ChecksumTransform::ID
    }

    fn create(&self, _: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        Ok(Arc::new(Self))
    }

    fn open(&self, _: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        Ok(Arc::new(Self))
    }
}

/// Bytes that sealing adds to a block, mended or kept.
pub const SEAL_BYTES: usize = 4;

impl BlockTransform for Blind {
    fn overhead(&self) -> usize {
        SEAL_BYTES
    }

    fn seal(&self, _: &BlockIdentity, buffer: &mut Vec<u8>, _: usize) -> Result<()> {
        buffer.extend_from_slice(&[0; SEAL_BYTES]);
        Ok(())
    }

    fn open<'a>(&self, _: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        let (content, _) = sealed
            .split_last_chunk::<SEAL_BYTES>()
            .ok_or(Unopened::Damaged)?;
        Ok(content)
    }
}

/// Gives a file header the checksum that it should have.
pub fn mend_header(bytes: &mut [u8]) {
    if let Some(header) = bytes.first_chunk_mut::<HEADER_BYTES>() {
        let (fields, checksum) = header.split_at_mut(HEADER_BYTES - 4);
        checksum.copy_from_slice(&crc32fast::hash(fields).to_le_bytes());
    }
}

/// Gives each frame that the lengths lead to the checksum that it should have.
fn mend_records(bytes: &mut [u8], chained: Chained) {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return;
    };
    let header_checksum = word(header, HEADER_BYTES - 4);
    let mut chain = header_checksum;
    let mut at = HEADER_BYTES;
    while let Some(found) = bytes.get(at..at + FRAME_BYTES) {
        let (len, ordinal) = (word(found, 0), word(found, 4));
        if len == 0 {
            return;
        }
        let mended = frame::encode(header_checksum, ordinal, len);
        bytes[at..at + FRAME_BYTES].copy_from_slice(&mended);
        let start = at + FRAME_BYTES;
        let Some(sealed) = bytes.get_mut(start..start.saturating_add(len as usize)) else {
            return;
        };
        if chained == Chained::Yes
            && let Some(stored) = sealed.first_chunk_mut::<4>()
        {
            *stored = chain.to_le_bytes();
        }
        chain = crc32fast::hash(sealed);
        at = start + len as usize;
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The store id and the file number that a header states; zeros where the file is too short to have one.
pub(crate) fn stated_identity(bytes: &[u8]) -> ([u8; 16], u64) {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return ([0; 16], 0);
    };
    let mut store = [0; 16];
    store.copy_from_slice(&header[16..32]);
    let number = u64::from(word(header, 32)) | u64::from(word(header, 36)) << 32;
    (store, number)
}

/// The salt that a file's header states.
pub(crate) fn stated_salt(bytes: &[u8]) -> Salt {
    let salt = bytes.get(40..64).and_then(|salt| salt.try_into().ok());
    salt.unwrap_or_default()
}

/// A directory in memory, and what the engine needs to read it.
pub(crate) fn memory_env(store: [u8; 16], seals: Seals) -> (Env, MemoryFileSystem) {
    let fs = MemoryFileSystem::new();
    let directory = Path::new("/store");
    fs.create_dir_all(directory)
        .expect("an empty file system in memory takes a directory");
    let env = Env {
        directory: directory.to_path_buf(),
        store,
        fs: Arc::new(fs.clone()),
        clock: Arc::new(ManualClock::new(Timestamp(1))),
        random: Arc::new(SeededRandom::new(1)),
        transform: seals.transform(),
        listener: None,
        listener_panics: Arc::default(),
    };
    (env, fs)
}

/// Puts a file into a directory that is there.
pub(crate) fn put_file(fs: &MemoryFileSystem, path: impl AsRef<Path>, bytes: &[u8]) {
    fs.write_file(path, bytes)
        .expect("nothing keeps a file system in memory from taking a file");
}

/// What a walk over the frames of a file found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Walked {
    /// Whole records.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Where the walk ended, in bytes from the start of the file.
    pub end: usize,
    /// Whether it ended at broken bytes rather than at the file's end.
    pub broken: bool,
    /// Where the first whole record behind broken bytes is.
    pub behind: Option<usize>,
    /// How many whole records there are behind them.
    pub records_behind: u64,
}

/// The header of a file of which no more than its identity matters.
pub(crate) const fn blank_header(identity: FileIdentity) -> FileHeader {
    FileHeader {
        identity,
        version: 1,
        transform: ChecksumTransform::ID,
        salt: [0; SALT_BYTES],
        parameters: [0; PARAMETER_BYTES],
    }
}

/// Walks over the frames of a file that was made ready, and looks behind where they break off.
pub fn walk(bytes: &mut [u8], seals: Seals) -> Walked {
    let header_checksum = bytes
        .first_chunk::<HEADER_BYTES>()
        .map_or(0, |header| word(header, HEADER_BYTES - 4));
    let (store, number) = stated_identity(bytes);
    let identity = FileIdentity {
        store,
        kind: vault_core::transform::FileKind::Log,
        number,
        domain: 0,
    };
    let blocks = seals
        .transform()
        .open(&blank_header(identity))
        .expect("neither transform ever refuses a file");
    let mut records = Records::new(bytes, header_checksum, &*blocks);
    let mut walked = Walked::default();
    loop {
        match records.next() {
            Next::Record { payload, .. } => {
                walked.records += 1;
                walked.payload_bytes += payload.len() as u64;
            }
            Next::End => break,
            Next::Broken => {
                walked.broken = true;
                break;
            }
        }
    }
    walked.end = records.offset();
    if walked.broken {
        walked.behind = records.find_behind(|_| true);
        let mut behind = 0;
        records.find_behind(|_| {
            behind += 1;
            false
        });
        walked.records_behind = behind;
    }
    walked
}
