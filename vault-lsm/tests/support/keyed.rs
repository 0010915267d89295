//! A keyed transform for tests: not a cipher anybody should use, but it has what the engine's part of secrecy needs. Blocks open
//! only with the key of their domain and epoch; keys are kept in a file of the store, go when they are destroyed or wiped,
//! and come back only from that file. It also notices when one key seals two texts under one ordinal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vault_core::random::Random;
use vault_core::transform::{
    BlockIdentity, BlockTransform, ENCRYPTED_ID, FileHeader, KEYRING_NAME, Keys, Protection,
    StorePlace, Transform, Unopened,
};
use vault_core::vfs::{FileSystem, read_whole};
use vault_core::{Error, Result};

/// Bytes that it adds to a block.
const TAG_BYTES: usize = 8;

/// Protects stores with toy keys, and shows the test those of the last opening.
#[derive(Debug, Default)]
pub(crate) struct Toy {
    last: Mutex<Option<Arc<ToyKeys>>>,
    sealed: Arc<Sealed>,
}

/// What was sealed under which key, file and ordinal.
type Sealed = Mutex<HashMap<(u64, u64, u64), u64>>;

/// The keys of an opening.
#[derive(Debug)]
pub(crate) struct ToyKeys {
    fs: Arc<dyn FileSystem>,
    random: Arc<dyn Random>,
    directory: PathBuf,
    ring: Mutex<Ring>,
    sealed: Arc<Sealed>,
}

#[derive(Debug, Clone, Default)]
struct Ring {
    locked: bool,
    version: u64,
    epoch: u32,
    domains: BTreeSet<u32>,
    /// By domain and epoch.
    keys: BTreeMap<(u32, u32), u64>,
}

fn take<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Toy {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The keys of the last opening.
    pub(crate) fn keys(&self) -> Arc<ToyKeys> {
        let last = take(&self.last).clone();
        last.expect("a store was opened with it")
    }

    fn transform(&self, place: &StorePlace<'_>, ring: Ring) -> Arc<ToyKeys> {
        let keys = Arc::new(ToyKeys {
            fs: Arc::clone(place.fs),
            random: Arc::clone(place.random),
            directory: place.directory.to_path_buf(),
            ring: Mutex::new(ring),
            sealed: Arc::clone(&self.sealed),
        });
        *take(&self.last) = Some(Arc::clone(&keys));
        keys
    }
}

impl Protection for Toy {
    fn create(&self, place: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        let keys = self.transform(place, Ring::default());
        let mut ring = Ring {
            epoch: 1,
            domains: BTreeSet::from([0]),
            ..Ring::default()
        };
        ring.renew(&keys)?;
        keys.replace(&keys.directory, ring)?;
        Ok(Arc::new(ToyTransform(keys)))
    }

    fn open(&self, place: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        let ring = Ring::read(&**place.fs, place.directory)?;
        Ok(Arc::new(ToyTransform(self.transform(place, ring))))
    }
}

impl Ring {
    /// Fresh keys of this epoch for all domains.
    fn renew(&mut self, keys: &ToyKeys) -> Result<()> {
        for &domain in &self.domains {
            let mut key = [0; 8];
            keys.random.fill(&mut key)?;
            let key = u64::from_le_bytes(key);
            self.keys.insert((domain, self.epoch), key);
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut text = format!("{} {}\n", self.version, self.epoch);
        for ((domain, epoch), key) in &self.keys {
            text += &format!("{domain} {epoch} {key}\n");
        }
        text.into_bytes()
    }

    fn read(fs: &dyn FileSystem, directory: &Path) -> Result<Self> {
        let path = directory.join(KEYRING_NAME);
        let file = fs.open(&path).map_err(|e| Error::io("open", &path, e))?;
        let bytes = read_whole(&*file).map_err(|e| Error::io("read", &path, e))?;
        let damaged = || Error::corruption(&path, 0, "not a toy keyring");
        let text = String::from_utf8(bytes).map_err(|_| damaged())?;
        let mut ring = Self::default();
        for (at, line) in text.lines().enumerate() {
            let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
            match (at, numbers[..].as_ref()) {
                (0, &[version, epoch]) => (ring.version, ring.epoch) = (version, epoch as u32),
                (_, &[domain, epoch, key]) => {
                    ring.domains.insert(domain as u32);
                    ring.keys.insert((domain as u32, epoch as u32), key);
                }
                _ => return Err(damaged()),
            }
        }
        if ring.epoch == 0 {
            return Err(damaged());
        }
        Ok(ring)
    }
}

impl ToyKeys {
    /// Reads the keys again, as whoever unlocks a real keyring would.
    pub(crate) fn unlock(&self) {
        let ring = Ring::read(&*self.fs, &self.directory);
        *take(&self.ring) = ring.expect("the keyring is whole");
    }

    pub(crate) fn is_locked_now(&self) -> bool {
        take(&self.ring).locked
    }

    /// The epochs of which there are keys.
    pub(crate) fn epochs(&self) -> BTreeSet<u32> {
        let ring = take(&self.ring);
        ring.keys.keys().map(|&(_, epoch)| epoch).collect()
    }

    /// The domains of which there are keys.
    pub(crate) fn domains(&self) -> BTreeSet<u32> {
        take(&self.ring).domains.clone()
    }

    /// Replaces the keyring, durably.
    fn replace(&self, directory: &Path, mut next: Ring) -> Result<()> {
        next.version += 1;
        let (path, new) = (
            directory.join(KEYRING_NAME),
            directory.join(format!("{KEYRING_NAME}.new")),
        );
        let _ = self.fs.remove(&new);
        let written = (|| {
            let file = self.fs.create(&new)?;
            file.write_at(&next.encode(), 0)?;
            file.sync()?;
            self.fs.rename(&new, &path)
        })();
        written.map_err(|e: io::Error| Error::io("replace", &path, e))?;
        if let Err(e) = self.fs.sync_dir(directory) {
            let cause = Arc::new(Error::io("sync directory", directory, e));
            return Err(Error::Poisoned { cause });
        }
        if directory == self.directory {
            *take(&self.ring) = next;
        }
        Ok(())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Ring) -> Result<T>) -> Result<T> {
        let mut next = take(&self.ring).clone();
        if next.locked {
            return Err(Error::Locked);
        }
        let before = next.encode();
        let outcome = change(&mut next)?;
        if next.encode() != before {
            self.replace(&self.directory, next)?;
        }
        Ok(outcome)
    }

    fn key(&self, domain: u32, epoch: u32) -> Result<u64, Unopened> {
        let ring = take(&self.ring);
        if ring.locked {
            return Err(Unopened::Locked);
        }
        let key = ring.keys.get(&(domain, epoch)).copied();
        key.ok_or(Unopened::Damaged)
    }
}

impl Keys for ToyKeys {
    fn has_domain(&self, _: u32) -> Result<bool> {
        Ok(true)
    }

    fn version(&self) -> u64 {
        take(&self.ring).version
    }

    fn epoch(&self) -> u32 {
        take(&self.ring).epoch
    }

    fn add_domain(&self, domain: u32) -> Result<()> {
        self.change(|ring| {
            if ring.domains.insert(domain) {
                let mut key = [0; 8];
                self.random.fill(&mut key)?;
                let key = u64::from_le_bytes(key);
                ring.keys.insert((domain, ring.epoch), key);
            }
            Ok(())
        })
    }

    fn keep_domains(&self, kept: &[u32]) -> Result<()> {
        let is_kept = |domain: u32| domain == 0 || kept.contains(&domain);
        self.change(|ring| {
            ring.domains.retain(|&domain| is_kept(domain));
            ring.keys.retain(|&(domain, _), _| is_kept(domain));
            Ok(())
        })
    }

    fn begin_epoch(&self) -> Result<u32> {
        self.change(|ring| {
            ring.epoch += 1;
            ring.renew(self)?;
            Ok(ring.epoch)
        })
    }

    fn retire_epochs(&self, oldest: u32) -> Result<u32> {
        let before = self.epochs();
        self.change(|ring| {
            ring.keys.retain(|&(_, epoch), _| epoch >= oldest);
            Ok(())
        })?;
        Ok((before.len() - self.epochs().len()) as u32)
    }

    fn copied(&self) -> Result<Vec<u8>> {
        let mut ring = take(&self.ring).clone();
        if ring.locked {
            return Err(Error::Locked);
        }
        ring.version += 1;
        ring.epoch += 1;
        ring.renew(self)?;
        Ok(ring.encode())
    }

    fn lock(&self) {
        let mut ring = take(&self.ring);
        ring.locked = true;
        ring.keys.clear();
    }

    fn is_locked(&self) -> bool {
        self.is_locked_now()
    }
}

#[derive(Debug)]
struct ToyTransform(Arc<ToyKeys>);

impl Transform for ToyTransform {
    fn id(&self) -> u16 {
        ENCRYPTED_ID
    }

    fn create(&self, header: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        let epoch = self.0.epoch();
        header.parameters[2..6].copy_from_slice(&epoch.to_le_bytes());
        let blocks = ToyBlocks::new(&self.0, header);
        match self.0.key(blocks.domain, epoch) {
            Ok(_) => Ok(Arc::new(blocks)),
            Err(Unopened::Locked) => Err(Error::Locked),
            Err(Unopened::Damaged) => {
                let problem = format!("no key of domain {} and epoch {epoch}", blocks.domain);
                Err(Error::corruption(Path::new(KEYRING_NAME), 0, problem))
            }
        }
    }

    fn open(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        Ok(Arc::new(ToyBlocks::new(&self.0, header)))
    }

    fn keys(&self) -> Option<&dyn Keys> {
        Some(&*self.0)
    }
}

#[derive(Debug)]
struct ToyBlocks {
    keys: Arc<ToyKeys>,
    domain: u32,
    epoch: u32,
    /// Of the whole header.
    file: u64,
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl ToyBlocks {
    fn new(keys: &Arc<ToyKeys>, header: &FileHeader) -> Self {
        let epoch = header.parameters[2..6].try_into().expect("four bytes");
        Self {
            keys: Arc::clone(keys),
            domain: header.identity.domain,
            epoch: u32::from_le_bytes(epoch),
            file: hash(header.encode()),
        }
    }

    fn mask(&self, key: u64, ordinal: u64, bytes: &mut [u8]) {
        let mut state = hash((key, self.file, ordinal));
        for piece in bytes.chunks_mut(8) {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            let mask = (state ^ (state >> 29)).to_le_bytes();
            piece.iter_mut().zip(mask).for_each(|(byte, m)| *byte ^= m);
        }
    }

    fn tag(&self, key: u64, block: &BlockIdentity, bytes: &[u8]) -> u64 {
        let BlockIdentity {
            ordinal,
            block_type,
            codec,
        } = *block;
        hash((key, self.file, ordinal, block_type, codec, bytes))
    }
}

impl BlockTransform for ToyBlocks {
    fn overhead(&self) -> usize {
        TAG_BYTES
    }

    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        let key = self.keys.key(self.domain, self.epoch);
        let key = key.map_err(|_| Error::Locked)?;
        let text = hash(&buffer[start..]);
        let before = take(&self.keys.sealed).insert((key, self.file, block.ordinal), text);
        assert!(
            before.is_none_or(|before| before == text),
            "block {} is sealed twice under one key",
            block.ordinal
        );
        self.mask(key, block.ordinal, &mut buffer[start..]);
        let tag = self.tag(key, block, &buffer[start..]);
        buffer.extend_from_slice(&tag.to_le_bytes());
        Ok(())
    }

    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        let key = self.keys.key(self.domain, self.epoch)?;
        let at = sealed.len().checked_sub(TAG_BYTES);
        let (content, tag) = sealed.split_at_mut(at.ok_or(Unopened::Damaged)?);
        if tag != self.tag(key, block, content).to_le_bytes() {
            return Err(Unopened::Damaged);
        }
        self.mask(key, block.ordinal, content);
        Ok(content)
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn ready(&self) -> Result<()> {
        let key = self.keys.key(self.domain, self.epoch);
        key.map(drop).map_err(|_| Error::Locked)
    }
}
