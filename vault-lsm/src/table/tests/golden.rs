//! The bytes of a tiny table, so that a change of the format is noticed.

use super::*;
use crate::internal_key::pack;

#[test]
fn the_format_has_not_changed() {
    let entries: Vec<Entry> = vec![
        (b"apple".to_vec(), pack(9, 1), b"red".to_vec()),
        (b"apple".to_vec(), pack(4, 1), b"green".to_vec()),
        (b"apricot".to_vec(), pack(5, 2), b"".to_vec()),
        (b"banana".to_vec(), pack(6, 1), b"yellow".repeat(20)),
    ];
    let bench = Bench::plain();
    let options = options(100, Compression::Lz4, FilterPolicy::default());
    let meta = bench.write(&options, &entries, &[tombstone(b"b", b"c", 7)]);
    bench.open(&meta).unwrap();
    let bytes = bench.bytes();
    let hex: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    assert_eq!(
        hex, GOLDEN,
        "a change of the format needs a new version: see docs/format/table.md"
    );
}

const GOLDEN: &[&str] = &[
    "5641554c5400021a010000000300000009090909090909090909090909090909",
    "2a00000000000000d70d3259e4e1cb631c663cf4d73c4c04022ab1ba804098e6",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000037e1114f",
    "030000003f00000000000000020200000104000000000000000000000200ffff",
    "030006000b006170706c65706c657269636f7400050000010103000800080072",
    "6564677265656e57c3d997a00100000026000000780001004008000106080002",
    "0200000b00cf62616e616e6179656c6c6f770600596079656c6c6f7784b73998",
    "0100000000000000000080000000000000000400004000400000000001000000",
    "0020200000000000001400101000400110041000000000000000000000000000",
    "06f8bb7c0802016200470100319e01f96044f001016201630727de14fe010004",
    "028001410af2947a312ad70d3259e4e1cb631c663cf4d73c4c04022ab1ba8040",
    "98e6e9010000000000000401019701056170706c6501630104090080d095ffbc",
    "3116fe53f5060000000000000008000000000000003800000000000000e90100",
    "0000000000080000000000000004000000000000000100000000000000766c74",
    "7461626c65a521de42",
];
