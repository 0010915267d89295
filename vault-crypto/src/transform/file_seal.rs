//! The seal of one file: its key, its nonces, what is authenticated with each block.
//!
//! The key can be wiped at any time and is derived again when it is needed next. It is put in its place while the keyring's
//! keys are held, so that locking, which takes those away first, meets every key there is.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard};
use vault_core::transform::{
    BlockIdentity, BlockTransform, FileHeader, FileIdentity, HEADER_BYTES, KEYRING_NAME, Unopened,
};
use vault_core::{Error, Result};

use super::parameters::Parameters;
use crate::cipher::{Aead, NONCE_BYTES, TAG_BYTES};
use crate::keyring::Keyring;
use crate::secret::expand;

const FILE_LABEL: &[u8] = b"vault file 1";
/// Bytes of the header that a file's key is derived from: all but its checksum.
const BOUND_BYTES: usize = HEADER_BYTES - 4;
const CHECKSUM_BYTES: usize = 4;
/// Ordinals end here, so that no key seals more blocks.
const ORDINALS: u64 = 1 << 32;
/// The most bytes that are authenticated with a block ([`Algorithm::bound_bytes`]). The first 16 say something; the rest of what a
/// block belongs to is bound by the file's key and by the nonce (docs/adr/0034-what-is-authenticated.md).
const AAD_BYTES: usize = 64;
// Where the parts that differ from block to block stand in them.
const AAD_TYPE: usize = 5;
const AAD_CODEC: usize = 6;
const AAD_LEN: Range<usize> = 8..16;

/// What a file is open for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Its blocks are sealed, each once.
    Writing,
    /// Its blocks were sealed before.
    Reading,
}

/// The seal of one file.
pub(crate) struct FileSeal {
    keyring: Arc<Keyring>,
    identity: FileIdentity,
    parameters: Parameters,
    bound: [u8; BOUND_BYTES],
    /// What is authenticated, with zeros where blocks differ.
    aad: [u8; AAD_BYTES],
    /// Whether a checksum follows the tag.
    checked: bool,
    spent: Option<Box<Spent>>,
    /// `None` after locking, until it is needed. Threads that use it at once take locks of their own: one lock would go
    /// from processor to processor twice with every block.
    aead: ShardedLock<Option<Box<dyn Aead>>>,
}

/// Which ordinals have sealed a block. They go up, but those of a log are sealed by several threads at once and may
/// overtake one another, and a table spends 0 last.
///
/// Every 128th ordinal belongs to the same place, and a place only moves up: so none is spent twice, and one
/// is refused unspent only where another of its place, 128 or more ahead, came first. A store has 64 records on their way
/// into its log at most. Those that follow one another are spent by different processors and lie apart.
struct Spent {
    zero: AtomicBool,
    /// The highest ordinal spent of each place; 0: none.
    last: [[AtomicU64; Self::LINE]; Self::LINES],
}

impl Spent {
    /// Places in what processors pass on as a whole.
    const LINE: usize = 8;
    const LINES: usize = 16;

    fn new() -> Box<Self> {
        Box::new(Self {
            zero: AtomicBool::new(false),
            last: [const { [const { AtomicU64::new(0) }; Self::LINE] }; Self::LINES],
        })
    }

    /// Spends an ordinal, once. Each place is independent of everything else in memory.
    fn spend(&self, ordinal: u64) -> Result<()> {
        if ordinal >= ORDINALS {
            return unsupported("an encrypted file", "more than 4,294,967,296 blocks");
        }
        let unspent = if ordinal == 0 {
            !self.zero.swap(true, Ordering::Relaxed)
        } else {
            let number = ordinal as usize;
            let place = &self.last[number % Self::LINES][number / Self::LINES % Self::LINE];
            place.fetch_max(ordinal, Ordering::Relaxed) < ordinal
        };
        if unspent {
            return Ok(());
        }
        unsupported(
            "a file whose blocks are in order",
            "sealing under an ordinal twice, or under one far behind another",
        )
    }
}

fn unsupported(engine: &'static str, operation: &'static str) -> Result<()> {
    Err(Error::Unsupported { engine, operation })
}

impl FileSeal {
    /// The seal of the file with this header, known to the keyring and without a key yet.
    pub(crate) fn new(
        keyring: &Arc<Keyring>,
        header: &FileHeader,
        parameters: Parameters,
        used: Use,
    ) -> Arc<Self> {
        let header_bytes = header.encode();
        let bound = header_bytes.first_chunk().expect("a header is longer");
        let seal = Arc::new(Self {
            keyring: Arc::clone(keyring),
            identity: header.identity,
            parameters,
            bound: *bound,
            aad: aad_template(header),
            checked: !header.identity.kind.ends_in_checksums(),
            spent: (used == Use::Writing).then(Spent::new),
            aead: ShardedLock::new(None),
        });
        keyring.open_files().add(&seal);
        seal
    }

    /// Derives the key.
    ///
    /// # Errors
    /// [`Error::Locked`]; [`Error::UnacceptableKeyring`] where there is no data key for it.
    pub(crate) fn derive(&self) -> Result<()> {
        let FileIdentity { domain, .. } = self.identity;
        let Parameters { algorithm, epoch } = self.parameters;
        self.keyring.with_keys(|keys| {
            let data_key = keys.get(domain, epoch).ok_or_else(|| self.keyless())?;
            let file_key = expand(data_key, &[FILE_LABEL, &self.bound]);
            let aead = self.keyring.providers().of(algorithm).key(&file_key);
            // While the data keys are held: whoever locks comes later, and finds it here.
            *self.aead.write().unwrap_or_else(PoisonError::into_inner) = Some(aead);
            Ok(())
        })
    }

    const fn bound_bytes(&self) -> usize {
        self.parameters.algorithm.bound_bytes()
    }

    /// The keyspace whose key seals the file.
    pub(crate) const fn domain(&self) -> u32 {
        self.identity.domain
    }

    /// Derives the key if it was wiped.
    ///
    /// # Errors
    /// [`Error::Locked`]. Where there is no data key for it any more, it stays without.
    pub(crate) fn revive(&self) -> Result<()> {
        if self.aead().is_some() {
            return Ok(());
        }
        match self.derive() {
            Err(Error::UnacceptableKeyring { .. }) => Ok(()),
            derived => derived,
        }
    }

    /// Wipes the key.
    pub(crate) fn wipe(&self) {
        let aead = self
            .aead
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(aead);
    }

    /// Lends the cipher, with its key derived again where that was wiped.
    fn with_aead<T>(&self, use_aead: impl FnOnce(&dyn Aead) -> T) -> Result<T> {
        loop {
            if let Some(aead) = &*self.aead() {
                return Ok(use_aead(&**aead));
            }
            // Between this and the next look it may be locked again, which the next derivation says.
            self.derive()?;
        }
    }

    fn aead(&self) -> ShardedLockReadGuard<'_, Option<Box<dyn Aead>>> {
        self.aead.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error where the data key is not there.
    fn keyless(&self) -> Error {
        let FileIdentity {
            kind,
            number,
            domain,
            ..
        } = self.identity;
        let path: PathBuf = self.keyring.directory().join(KEYRING_NAME);
        let problem = format!(
            "it has no key for epoch {} of keyspace {domain}, which {} {number} needs: the key was destroyed, or this is an older keyring",
            self.parameters.epoch,
            kind.name()
        );
        Error::UnacceptableKeyring { path, problem }
    }

    /// What is authenticated with a block: the first [`Self::bound_bytes`] of this.
    #[inline]
    fn aad(&self, block: &BlockIdentity, len: usize) -> [u8; AAD_BYTES] {
        let mut aad = self.aad;
        aad[AAD_TYPE] = block.block_type;
        aad[AAD_CODEC] = block.codec;
        aad[AAD_LEN].copy_from_slice(&(len as u64).to_le_bytes());
        aad
    }
}

/// What is authenticated with every block of a file.
fn aad_template(header: &FileHeader) -> [u8; AAD_BYTES] {
    let FileIdentity { kind, domain, .. } = header.identity;
    let mut aad = [0; AAD_BYTES];
    aad[..4].copy_from_slice(&domain.to_le_bytes());
    aad[4] = kind as u8;
    aad
}

#[inline]
fn nonce(ordinal: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&ordinal.to_le_bytes());
    nonce
}

impl BlockTransform for FileSeal {
    fn overhead(&self) -> usize {
        TAG_BYTES + if self.checked { CHECKSUM_BYTES } else { 0 }
    }

    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        let Some(spent) = &self.spent else {
            return unsupported("a file that was opened for reading", "sealing a block");
        };
        let text = &mut buffer[start..];
        let aad = self.aad(block, text.len());
        let tag = self.with_aead(|aead| {
            // Only when there is a key: a block that was refused because the store is locked is not sealed.
            spent.spend(block.ordinal)?;
            aead.seal(&nonce(block.ordinal), &aad[..self.bound_bytes()], text)
                .or_else(|_| {
                    unsupported("the cipher", "blocks of more than 64 GiB").map(|()| [0; TAG_BYTES])
                })
        })??;
        buffer.extend_from_slice(&tag);
        if self.checked {
            let checksum = crc32fast::hash(&buffer[start..]);
            buffer.extend_from_slice(&checksum.to_le_bytes());
        }
        Ok(())
    }

    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        let sealed = if self.checked {
            let (sealed, stored) = sealed
                .split_last_chunk_mut::<CHECKSUM_BYTES>()
                .ok_or(Unopened::Damaged)?;
            if crc32fast::hash(sealed) != u32::from_le_bytes(*stored) {
                return Err(Unopened::Damaged);
            }
            sealed
        } else {
            sealed
        };
        let (text, tag) = sealed
            .split_last_chunk_mut::<TAG_BYTES>()
            .ok_or(Unopened::Damaged)?;
        if block.ordinal >= ORDINALS {
            return Err(Unopened::Damaged);
        }
        let aad = self.aad(block, text.len());
        let aad = &aad[..self.bound_bytes()];
        let opened = self.with_aead(|aead| aead.open(&nonce(block.ordinal), aad, text, tag));
        match opened {
            Ok(Ok(())) => Ok(text),
            Err(Error::Locked) => Err(Unopened::Locked),
            // Altered, or its data key was destroyed while the file was open and the store locked.
            Ok(Err(_)) | Err(_) => Err(Unopened::Damaged),
        }
    }

    fn epoch(&self) -> u32 {
        self.parameters.epoch
    }

    fn ready(&self) -> Result<()> {
        if self.aead().is_some() {
            return Ok(());
        }
        self.derive()
    }

    fn quick_bytes(&self) -> usize {
        self.aead().as_ref().map_or(0, |aead| aead.quick_bytes())
    }

    fn stride(&self) -> usize {
        self.aead().as_ref().map_or(1, |aead| aead.stride())
    }
}

impl fmt::Debug for FileSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSeal")
            .field("identity", &self.identity)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}
