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
    let bytes = bench.fs.bytes(&path());
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
    "726564677265656e030006000b006170706c65706c657269636f740000000002",
    "00ffff0300080008000005000001010300000008000000000000000202000001",
    "04000000000000631afe236f79656c6c6f7706005ff30462616e616e61000000",
    "000600000001000000780400c0000008000106000000000000aac4db97010000",
    "0000000000000080000000000000000400004000400000000001000000002020",
    "000000000000140010100040011004100000000000000000000000000006f8bb",
    "7c08020162004701002e9e01b4843ee701016201630727de14fe010004027d41",
    "0a819993e32acd010000000000000401019701056170706c6501630104090080",
    "d095ffbc3158ec283e0600000000000000070000000000000020000000000000",
    "00cd010000000000000800000000000000040000000000000001000000000000",
    "00766c747461626c65b927a147",
];
