//! What fuzz targets reach of blob files. See [`crate::fuzzing`].

use std::path::Path;
use std::sync::Arc;

use vault_core::Result;
use vault_core::codec::Decoder;
use vault_core::random::SeededRandom;
use vault_core::vfs::MemoryFileSystem;

use super::inspect::{BlobSources, Inspection, Request};
use super::{BlobMeta, BlobUse, Pointer, decode_uses, encode_uses};
use crate::fuzzing::{Chained, Seals, put_file, stated_identity};
use crate::memory::Memory;
use crate::table::TableEnv;

/// A blob file that was made ready, and pointers into it.
pub struct BlobFile {
    env: TableEnv,
    number: u64,
}

/// What a walk over a file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobWalk {
    /// Length of the file.
    pub bytes: u64,
    /// Records that were told from each other, those that do not open included.
    pub values: u64,
    /// Their bytes.
    pub value_bytes: u64,
    /// What is wrong, in words.
    pub problems: Vec<String>,
}

const PATH: &str = "file.blob";

impl BlobFile {
    /// Makes a file ready.
    #[must_use]
    pub fn new(bytes: &[u8], seals: Seals) -> Self {
        let bytes = seals.prepare(bytes, Some(Chained::No));
        let identity = stated_identity(&bytes);
        let memory = Memory::without_store(0);
        let fs = MemoryFileSystem::new();
        put_file(&fs, PATH, &bytes);
        let env = TableEnv {
            fs: Arc::new(fs),
            transform: seals.transform(),
            random: Arc::new(SeededRandom::new(1)),
            store: identity.0,
            cache: Arc::clone(memory.cache()),
            metadata_budget: Arc::clone(memory.tables()),
            memory,
        };
        Self {
            env,
            number: identity.1,
        }
    }

    /// Walks over all of it.
    ///
    /// # Errors
    /// What makes it impossible to judge the file at all.
    pub fn walk(&self) -> Result<BlobWalk> {
        let (_, inspection) = self.inspected()?;
        Ok(BlobWalk {
            bytes: inspection.bytes,
            values: inspection.values,
            value_bytes: inspection.value_bytes,
            problems: inspection.problems.into_iter().map(|p| p.found).collect(),
        })
    }

    /// Looks up the value of a key by the bytes of a pointer. `None` where they are none.
    ///
    /// # Errors
    /// What makes it impossible to judge the file at all.
    pub fn value(&self, key: &[u8], pointer: &[u8]) -> Result<Option<Result<Vec<u8>, String>>> {
        let Some(pointer) = Pointer::decode(pointer) else {
            return Ok(None);
        };
        let (sources, _) = self.opened()?;
        let pointer = Pointer {
            file: self.number,
            ..pointer
        };
        let value = sources.value(key, &pointer)?;
        Ok(Some(value.map(|value| value.to_vec())))
    }

    fn request(&self) -> Request<'_> {
        Request {
            path: Path::new(PATH),
            number: self.number,
            expected: None,
        }
    }

    fn opened(&self) -> Result<(BlobSources, Inspection)> {
        let mut sources = BlobSources::default();
        let inspection = sources.open(&self.env, &self.request())?;
        Ok((sources, inspection))
    }

    fn inspected(&self) -> Result<(BlobSources, Inspection)> {
        let (sources, mut inspection) = self.opened()?;
        sources.walk(&self.request(), &mut inspection, &mut |_| Ok(()))?;
        Ok((sources, inspection))
    }
}

impl std::fmt::Debug for BlobFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobFile")
            .field("number", &self.number)
            .field("walk", &self.walk())
            .finish_non_exhaustive()
    }
}

/// Decodes a pointer and gives its bytes again.
#[must_use]
pub fn blob_pointer(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    Pointer::decode(bytes)?.encode(&mut out);
    Some(out)
}

/// Decodes what the manifest has of a blob file, and gives the bytes again, with how many were read.
#[must_use]
pub fn blob_meta(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut decoder = Decoder::new(bytes);
    let mut out = Vec::new();
    BlobMeta::decode(&mut decoder)?.encode(&mut out);
    Some((out, bytes.len() - decoder.rest().len()))
}

/// Decodes what a table has in blob files, and gives the bytes again, with how many were read.
#[must_use]
pub fn blob_uses(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut decoder = Decoder::new(bytes);
    let uses: Box<[BlobUse]> = decode_uses(&mut decoder)?;
    let mut out = Vec::new();
    encode_uses(&uses, &mut out);
    Some((out, bytes.len() - decoder.rest().len()))
}
