//! Opening a keyring: which of the two files, and whether the secret is right. Writes nothing.

use vault_core::{Error, Result};

use super::envelope::{Access, Altered, key_encryption_key};
use super::files::{Directory, Found, Which};
use super::format::Image;
use super::keys::KeyTable;
use crate::kdf::KdfBounds;
use crate::secret::SecretKey;
use crate::transform::providers::Providers;

/// The keys that a keyring holds.
pub(crate) struct OpenKeys {
    pub(crate) root: SecretKey,
    pub(crate) table: KeyTable,
}

/// What is wrong with each of the two files, beside the one that is used.
#[derive(Default)]
pub(crate) struct Flaws {
    /// Why `KEYRING` is not used.
    pub(crate) main: Option<Error>,
    /// Why `KEYRING.copy` would be of no use.
    pub(crate) copy: Option<Error>,
}

impl Flaws {
    pub(crate) fn of(&mut self, which: Which) -> &mut Option<Error> {
        match which {
            Which::Main => &mut self.main,
            Which::Copy => &mut self.copy,
        }
    }
}

/// A keyring that is whole, so far as that shows without a key.
pub(crate) struct Chosen {
    pub(crate) image: Image,
    pub(crate) which: Which,
    /// The other file, where it is whole too.
    pub(crate) second: Option<Image>,
    pub(crate) flaws: Flaws,
}

/// Reads both files and says which is to be used.
///
/// # Errors
/// [`Error::NotEncrypted`] where there is none, [`Error::Corruption`] where none is whole, and what makes a keyring unusable.
pub(crate) fn choose(
    directory: &Directory,
    store: Option<&[u8; 16]>,
    bounds: &KdfBounds,
) -> Result<Chosen> {
    let main = directory.read(Which::Main, store, bounds)?;
    let copy = directory.read(Which::Copy, store, bounds)?;
    let mut flaws = Flaws::default();
    let (which, image, second) = match (main, copy) {
        (Found::Refused(error), _) => return Err(error),
        (Found::Whole(main), Found::Whole(copy)) => {
            if copy.version > main.version {
                flaws.main = Some(behind(directory, Which::Main, &main, &copy));
                (Which::Copy, copy, Some(main))
            } else {
                if copy.bytes != main.bytes {
                    flaws.copy = Some(behind(directory, Which::Copy, &copy, &main));
                }
                (Which::Main, main, Some(copy))
            }
        }
        (Found::Whole(main), Found::Broken(error) | Found::Refused(error)) => {
            flaws.copy = Some(error);
            (Which::Main, main, None)
        }
        (Found::Broken(error), Found::Whole(copy)) => {
            flaws.main = Some(error);
            (Which::Copy, copy, None)
        }
        (Found::Broken(_), Found::Refused(error)) => return Err(error),
        (Found::Broken(main), Found::Broken(copy)) => {
            return Err(
                match (
                    is_missing(directory, Which::Main)?,
                    is_missing(directory, Which::Copy)?,
                ) {
                    (true, true) => Error::NotEncrypted {
                        path: directory.path.clone(),
                    },
                    (true, false) => copy,
                    (false, _) => main,
                },
            );
        }
    };
    Ok(Chosen {
        image,
        which,
        second,
        flaws,
    })
}

fn is_missing(directory: &Directory, which: Which) -> Result<bool> {
    let path = directory.path_of(which);
    let kind = directory.fs.kind(&path);
    Ok(kind.map_err(|e| Error::io("look at", &path, e))?.is_none())
}

fn behind(directory: &Directory, which: Which, older: &Image, newer: &Image) -> Error {
    let problem = if older.version == newer.version {
        format!(
            "version {} as in {}, with other bytes",
            older.version,
            which.other().name()
        )
    } else {
        format!(
            "version {}, and {} has {}",
            older.version,
            which.other().name(),
            newer.version
        )
    };
    Error::corruption(&directory.path_of(which), 32, problem)
}

/// A keyring that was opened.
pub(crate) struct Loaded {
    pub(crate) image: Image,
    pub(crate) keys: OpenKeys,
    pub(crate) flaws: Flaws,
}

/// Opens the keyring of a directory. Derives one key-encryption key, and another one only where the file for which it was
/// derived turns out to be altered.
///
/// # Errors
/// As [`choose`]; [`Error::WrongKey`], and what the source of the secret says.
pub(crate) fn load(
    directory: &Directory,
    store: &[u8; 16],
    bounds: &KdfBounds,
    providers: &Providers,
    access: Access<'_>,
) -> Result<Loaded> {
    let chosen = choose(directory, Some(store), bounds)?;
    let Chosen {
        image,
        which,
        second,
        mut flaws,
    } = chosen;
    let path = directory.path_of(which);
    let kek = key_encryption_key(&path, store, &image.wrapping, access)?;
    let altered = match open(&image, providers, &kek) {
        Ok(keys) => return Ok(Loaded { image, keys, flaws }),
        Err(altered) => altered.in_file(&path),
    };
    // A copy that does not help says nothing: the first file is what is wrong.
    let Some(image) = second else {
        return Err(altered);
    };
    let second = key_encryption_key(
        &directory.path_of(which.other()),
        store,
        &image.wrapping,
        access,
    )
    .ok()
    .and_then(|kek| open(&image, providers, &kek).ok());
    let Some(keys) = second else {
        return Err(altered);
    };
    *flaws.of(which) = Some(altered);
    *flaws.of(which.other()) = None;
    Ok(Loaded { image, keys, flaws })
}

fn open(image: &Image, providers: &Providers, kek: &SecretKey) -> Result<OpenKeys, Altered> {
    let root = image.open_root(providers, kek)?;
    let table = image.open_body(providers, &root)?;
    Ok(OpenKeys { root, table })
}
