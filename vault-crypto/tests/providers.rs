//! Providers of one algorithm are interchangeable, and each of them refuses whatever is not exactly what was sealed.

use proptest::prelude::*;
use vault_crypto::SecretKey;
use vault_crypto::cipher::{Algorithm, Unauthentic, provider, providers};

/// Lengths around the ends of blocks, and those that a store has.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(any::<u8>(), 1000..9000),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What one seals any other opens, and both seal alike. Without the feature `ring` there is one provider of each algorithm, and
    /// this says that it opens what it seals.
    #[test]
    fn providers_of_an_algorithm_agree(
        key in any::<[u8; 32]>(),
        nonce in any::<[u8; 12]>(),
        aad in prop::collection::vec(any::<u8>(), 0..130),
        text in text(),
    ) {
        for algorithm in Algorithm::ALL {
            let mut sealed: Option<(Vec<u8>, [u8; 16])> = None;
            for provider in providers().iter().filter(|p| p.algorithm() == algorithm) {
                let cipher = provider.key(&SecretKey::from_bytes(&mut key.clone()));
                let mut buffer = text.clone();
                let tag = cipher.seal(&nonce, &aad, &mut buffer).unwrap();
                let (first, first_tag) = sealed.get_or_insert((buffer.clone(), tag));
                prop_assert_eq!((&buffer, &tag), (&*first, &*first_tag), "{:?}", provider);
                let mut opened = first.clone();
                prop_assert_eq!(cipher.open(&nonce, &aad, &mut opened, &tag), Ok(()));
                prop_assert_eq!(&opened, &text);
            }
        }
    }

    /// One bit anywhere, of key, nonce, associated data, text or tag, and it does not open.
    #[test]
    fn a_flipped_bit_is_refused(
        text in prop::collection::vec(any::<u8>(), 1..200),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let aad = [3_u8; 20];
        for provider in providers() {
            let mut sealed = text.clone();
            let cipher = provider.key(&SecretKey::from_bytes(&mut [7; 32]));
            let tag = cipher.seal(&[1; 12], &aad, &mut sealed).unwrap();
            // All that decides, in one: 32 bytes of key, 12 of nonce, 20 of associated data, 16 of tag, the text.
            let mut all = [&[7; 32][..], &[1; 12], &aad, &tag, &sealed].concat();
            let at = place.index(all.len());
            all[at] ^= 1 << bit;
            let (key, rest) = all.split_first_chunk::<32>().unwrap();
            let (nonce, rest) = rest.split_first_chunk::<12>().unwrap();
            let (aad, rest) = rest.split_first_chunk::<20>().unwrap();
            let (tag, sealed) = rest.split_first_chunk::<16>().unwrap();
            let mut buffer = sealed.to_vec();
            let cipher = provider.key(&SecretKey::from_bytes(&mut key.clone()));
            let opened = cipher.open(nonce, aad, &mut buffer, tag);
            prop_assert_eq!(opened, Err(Unauthentic), "byte {} with {:?}", at, provider);
        }
    }
}

/// A text that is cut, or has something added to it, or is sealed with the other algorithm.
#[test]
fn another_length_or_algorithm_is_refused() {
    for algorithm in Algorithm::ALL {
        let cipher = provider(algorithm).key(&SecretKey::from_bytes(&mut [7; 32]));
        let mut sealed = vec![5; 100];
        let tag = cipher.seal(&[1; 12], b"place", &mut sealed).unwrap();
        for length in [0, 1, 16, 99, 101, 116] {
            let mut other = sealed.clone();
            other.resize(length, 0);
            let opened = cipher.open(&[1; 12], b"place", &mut other, &tag);
            assert_eq!(opened, Err(Unauthentic), "{length} bytes");
        }
        for other in providers().iter().filter(|p| p.algorithm() != algorithm) {
            let cipher = other.key(&SecretKey::from_bytes(&mut [7; 32]));
            let opened = cipher.open(&[1; 12], b"place", &mut sealed.clone(), &tag);
            assert_eq!(opened, Err(Unauthentic), "{other:?}");
        }
    }
}

/// Blocks are sealed and opened from many threads with one cipher.
#[test]
fn one_cipher_serves_many_threads() {
    for provider in providers() {
        let cipher = provider.key(&SecretKey::from_bytes(&mut [7; 32]));
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let cipher = &cipher;
                scope.spawn(move || {
                    for round in 0..200_u8 {
                        let mut nonce = [0; 12];
                        nonce[..2].copy_from_slice(&[thread, round]);
                        let mut buffer = [round; 333];
                        let tag = cipher.seal(&nonce, &[thread], &mut buffer).unwrap();
                        cipher.open(&nonce, &[thread], &mut buffer, &tag).unwrap();
                        assert_eq!(buffer, [round; 333]);
                    }
                });
            }
        });
    }
}
