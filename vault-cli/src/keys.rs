//! Where the key of an encrypted store comes from: what the options say, or the person at the terminal.
//!
//! No option takes a secret itself: the command lines of processes are no secret on any system. A source is asked once,
//! however often the work behind it opens the store's keyring.

use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use vault_db::encryption::{
    Command, EncryptedProtection, EnvironmentVariable, KeyFile, KeySource, Passphrase, Secret,
    SecretBytes,
};
use vault_db::engine::{Error, LsmOptions, Result};

use crate::arguments::Keys;
use crate::output::Output;

/// Does some work on a store, with its key if it has one and the options say where that is. Where they do not and a person
/// is there, that one is asked.
///
/// # Errors
/// What the work says; [`Error::KeyUnavailable`] where nobody says where the key is.
pub(crate) fn with_options<T>(
    keys: &Keys,
    output: &mut Output,
    mut work: impl FnMut(&LsmOptions, &mut Output) -> Result<T>,
) -> Result<T> {
    let given = keys.source();
    let named = given.is_some();
    let options = match given {
        Some(source) => under(source),
        None => LsmOptions::default(),
    };
    match work(&options, output) {
        Err(Error::Encrypted { path }) if !named => {
            output.progress_ends();
            work(&under(asked(&path)?), output)
        }
        outcome => outcome,
    }
}

/// As [`with_options`], for work that takes the key itself: a snapshot, or a store and a snapshot of it. `wants_key` says of an
/// error that there was no key, and what of, for whoever is asked.
///
/// # Errors
/// As [`with_options`].
pub(crate) fn with_key<T>(
    keys: &Keys,
    output: &mut Output,
    wants_key: impl Fn(&vault_db::Error) -> Option<PathBuf>,
    mut work: impl FnMut(Option<&Key>, &mut Output) -> vault_db::Result<T>,
) -> vault_db::Result<T> {
    if let Some(key) = keys.key() {
        return work(Some(&key), output);
    }
    work(None, output).or_else(|error| {
        let Some(path) = wants_key(&error) else {
            return Err(error);
        };
        output.progress_ends();
        work(Some(&Key::of(asked(&path)?)), output)
    })
}

/// Whose key is missing, where that is what an error says.
pub(crate) fn wants_key(error: &vault_db::Error) -> Option<PathBuf> {
    match error {
        vault_db::Error::Engine(Error::Encrypted { path }) => Some(path.clone()),
        _ => None,
    }
}

fn under(source: Arc<dyn KeySource>) -> LsmOptions {
    let protection = EncryptedProtection::with_source(Key::of(source).0);
    LsmOptions::default().protection(Arc::new(protection))
}

/// Asks for a passphrase at the terminal, if there is one.
fn asked(path: &Path) -> Result<Arc<dyn KeySource>> {
    let unavailable = |problem: String| Error::KeyUnavailable {
        source_name: "the terminal".to_owned(),
        problem,
    };
    if !stdin().is_terminal() {
        return Err(unavailable(format!(
            "{} is encrypted, nothing says where its key is, and there is no terminal to ask at; give --key-file, \
             --key-env, --key-command, --passphrase-env or --passphrase-command, or check it without: a store with \
             verify --without-keys, a snapshot with snapshot verify",
            path.display()
        )));
    }
    let text =
        rpassword::prompt_password("Passphrase: ").map_err(|e| unavailable(e.to_string()))?;
    let passphrase = Passphrase::new(SecretBytes::from_string(text)?)?;
    Ok(Arc::new(passphrase))
}

/// A key, wherever it comes from: handed on as often as it is needed, and asked for once.
#[derive(Clone)]
pub(crate) struct Key(Arc<Remembered>);

impl Key {
    fn of(source: Arc<dyn KeySource>) -> Self {
        let secret = Mutex::new(None);
        Self(Arc::new(Remembered { source, secret }))
    }
}

impl KeySource for Key {
    fn name(&self) -> String {
        self.0.name()
    }

    fn secret(&self) -> Result<Secret> {
        self.0.secret()
    }
}

impl Keys {
    /// The key that the options name, if they do.
    pub(crate) fn key(&self) -> Option<Key> {
        self.source().map(Key::of)
    }

    /// The source that the options name; the command line lets through no more than one.
    fn source(&self) -> Option<Arc<dyn KeySource>> {
        if let Some(file) = &self.key_file {
            return Some(Arc::new(KeyFile::new(file)));
        }
        if let Some(name) = &self.key_env {
            return Some(Arc::new(EnvironmentVariable::key(name)));
        }
        if let Some(name) = &self.passphrase_env {
            return Some(Arc::new(EnvironmentVariable::passphrase(name)));
        }
        const SHELL: &str = "/bin/sh";
        if let Some(command) = &self.key_command {
            return Some(Arc::new(Command::key(SHELL, ["-c", command])));
        }
        let command = self.passphrase_command.as_ref()?;
        Some(Arc::new(Command::passphrase(SHELL, ["-c", command])))
    }
}

/// Asks a source once.
struct Remembered {
    source: Arc<dyn KeySource>,
    secret: Mutex<Option<Secret>>,
}

impl KeySource for Remembered {
    fn name(&self) -> String {
        self.source.name()
    }

    fn secret(&self) -> Result<Secret> {
        let mut secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        if secret.is_none() {
            *secret = Some(self.source.secret()?);
        }
        match secret.as_ref() {
            Some(Secret::Passphrase(passphrase)) => Ok(Secret::Passphrase(passphrase.duplicate())),
            Some(Secret::Key(key)) => Ok(Secret::Key(key.duplicate())),
            None => unreachable!("it was just put there"),
        }
    }
}
