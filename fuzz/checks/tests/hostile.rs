//! Inputs that claim more than they hold, and inputs made of the smallest parts there can be.
//!
//! A fuzzer finds the first by itself and never the second: what a parser takes beside its input only shows
//! against the free mebibyte when the input is large. Every check holds the parser to its bound, so here it is
//! enough to feed them.

#![expect(clippy::print_stdout, reason = "a test that fails says on what")]

use vault_core::batch::{OperationKind, encode_operation};
use vault_core::codec::{put_bytes, put_varint};
use vault_core::{KeyspaceId, KeyspaceOptions};
use vault_fuzz_checks::log::joined;
use vault_fuzz_checks::{memory, target};
use vault_lsm::fuzzing::{SEAL_BYTES, encode_options};

/// Bytes of a large input: sixteen times this is far above what is free.
const LARGE_BYTES: usize = 3 << 20;
/// Lengths and counts that nothing can hold.
const CLAIMS: [u64; 7] = [
    1 << 16,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 56,
    u64::MAX,
];

fn check(name: &str, input: &[u8]) {
    println!("{name}: {} bytes", input.len());
    (target(name).expect("a target of this name").check)(input);
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, value);
    out
}

/// As many copies of a part as make a large input, behind their number: just more than a power of two, where
/// whatever grows by doubling takes most.
fn counted(head: &[u8], part: &[u8]) -> (Vec<u8>, u64) {
    let count = (LARGE_BYTES / part.len()).next_power_of_two() as u64 + 1;
    let mut out = varint(count);
    out.extend_from_slice(head);
    (0..count).for_each(|_| out.extend_from_slice(part));
    (out, count)
}

/// A header with this kind, number 7 and a checksum that is mended by whoever reads it.
fn header(kind: u8) -> Vec<u8> {
    let mut header = vec![0; 128];
    header[..8].copy_from_slice(&[b'V', b'A', b'U', b'L', b'T', 0, kind, 0x1a]);
    header[8] = 1;
    header[32] = 7;
    header
}

/// A record around a payload; its checksums are mended by whoever reads it.
fn record(out: &mut Vec<u8>, ordinal: u32, payload: &[u8]) {
    out.extend_from_slice(&((payload.len() + SEAL_BYTES) as u32).to_le_bytes());
    out.extend_from_slice(&ordinal.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out.extend_from_slice(&[0; SEAL_BYTES]);
}

fn manifest_of(edits: &[u8]) -> Vec<u8> {
    let mut file = header(3);
    record(&mut file, 0, &[&[0; 4], edits].concat());
    [&[0], &(file.len() as u32).to_le_bytes()[..], &file].concat()
}

#[test]
fn claims_of_a_few_bytes_are_not_believed() {
    for claim in CLAIMS {
        let claim_bytes = varint(claim);
        let fixed = claim.to_le_bytes();
        // A length or a count at the front, in the middle, at the end, with little behind it.
        for behind in [&[][..], &[0; 3], &[1; 40]] {
            let front = [&claim_bytes, behind].concat();
            for name in [
                "batch",
                "record",
                "options",
                "edit",
                "properties",
                "tombstones",
                "footer",
            ] {
                for tag in 0..=12 {
                    check(name, &[&[tag], &front[..]].concat());
                    check(name, &[&[tag, 1], &front[..]].concat());
                    check(name, &[&[tag, 1, 1], &front[..]].concat());
                }
                check(name, &front);
            }
            let counts = (claim as u32).to_le_bytes();
            check("index", &[&fixed[..], &counts, &fixed, &front].concat());
            check("top_index", &[&fixed[..], &fixed, &front].concat());
            check("lz4", &[&counts[..], &front].concat());
            check(
                "block",
                &[
                    &fixed[..],
                    &counts,
                    &counts,
                    &counts,
                    &[2, 8, 0, 0],
                    &fixed,
                    behind,
                ]
                .concat(),
            );
            check("filter", &[&fixed[..], &[10], &front].concat());
            let framed = [&header(1)[..], &counts, &[0; 8], behind].concat();
            check("frame", &[&[0], &framed[..]].concat());
            let log = [&[0; 18], &joined(std::slice::from_ref(&framed))[..]].concat();
            check("log", &log);
            check(
                "manifest",
                &[&[0; 5], &header(3)[..], &counts, &[0; 8], behind].concat(),
            );
        }
    }
}

/// The lists of fences grew by doubling, those of trailers where nothing had one.
#[test]
fn an_index_of_the_smallest_entries_takes_little() {
    // Flags, no fence, no length: three bytes each, refused only when all have been read.
    let (bytes, count) = counted(&[0, 0, 0], &[0, 0, 0]);
    // The first part has no fence, so that one more is there than is counted.
    let input = [&[0; 8], &(count as u32).to_le_bytes()[..], &[0; 8], &bytes].concat();
    check("index", &input);
    // Fences in order, with trailers, as short as they can be: refused by nobody.
    let count = (LARGE_BYTES / 16).next_power_of_two() + 2;
    let mut bytes = varint(count as u64);
    bytes.extend_from_slice(&[0, 0, 0]);
    for number in 1..count as u32 {
        bytes.push(2);
        put_bytes(&mut bytes, &number.to_be_bytes()[1..]);
        bytes.extend_from_slice(&9_u64.to_le_bytes());
        bytes.push(0);
    }
    let data_bytes = (count * SEAL_BYTES) as u64;
    let input = [
        &[0; 8],
        &(count as u32).to_le_bytes()[..],
        &data_bytes.to_le_bytes(),
        &bytes,
    ]
    .concat();
    check("index", &input);
    let decoded = vault_lsm::fuzzing::IndexBlock::decode(&bytes, count as u64, data_bytes);
    assert_eq!(decoded.expect("a sound index").len(), count);
}

#[test]
fn a_top_level_index_of_the_smallest_entries_takes_little() {
    let (bytes, count) = counted(&[0, 0, 1, 1, 0], &[0, 0, 1, 1, 0]);
    // Far enough that every partition finds its byte: refused only when all have been read.
    let end = 128 + (count + 9) * (1 + 2 * SEAL_BYTES as u64);
    check(
        "top_index",
        &[&[0; 8], &end.to_le_bytes()[..], &bytes].concat(),
    );
}

#[test]
fn range_tombstones_of_the_smallest_size_take_little() {
    // Start of no byte, end of one, sequence of one: equal ones are in order.
    let (bytes, count) = counted(&[], &[0, 1, b'x', 1]);
    let decode = || vault_lsm::fuzzing::TombstoneBlock::decode(&bytes);
    let decoded = memory::bounded(bytes.len(), decode).expect("a sound block");
    assert_eq!(decoded.iter().count() as u64, count);
    // As many claimed as could be there, and the first is none.
    let (nothing, _) = counted(&[], &[0, 0, 0, 0]);
    check("tombstones", &nothing);
}

/// A keyspace without options stood for one with all of them: seven bytes became two hundred. And its name was
/// compared with that of every other keyspace, so that opening a store of many took the square of their number:
/// minutes for a manifest of a megabyte.
#[test]
fn a_manifest_of_the_smallest_edits_takes_little() {
    let mut keyspaces = Vec::new();
    let mut id = 1_u64;
    while keyspaces.len() < LARGE_BYTES / 2 {
        keyspaces.push(2);
        put_varint(&mut keyspaces, id);
        put_bytes(&mut keyspaces, format!("{id:x}").as_bytes());
        put_bytes(&mut keyspaces, &[]);
        id += 1;
    }
    check("manifest", &manifest_of(&keyspaces));

    let mut logs = Vec::new();
    for number in 1..(LARGE_BYTES / 4) as u64 {
        logs.push(8);
        put_varint(&mut logs, number);
    }
    check("manifest", &manifest_of(&logs));

    let mut tables = vec![2, 1];
    put_bytes(&mut tables, b"k");
    put_bytes(&mut tables, &encode_options(&KeyspaceOptions::default()));
    for number in 1..(LARGE_BYTES / 25) as u64 {
        tables.extend_from_slice(&[5, 1, 0, 0]);
        let mut meta = varint(number);
        // Eight bytes of length, one entry, bounds of no bytes.
        meta.extend_from_slice(&[0; 8]);
        meta.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]);
        put_bytes(&mut tables, &meta);
    }
    check("manifest", &manifest_of(&tables));
}

#[test]
fn a_log_of_the_smallest_records_takes_little() {
    let mut segment = header(1);
    record(&mut segment, 0, &[1, 0, 0, 0, 0]);
    let mut ordinal = 1;
    while segment.len() < LARGE_BYTES {
        record(&mut segment, ordinal, &[2, 0, 1, 0]);
        ordinal += 1;
    }
    check("frame", &[&[0], &segment[..]].concat());
    check("log", &[&[0; 18], &joined(&[segment])[..]].concat());
}

#[test]
fn a_batch_of_the_smallest_operations_takes_little() {
    let mut operations = Vec::new();
    while operations.len() < LARGE_BYTES / 4 {
        encode_operation(
            &mut operations,
            OperationKind::Delete,
            KeyspaceId(1),
            None,
            &[],
            None,
        );
    }
    check("batch", &operations);
    check(
        "record",
        &[&[2, 0, 1, 0xff, 0xff, 0x7f], &operations[..]].concat(),
    );
}

/// A block that claimed all that its index let it claim took that, and besides what was stored, which was read
/// into memory first. Found by the fuzzer of compressed blocks.
#[test]
fn a_block_that_decompresses_to_as_much_as_it_may_takes_no_more() {
    // One entry of one long value of zeros, of growing size: LZ4 stores it in a 250th.
    for plain_len in [1 << 12, 1 << 16, 1 << 20, 3 << 20, 40 << 20] {
        let mut plain = vec![0; plain_len];
        let value_len = (plain_len - 32) as u32;
        plain[..4].copy_from_slice(&1_u32.to_le_bytes());
        plain[4..8].copy_from_slice(&32_u32.to_le_bytes());
        plain[8..12].copy_from_slice(&value_len.to_le_bytes());
        let stored = lz4_flex::block::compress(&plain);
        for claimed in [
            plain_len as u32,
            plain_len as u32 + 1,
            plain_len as u32 - 1,
            0,
            u32::MAX,
        ] {
            check("lz4", &[&claimed.to_le_bytes()[..], &stored].concat());
        }
    }
    // Incompressible and large: the greatest claim that an index may make of it.
    let noise: Vec<u8> = (0..LARGE_BYTES as u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect();
    for times in [8, 12, 14, 15, 16] {
        for free in [0, 256 << 10, 512 << 10, 960 << 10, 1 << 20] {
            let claimed = (noise.len() * times + free) as u32;
            check("lz4", &[&claimed.to_le_bytes()[..], &noise].concat());
        }
    }
}
