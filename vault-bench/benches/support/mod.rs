//! All parts that are measured one by one: those of the engine, and the ciphers that are written in Rust. Those that bring
//! code of another language, and what a file's seal adds to its cipher, are measured by the benchmarks of `vault-crypto`.

use std::hint::black_box;

use vault_crypto::SecretKey;
use vault_crypto::cipher::{Provider, providers};
use vault_lsm::benching::{Part, Round, Work};

/// A record of the log, and a block of a table, each with how many operations are run at once.
const SEALED: [(usize, u64); 2] = [(140, 4_000), (4 << 10, 400)];
/// The providers whose code is compiled from Rust.
const RUST: &str = "rust";

/// Every part.
pub(crate) fn all() -> Vec<Part> {
    let mut parts = vault_lsm::benching::parts();
    for &provider in providers().iter().filter(|p| p.name() == RUST) {
        for (bytes, operations) in SEALED {
            let name = provider.algorithm().name();
            parts.push(seal(
                format!("seal/{name}-{bytes}"),
                provider,
                bytes,
                operations,
            ));
            parts.push(open(
                format!("open/{name}-{bytes}"),
                provider,
                bytes,
                operations,
            ));
        }
    }
    parts
}

/// Sealing under one nonce after the other. What is sealed does not matter to what it takes.
fn seal(name: String, provider: &'static dyn Provider, bytes: usize, operations: u64) -> Part {
    Part::new(name, operations, move |_| {
        let cipher = provider.key(&SecretKey::from_bytes(&mut [7; 32]));
        let mut buffer = vec![5; bytes];
        let mut ordinal = 0_u64;
        Round::over(
            vec![vec![3; provider.algorithm().bound_bytes()]],
            Work::Bytes(bytes as u64),
            move |aad| {
                ordinal += 1;
                let mut nonce = [0; 12];
                nonce[..8].copy_from_slice(&ordinal.to_le_bytes());
                let tag = cipher.seal(&nonce, aad, black_box(&mut buffer));
                black_box(tag.expect("no block is too long for a nonce"));
            },
        )
    })
}

/// Opening what was sealed. It is opened in place, so that the copy of it is part of the figure.
fn open(name: String, provider: &'static dyn Provider, bytes: usize, operations: u64) -> Part {
    Part::new(name, operations, move |_| {
        let cipher = provider.key(&SecretKey::from_bytes(&mut [7; 32]));
        let (nonce, aad) = ([1; 12], vec![3; provider.algorithm().bound_bytes()]);
        let mut sealed = vec![5; bytes];
        let tag = cipher
            .seal(&nonce, &aad, &mut sealed)
            .expect("no block is too long for a nonce");
        let mut buffer = sealed.clone();
        Round::over(vec![aad], Work::Bytes(bytes as u64), move |aad| {
            buffer.copy_from_slice(&sealed);
            let opened = cipher.open(&nonce, aad, black_box(&mut buffer), &tag);
            opened.expect("it was sealed with this key");
        })
    })
}
