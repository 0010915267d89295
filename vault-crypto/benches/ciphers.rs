//! What sealing and opening cost, for each provider that is built in, at the sizes that a store has: records of the log
//! (140 bytes), blocks (1 to 4 KiB), and what is large; and what it costs to prepare a key and to wipe it.
//!
//! `cargo bench -p vault-crypto --features ring`

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vault_crypto::SecretKey;
use vault_crypto::cipher::providers;

const SIZES: [usize; 5] = [64, 140, 1 << 10, 4 << 10, 64 << 10];

/// As long as what the engine binds to a block.
const AAD_BYTES: usize = 16;

fn ciphers(c: &mut Criterion) {
    for provider in providers() {
        let name = format!("{}/{}", provider.algorithm().name(), provider.name());
        let key = SecretKey::from_bytes(&mut [7; 32]);
        let cipher = provider.key(&key);
        let aad = [3; AAD_BYTES];
        let mut group = c.benchmark_group(format!("seal/{name}"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            let mut buffer = vec![5; size];
            let mut ordinal = 0_u64;
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    ordinal += 1;
                    let mut nonce = [0; 12];
                    nonce[..8].copy_from_slice(&ordinal.to_le_bytes());
                    cipher.seal(&nonce, black_box(&aad), black_box(&mut buffer))
                });
            });
        }
        group.finish();
        let mut group = c.benchmark_group(format!("open/{name}"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            let mut sealed = vec![5; size];
            let nonce = [1; 12];
            let tag = cipher.seal(&nonce, &aad, &mut sealed).unwrap();
            let mut buffer = sealed.clone();
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    // Opened in place: the copy, some nanoseconds a kibibyte, is part of the figure.
                    buffer.copy_from_slice(&sealed);
                    cipher
                        .open(&nonce, black_box(&aad), black_box(&mut buffer), &tag)
                        .unwrap();
                });
            });
        }
        group.finish();
        c.bench_function(&format!("key/{name}"), |b| {
            b.iter(|| provider.key(black_box(&key)));
        });
    }
}

criterion_group!(benches, ciphers);
criterion_main!(benches);
