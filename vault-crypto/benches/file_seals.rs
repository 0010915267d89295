//! What a file's seal costs beside the cipher in it, for records of the log (140 bytes) and blocks (4 KiB), and what it
//! costs to open a keyring beside the derivation of its key, and to take up a file.
//!
//! `cargo bench -p vault-crypto --features ring --bench file_seals`

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be set up has nothing to be measured"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use support::{Place, STORE, Store, block, with_source};
use vault_core::random::SeededRandom;
use vault_core::transform::{BlockTransform, FileHeader, FileIdentity, FileKind, Protection};
use vault_crypto::cipher::provider;
use vault_crypto::source::RawKey;
use vault_crypto::{Algorithm, EncryptedProtection, SecretKey};

const SIZES: [usize; 2] = [140, 4 << 10];
/// A file seals no more blocks than this.
const ORDINALS: u64 = 1 << 32;

fn protection() -> EncryptedProtection {
    let key = SecretKey::from_bytes(&mut [9; 32]);
    with_source(Arc::new(RawKey::new(key)))
}

fn store(algorithm: Algorithm) -> (Place, Store) {
    let place = Place::new(1);
    let store = Store::of(protection().algorithm(algorithm), |p| {
        p.create(&place.get())
    });
    (place, store.unwrap())
}

/// A file that is written, and the same one read.
fn file(store: &Store, kind: FileKind) -> (Arc<dyn BlockTransform>, Arc<dyn BlockTransform>) {
    let identity = FileIdentity {
        store: STORE,
        kind,
        number: 1,
        domain: 0,
    };
    let random = SeededRandom::new(1);
    let (header, writing) = FileHeader::create(identity, 1, &*store.transform, &random).unwrap();
    let reading = store.open_file(&header).unwrap();
    (writing, reading)
}

fn seals(c: &mut Criterion) {
    for algorithm in Algorithm::ALL {
        let name = format!("{}/{}", algorithm.name(), provider(algorithm).name());
        let (_place, store) = store(algorithm);
        let cipher = provider(algorithm).key(&SecretKey::from_bytes(&mut [7; 32]));
        for size in SIZES {
            let mut group = c.benchmark_group(format!("{name}/{size}"));
            let aad = vec![3; algorithm.bound_bytes()];
            let mut buffer = vec![5; size];
            let mut ordinal = 0_u64;
            group.bench_function("seal/cipher", |b| {
                b.iter(|| {
                    ordinal += 1;
                    let mut nonce = [0; 12];
                    nonce[..8].copy_from_slice(&ordinal.to_le_bytes());
                    cipher.seal(&nonce, black_box(&aad), black_box(&mut buffer))
                });
            });
            for kind in [FileKind::Table, FileKind::Log] {
                let (mut writing, _) = file(&store, kind);
                let mut ordinal = 0;
                let mut buffer = Vec::with_capacity(2 * size);
                group.bench_function(BenchmarkId::new("seal", kind.name()), |b| {
                    b.iter(|| {
                        if ordinal == ORDINALS {
                            (writing, ordinal) = (file(&store, kind).0, 0);
                        }
                        // Whatever stood there: what is sealed does not matter to the time it takes.
                        buffer.resize(size, 5);
                        buffer.truncate(size);
                        writing
                            .seal(&block(ordinal), black_box(&mut buffer), 0)
                            .unwrap();
                        ordinal += 1;
                    });
                });
            }
            let tag = cipher.seal(&[0; 12], &aad, &mut buffer).unwrap();
            let sealed = buffer.clone();
            group.bench_function("open/cipher", |b| {
                b.iter(|| {
                    // Opened in place: the copy is part of the figure, here and below.
                    buffer.copy_from_slice(&sealed);
                    cipher
                        .open(&[0; 12], black_box(&aad), black_box(&mut buffer), &tag)
                        .unwrap();
                });
            });
            for kind in [FileKind::Table, FileKind::Log] {
                let (writing, reading) = file(&store, kind);
                let mut sealed = vec![5; size];
                writing.seal(&block(1), &mut sealed, 0).unwrap();
                let mut buffer = sealed.clone();
                group.bench_function(BenchmarkId::new("open", kind.name()), |b| {
                    b.iter(|| {
                        buffer.copy_from_slice(&sealed);
                        reading
                            .open(&block(1), black_box(&mut buffer))
                            .unwrap()
                            .len()
                    });
                });
            }
            group.finish();
        }
        c.bench_function(&format!("{name}/take up a file"), |b| {
            b.iter(|| file(&store, FileKind::Table));
        });
    }
}

fn keyrings(c: &mut Criterion) {
    for keyspaces in [1, 1000] {
        let (place, store) = store(Algorithm::ChaCha20Poly1305);
        for domain in 1..=keyspaces {
            store.keys().add_domain(domain).unwrap();
        }
        drop(store);
        c.bench_function(&format!("open a keyring of {keyspaces} keyspaces"), |b| {
            b.iter(|| Store::of(protection(), |p| p.open(&place.get())).unwrap());
        });
    }
}

criterion_group!(benches, seals, keyrings);
criterion_main!(benches);
