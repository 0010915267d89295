//! `KEYRING`: the keys of an encrypted store, which anybody may have written over.
//!
//! Without a secret, a file either tells what it says or is refused, and one that was taken in is given out as it was. With the right
//! key, whatever was changed in it and in its copy, either one of the keyrings that were written opens, keys and all, or none.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use vault_core::random::{Random, SeededRandom};
use vault_core::transform::{
    BlockIdentity, FileHeader, FileIdentity, FileKind, KEYRING_COPY_NAME, KEYRING_NAME, Protection,
    StorePlace, Transform,
};
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Error, Result};
use vault_crypto::source::RawKey;
use vault_crypto::{Algorithm, EncryptedProtection, SecretKey, keyring};

use crate::memory;

const DIRECTORY: &str = "/store";
const STORE: [u8; 16] = *b"a store's own id";
/// The domain that the second keyring has and the first has not.
const DOMAIN: u32 = 7;
/// What is sealed under the keys of the store.
const SEALED: &[u8] = b"what only these keys open";
/// Most changes that are made to a keyring.
const CHANGES_MAX: usize = 16;
/// Bytes of the checksum that a keyring ends with.
const CHECKSUM_BYTES: usize = 4;

/// A file, and what is done to a keyring.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Whether the checksums are made good.
    pub mend: bool,
    /// Which of the keyrings that were written stands in `KEYRING`, and which in its copy.
    pub images: (bool, bool),
    /// Whether it is the copy that is changed, where, and what is added to the byte there.
    pub changes: Vec<(bool, u16, u8)>,
    /// A keyring of nobody's.
    pub file: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = keyring::read_info(&directory(&mended(self.file), None), Path::new(DIRECTORY));
        writeln!(
            f,
            "mended: {}, images {:?}, changed: {:?}",
            self.mend, self.images, self.changes
        )?;
        crate::debug_bytes(f, self.file, info.as_ref().ok().map(|info| info as _))
    }
}

/// Two keyrings of one store, and what is sealed under their keys.
struct World {
    images: [Vec<u8>; 2],
    header: FileHeader,
    sealed: Vec<u8>,
}

/// Reads the file, and opens what was changed.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    check_file(input.file);
    check_file(&mended(input.file));
    match open(input) {
        Ok(transform) => assert_is_one_of_those_written(&*transform),
        Err(error) => assert_is_of_the_keyring(&error),
    }
}

fn check_file(bytes: &[u8]) {
    let fs = directory(bytes, None);
    let place = Path::new(DIRECTORY);
    match memory::bounded(bytes.len(), || keyring::read_info(&fs, place)) {
        Ok(_) => {
            let exported = keyring::export(&fs, place).expect("it was read");
            assert_eq!(exported, bytes, "other bytes are given out");
            let lost = directory(b"", None);
            keyring::import(&lost, place, bytes).expect("what was given out is taken in");
            assert_eq!(keyring::export(&lost, place).expect("it is there"), bytes);
        }
        Err(error) => assert_is_of_the_keyring(&error),
    }
}

/// Opens a store's keyring, changed as the input says, with the right key.
fn open(input: &Input<'_>) -> Result<Arc<dyn Transform>> {
    let world = world();
    let chosen = [input.images.0, input.images.1];
    let mut files = chosen.map(|newer| world.images[usize::from(newer)].clone());
    for (copy, at, add) in input.changes.iter().take(CHANGES_MAX) {
        if let Some(byte) = files[usize::from(*copy)].get_mut(usize::from(*at)) {
            *byte = byte.wrapping_add(*add);
        }
    }
    if input.mend {
        files = files.map(|file| mended(&file));
    }
    let [main, copy] = files;
    let fs = directory(&main, Some(&copy));
    let opened = with_place(&fs, |place| protection().open(place));
    let same = |name| whole(&fs, name);
    assert_eq!(
        (same(KEYRING_NAME), same(KEYRING_COPY_NAME)),
        (main, copy),
        "opening writes nothing"
    );
    opened
}

fn assert_is_one_of_those_written(transform: &dyn Transform) {
    let keys = transform.keys().expect("an encrypted store has keys");
    let newer = keys.has_domain(DOMAIN).expect("it is not locked");
    let world = world();
    let written = &world.images[usize::from(newer)];
    let version = FileHeader::decode(Path::new(KEYRING_NAME), written, FileKind::Keyring, 1)
        .expect("it was written")
        .identity
        .number;
    assert_eq!(
        (keys.version(), keys.epoch()),
        (version, 1),
        "a keyring that nobody wrote"
    );
    let file = transform.open(&world.header).expect("its keys are there");
    let mut sealed = world.sealed.clone();
    assert_eq!(file.open(&BLOCK, &mut sealed), Ok(SEALED), "other keys");
}

fn assert_is_of_the_keyring(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Corruption { .. }
                | Error::NewerFormat { .. }
                | Error::UnacceptableKeyring { .. }
                | Error::InvalidKey { .. }
                | Error::WrongKey { .. }
        ),
        "an error of another kind: {error:?}"
    );
    assert!(!error.to_string().is_empty());
}

const BLOCK: BlockIdentity = BlockIdentity {
    ordinal: 0,
    block_type: 1,
    codec: 0,
};

/// A store's directory with nothing in it but a keyring.
fn directory(main: &[u8], copy: Option<&[u8]>) -> Arc<dyn FileSystem> {
    let fs = MemoryFileSystem::new();
    let place = Path::new(DIRECTORY);
    fs.create_dir_all(place).expect("a directory in memory");
    let files = [(KEYRING_NAME, Some(main)), (KEYRING_COPY_NAME, copy)];
    for (name, bytes) in files {
        let Some(bytes) = bytes else { continue };
        fs.write_file(place.join(name), bytes)
            .expect("a file in memory");
    }
    Arc::new(fs)
}

fn whole(fs: &Arc<dyn FileSystem>, name: &str) -> Vec<u8> {
    let file = fs.open(&Path::new(DIRECTORY).join(name));
    vault_core::vfs::read_whole(&*file.expect("it is there")).expect("a file in memory")
}

/// The file with the checksums that it should have.
fn mended(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    vault_lsm::fuzzing::mend_header(&mut file);
    if let Some((content, checksum)) = file.split_last_chunk_mut::<CHECKSUM_BYTES>() {
        *checksum = crc32fast::hash(content).to_le_bytes();
    }
    file
}

fn protection() -> EncryptedProtection {
    let key = SecretKey::from_bytes(&mut [9; 32]);
    EncryptedProtection::with_source(Arc::new(RawKey::new(key))).algorithm(Algorithm::Aes256Gcm)
}

fn with_place<R>(fs: &Arc<dyn FileSystem>, f: impl FnOnce(&StorePlace<'_>) -> R) -> R {
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    f(&StorePlace {
        fs,
        random: &random,
        directory: Path::new(DIRECTORY),
        store: STORE,
        writable: true,
    })
}

/// The store whose keyrings are changed, made once.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| make().expect("a keyring in memory"))
}

fn make() -> Result<World> {
    let memory = MemoryFileSystem::new();
    memory
        .create_dir_all(Path::new(DIRECTORY))
        .expect("a directory in memory");
    let fs: Arc<dyn FileSystem> = Arc::new(memory);
    let transform = with_place(&fs, |place| protection().create(place))?;
    let older = whole(&fs, KEYRING_NAME);
    let identity = FileIdentity {
        store: STORE,
        kind: FileKind::Table,
        number: 1,
        domain: 0,
    };
    let (header, file) = FileHeader::create(identity, 1, &*transform, &SeededRandom::new(2))?;
    let mut sealed = SEALED.to_vec();
    file.seal(&BLOCK, &mut sealed, 0)?;
    let keys = transform.keys().expect("an encrypted store has keys");
    keys.add_domain(DOMAIN)?;
    Ok(World {
        images: [older, whole(&fs, KEYRING_NAME)],
        header,
        sealed,
    })
}

/// Inputs to begin with: both keyrings, whole and changed.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let world = world();
    vec![
        ("older", [&[0, 0, 0, 0][..], &world.images[0]].concat()),
        ("newer", [&[0, 1, 1, 0][..], &world.images[1]].concat()),
        // Both files changed, with checksums that are right: one byte of the sealed body, one of the wrapping.
        (
            "changed",
            vec![1, 1, 1, 1, 0, 0x40, 1, 1, 1, 1, 0xa0, 0, 1, 0],
        ),
        ("copy-behind", vec![0, 1, 0, 1, 0, 0x90, 0, 5, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(mend: bool, images: (bool, bool), changes: &[(bool, u16, u8)]) -> Input<'static> {
        Input {
            mend,
            images,
            changes: changes.to_vec(),
            file: &[],
        }
    }

    /// What was not changed opens: the target reaches what stands behind the checks.
    #[test]
    fn what_was_written_opens() {
        for mend in [false, true] {
            for images in [(false, false), (true, true), (true, false), (false, true)] {
                let opened = open(&input(mend, images, &[])).expect("nothing was changed");
                let newer = opened.keys().expect("keys").has_domain(DOMAIN);
                assert_eq!(newer.expect("not locked"), images.0 || images.1);
                assert_is_one_of_those_written(&*opened);
            }
        }
        for image in &world().images {
            check_file(image);
            let info = keyring::read_info(&directory(image, None), Path::new(DIRECTORY));
            assert!(info.is_ok());
        }
    }

    /// Every byte of both files, its checksums made good: none of them opens as something else.
    #[test]
    fn no_byte_can_be_changed() {
        for at in 0..world().images[1].len() as u16 {
            let both = input(true, (true, true), &[(false, at, 1), (true, at, 1)]);
            check(&both);
            let checksum = at as usize >= world().images[1].len() - CHECKSUM_BYTES;
            let header_checksum = (124..128).contains(&at);
            let opens = open(&both).is_ok();
            assert_eq!(opens, checksum || header_checksum, "byte {at}");
            check(&input(false, (true, true), &[(false, at, 1)]));
        }
    }
}
