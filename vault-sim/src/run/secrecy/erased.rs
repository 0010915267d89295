//! What is left of dropped keyspaces: nothing that any key of the keyring opens.
//!
//! A verification reads every file of the store, with a cipher that looks at each text it opens. In the blocks of
//! a keyspace's own files it is the keyspace that must still be there; in log, manifest and pointer, whatever carries the
//! canary must be known to one that is there. Files that no manifest names (readers may hold some) must not open at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vault_core::random::Random;
use vault_core::transform::{FileHeader, FileKind, Protection, StorePlace};
use vault_core::vfs::FileSystem;
use vault_crypto::cipher::{
    self, Aead, Algorithm, NONCE_BYTES, Provider, TAG_BYTES, TooLong, Unauthentic,
};
use vault_crypto::secret::SecretKey;
use vault_lsm::check::{VerifyOptions, verify};

use super::canary::{around, content, find};
use crate::oracle::{Id, Oracle};
use crate::plan::CANARY;
use crate::run::{DIRECTORY, Simulation, Step};

/// Bytes that say something of those that are authenticated with each block of a file; a keyring's are others.
const AAD_BYTES: usize = 16;
/// Newer than any format.
const VERSION_MAX: u16 = u16::MAX;

/// Something that a plan brought in, as it can be recognised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// The digits of a key.
    Key([u8; 3]),
    /// The stamp of a value.
    Value(Vec<u8>),
    /// What follows the canary of a name.
    Name([u8; 4]),
    /// Something that the store has to refuse.
    Misused(String),
}

/// The marks in a text. Keys without digits, values that are cut short, and the ends of prefixes have none.
fn marks(text: &[u8]) -> impl Iterator<Item = Mark> {
    find(text).filter_map(|at| {
        let behind = &text[at + CANARY.len()..];
        match behind.split_first() {
            Some((b'k', rest)) => {
                let digits = rest.first_chunk::<3>()?;
                let is_key = digits.iter().all(u8::is_ascii_digit);
                is_key.then_some(Mark::Key(*digits))
            }
            Some((b'v', _)) => {
                let before = text[..at].strip_suffix(b":")?;
                let from = before.iter().rposition(|&byte| byte == b'#')?;
                Some(Mark::Value(before[from..].to_vec()))
            }
            Some((b'n', rest)) => rest.first_chunk().map(|name| Mark::Name(*name)),
            Some((b'm', _)) => Some(Mark::Misused(around(text, at))),
            _ => None,
        }
    })
}

/// What commits that were lost at an end brought in: records of them may lie in the log behind its end.
#[derive(Debug, Default)]
pub(in crate::run) struct Lost(BTreeMap<Id, BTreeSet<Mark>>);

impl Lost {
    /// Takes note of everything that is in an account, before what was lost is taken out of it.
    pub(in crate::run) fn note(&mut self, oracle: &Oracle) {
        for (id, ..) in oracle.present() {
            let texts = oracle.history(id).texts().flat_map(marks);
            self.0.entry(id).or_default().extend(texts);
        }
    }

    fn of(&self, id: Id) -> impl Iterator<Item = Mark> {
        self.0.get(&id).into_iter().flatten().cloned()
    }
}

/// What may be read.
#[derive(Debug)]
struct Watch {
    inner: &'static dyn Provider,
    domains: BTreeSet<u32>,
    known: BTreeSet<Mark>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Texts that were opened.
    texts: u64,
    problem: Option<String>,
}

impl Watch {
    fn new(algorithm: Algorithm, oracle: &Oracle, lost: &Lost) -> Self {
        Self {
            inner: cipher::provider(algorithm),
            domains: std::iter::once(0)
                .chain(oracle.present().map(|(id, ..)| id))
                .collect(),
            known: oracle
                .texts()
                .flat_map(marks)
                .chain(oracle.present().flat_map(|(id, ..)| lost.of(id)))
                .collect(),
            seen: Mutex::default(),
        }
    }

    fn look_at(&self, aad: &[u8], text: &[u8]) {
        let problem = self.problem_of(aad, text);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.texts += 1;
        if seen.problem.is_none() {
            seen.problem = problem;
        }
    }

    fn problem_of(&self, aad: &[u8], text: &[u8]) -> Option<String> {
        if aad.len() != Algorithm::Aes256Gcm.bound_bytes()
            && aad.len() != Algorithm::ChaCha20Poly1305.bound_bytes()
        {
            return None;
        }
        let aad: &[u8; AAD_BYTES] = aad.first_chunk()?;
        let [a, b, c, d, kind, ..] = *aad;
        let domain = u32::from_le_bytes([a, b, c, d]);
        let place = || format!("a block of a file of kind {kind}");
        if !self.domains.contains(&domain) {
            return Some(format!(
                "{} opens, of keyspace {domain}, which is gone",
                place()
            ));
        }
        // What is compressed shows no marks.
        let foreign = marks(text).find(|mark| !self.known.contains(mark))?;
        (domain == 0).then(|| format!("{} holds {foreign:?}, which no keyspace has", place()))
    }
}

/// The watch as a cipher.
#[derive(Debug)]
struct Watching(Arc<Watch>);

impl Provider for Watching {
    fn name(&self) -> &'static str {
        "one that looks at what it opens"
    }

    fn algorithm(&self) -> Algorithm {
        self.0.inner.algorithm()
    }

    fn key(&self, key: &SecretKey) -> Box<dyn Aead> {
        Box::new(Eye {
            inner: self.0.inner.key(key),
            watch: Arc::clone(&self.0),
        })
    }
}

struct Eye {
    inner: Box<dyn Aead>,
    watch: Arc<Watch>,
}

impl Aead for Eye {
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], TooLong> {
        self.inner.seal(nonce, aad, buffer)
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unauthentic> {
        self.inner.open(nonce, aad, buffer, tag)?;
        self.watch.look_at(aad, buffer);
        Ok(())
    }
}

impl Simulation {
    /// Nothing in the directory that can be opened tells of a keyspace that is not there. Nothing may be wrong around the store.
    pub(in crate::run) fn check_erased(&mut self) -> Step {
        let Some(algorithm) = self.secrecy.algorithm.filter(|_| !self.secrecy.unerased) else {
            return Ok(());
        };
        let watch = Arc::new(Watch::new(algorithm, &self.oracle, &self.secrecy.lost));
        let watching = Arc::new(Watching(Arc::clone(&watch)));
        let protection = Arc::new(self.secrecy.protection_with(self.secrecy.secret, watching));
        self.check_domains(&watch)?;
        self.check_headers(&*protection, &watch)?;
        let options = self.options_of(protection);
        let mut go_on = |_: &_| ControlFlow::Continue(());
        let report = verify(DIRECTORY, &options, &VerifyOptions::default(), &mut go_on);
        let report = report.map_err(|error| format!("verify: {error}"))?;
        if !report.is_clean() {
            let findings = report.findings;
            return Err(format!("verification of a sound store found {findings:?}"));
        }
        let seen = watch.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.report.texts_searched += seen.texts;
        match &seen.problem {
            Some(problem) => Err(format!("what was dropped is not erased: {problem}")),
            None if seen.texts == 0 => Err("nothing was opened to be searched".to_owned()),
            None => Ok(()),
        }
    }

    /// The keyring has keys for what is there, and for nothing else.
    fn check_domains(&self, watch: &Watch) -> Step {
        let info = self.secrecy.keyring().map(|keyring| keyring.info());
        let Some(domains) = info.and_then(|info| info.domains) else {
            return Ok(());
        };
        let there = watch.domains.len();
        if domains == there {
            return Ok(());
        }
        Err(format!("there are {there} domains, and keys for {domains}"))
    }

    /// No file of a keyspace that is gone has a key.
    fn check_headers(&self, protection: &dyn Protection, watch: &Watch) -> Step {
        let files = self.fs.list();
        let files = files.iter().filter(|(path, _)| path.starts_with(DIRECTORY));
        let headers: Vec<FileHeader> = files
            .filter_map(|(path, _)| header_of(path, &content(&self.fs, path)))
            .collect();
        let Some(first) = headers.first() else {
            return Err("the store has no file with a header".to_owned());
        };
        let (fs, random): (Arc<dyn FileSystem>, Arc<dyn Random>) =
            (Arc::new(self.fs.clone()), Arc::clone(&self.random) as _);
        let place = StorePlace {
            fs: &fs,
            random: &random,
            directory: Path::new(DIRECTORY),
            store: first.identity.store,
            writable: false,
        };
        let transform = protection
            .open(&place)
            .map_err(|error| format!("the keyring does not open: {error}"))?;
        for header in &headers {
            let domain = header.identity.domain;
            if !watch.domains.contains(&domain) && transform.open(header).is_ok() {
                return Err(format!(
                    "{:?} has a key, and its keyspace none",
                    header.identity
                ));
            }
        }
        Ok(())
    }
}

/// The header of a file that seals blocks.
fn header_of(path: &Path, bytes: &[u8]) -> Option<FileHeader> {
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("tab") => FileKind::Table,
        Some("blob") => FileKind::Blob,
        Some("log") => FileKind::Log,
        Some("man") => FileKind::Manifest,
        _ if path.ends_with("CURRENT") => FileKind::Pointer,
        _ => return None,
    };
    FileHeader::decode(path, bytes, kind, VERSION_MAX).ok()
}

#[cfg(test)]
mod tests {
    use vault_core::KeyspaceOptions;

    use super::*;
    use crate::oracle::{Effect, Outcome, Recorded};
    use crate::plan::{Key, Slot, Value};

    fn value(stamp: u32) -> Vec<u8> {
        Value {
            stamp,
            bytes: 40,
            noise: false,
        }
        .bytes()
    }

    /// The watch sees what it is there for: keys, values and names of keyspaces that are gone.
    #[test]
    fn what_is_gone_is_recognised() {
        let mut oracle = Oracle::default();
        for id in [1, 2] {
            let name = Slot(id as u8).keyspace_name();
            oracle
                .created(id, &name, &KeyspaceOptions::default())
                .unwrap();
            let put = Recorded::One {
                keyspace: id,
                key: Key(10 + id as u8).bytes(),
                effect: Effect::Put(value(id)),
                expiry: None,
            };
            oracle.commit(&[put], false, Outcome::Durable);
        }
        let texts: Vec<Vec<u8>> = [1, 2]
            .map(|id| {
                let name = Slot(id as u8).keyspace_name().into_bytes();
                [Key(10 + id as u8).bytes(), value(id), name]
            })
            .concat();
        let seen = |oracle: &Oracle, text: &Vec<u8>, domain: u32| {
            let watch = Watch::new(Algorithm::ChaCha20Poly1305, oracle, &Lost::default());
            let mut aad = [0; AAD_BYTES];
            aad[..4].copy_from_slice(&domain.to_le_bytes());
            watch.look_at(&aad, &[b"before", &text[..], b"behind"].concat());
            watch.seen.into_inner().unwrap().problem.is_some()
        };
        assert!(texts.iter().all(|text| !seen(&oracle, text, 0)));
        oracle.dropped(1);
        let found: Vec<bool> = texts.iter().map(|text| seen(&oracle, text, 0)).collect();
        assert_eq!(found, [true, true, true, false, false, false]);
        assert!(seen(&oracle, &Vec::new(), 1) && !seen(&oracle, &Vec::new(), 2));
    }
}
