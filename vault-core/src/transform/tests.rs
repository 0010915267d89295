//! The checksum transform and file headers: what changes is noticed, and what is newer is named.

use std::path::Path;

use super::*;
use crate::error::Error;
use crate::random::SeededRandom;

fn identity() -> FileIdentity {
    FileIdentity {
        store: [7; 16],
        kind: FileKind::Table,
        number: 42,
        domain: 3,
    }
}

#[test]
fn headers_round_trip_and_any_flipped_byte_is_noticed() {
    let path = Path::new("000042.tab");
    let (header, _) =
        FileHeader::create(identity(), 1, &ChecksumTransform, &SeededRandom::new(1)).unwrap();
    let bytes = header.encode();
    assert_eq!(
        FileHeader::decode(path, &bytes, FileKind::Table, 1).unwrap(),
        header
    );
    for i in 0..bytes.len() {
        let mut damaged = bytes;
        damaged[i] ^= 0x40;
        assert!(
            FileHeader::decode(path, &damaged, FileKind::Table, 1).is_err(),
            "byte {i}"
        );
    }
    assert!(FileHeader::decode(path, &bytes[..127], FileKind::Table, 1).is_err());
    assert!(FileHeader::decode(path, &bytes, FileKind::Log, 1).is_err());
}

#[test]
fn a_newer_version_is_named() {
    let path = Path::new("000042.tab");
    let (header, _) =
        FileHeader::create(identity(), 9, &ChecksumTransform, &SeededRandom::new(1)).unwrap();
    let error = FileHeader::decode(path, &header.encode(), FileKind::Table, 1).unwrap_err();
    assert!(matches!(
        error,
        Error::NewerFormat {
            found: 9,
            supported: 1,
            ..
        }
    ));
}

#[test]
fn a_block_opens_only_in_its_place() {
    let header = |identity| FileHeader {
        identity,
        version: 1,
        transform: ChecksumTransform::ID,
        salt: [1; SALT_BYTES],
        parameters: [0; PARAMETER_BYTES],
    };
    let blocks = ChecksumTransform.open(&header(identity())).unwrap();
    let here = BlockIdentity {
        ordinal: 5,
        block_type: 1,
        codec: 0,
    };
    let mut sealed = b"..content".to_vec();
    blocks.seal(&here, &mut sealed, 2).unwrap();
    let sealed = &mut sealed[2..];
    assert_eq!(blocks.open(&here, sealed), Ok(&b"content"[..]));
    for elsewhere in [
        BlockIdentity { ordinal: 6, ..here },
        BlockIdentity {
            block_type: 2,
            ..here
        },
        BlockIdentity { codec: 1, ..here },
    ] {
        assert_eq!(blocks.open(&elsewhere, sealed), Err(Unopened::Damaged));
    }
    let other = FileIdentity {
        number: 43,
        ..identity()
    };
    let other = ChecksumTransform.open(&header(other)).unwrap();
    assert_eq!(other.open(&here, sealed), Err(Unopened::Damaged));
    sealed[0] ^= 1;
    assert_eq!(blocks.open(&here, sealed), Err(Unopened::Damaged));
    assert_eq!(blocks.open(&here, &mut []), Err(Unopened::Damaged));
}
