//! The end of a table that is sealed under keys: checksums of the file as it lies there, in the clear.
//!
//! Whoever has no key (a scrubber, a backup) can tell by them that no accident happened to the file. They are
//! never authority: a reader does not look at them, and finds the footer before them by the length of the
//! file alone ([`sealed_end`]), which the manifest and the footer itself vouch for. Tables that carry plain
//! checksums have none. Bytes: `docs/format/table.md`.

use vault_core::transform::ChecksumTransform;
use vault_core::vfs::{File, read_exact_at};

/// How much of the file one checksum is of. A constant of the format.
pub(crate) const CHUNK_BYTES: u64 = 64 << 10;
/// Bytes of the part that is always as long, at the very end.
pub(crate) const FIXED_BYTES: usize = 28;
const SUM_BYTES: u64 = 4;
const MAGIC: [u8; 8] = *b"vltcrc32";

/// Where the sealed part of a table ends, and its trailer, if it has one, begins. `None` where no table
/// that this transform sealed is so long.
pub(crate) fn sealed_end(transform: u16, file_bytes: u64) -> Option<u64> {
    if has_trailer(transform) {
        covered_by(file_bytes)
    } else {
        Some(file_bytes)
    }
}

/// Whether tables that this transform sealed end in a trailer.
pub(crate) const fn has_trailer(transform: u16) -> bool {
    transform != ChecksumTransform::ID
}

/// Length of the trailer behind `covered` bytes.
pub(super) const fn trailer_bytes(covered: u64) -> u64 {
    covered.div_ceil(CHUNK_BYTES) * SUM_BYTES + FIXED_BYTES as u64
}

/// How many bytes stand before the trailer in a file of this length.
///
/// A file with n checksums is longer than all with fewer, so its length alone gives their number; between
/// the longest with n and the shortest with n + 1 there is a gap of lengths that no file has.
fn covered_by(file_bytes: u64) -> Option<u64> {
    let with_sums = file_bytes.checked_sub(FIXED_BYTES as u64)?;
    let chunks = with_sums.div_ceil(CHUNK_BYTES + SUM_BYTES);
    let covered = with_sums.checked_sub(chunks * SUM_BYTES)?;
    (covered > 0 && covered.div_ceil(CHUNK_BYTES) == chunks).then_some(covered)
}

/// Sums up a file while it is written.
#[derive(Default)]
pub(super) struct Summing {
    sums: Vec<u8>,
    hasher: crc32fast::Hasher,
    covered: u64,
}

impl Summing {
    /// Takes the bytes that come next.
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.covered % CHUNK_BYTES;
            let taken = bytes.len().min(room as usize);
            let (chunk, rest) = bytes.split_at(taken);
            self.hasher.update(chunk);
            self.covered += taken as u64;
            bytes = rest;
            if self.covered.is_multiple_of(CHUNK_BYTES) {
                self.end_chunk();
            }
        }
    }

    fn end_chunk(&mut self) {
        let sum = std::mem::take(&mut self.hasher).finalize();
        self.sums.extend_from_slice(&sum.to_le_bytes());
    }

    /// Appends the trailer to `out`.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        if !self.covered.is_multiple_of(CHUNK_BYTES) {
            self.end_chunk();
        }
        let start = out.len();
        let chunks = (self.sums.len() as u64 / SUM_BYTES) as u32;
        out.extend_from_slice(&self.sums);
        out.extend_from_slice(&self.covered.to_le_bytes());
        out.extend_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&chunks.to_le_bytes());
        let checksum = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        debug_assert_eq!((out.len() - start) as u64, trailer_bytes(self.covered));
    }

    pub(super) const fn memory_bytes(&self) -> usize {
        self.sums.capacity()
    }
}

/// What is wrong with a file, held against its trailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TrailerFault {
    /// The file does not end in a trailer: it is cut short, or was never finished.
    Absent,
    /// The trailer is not what was written.
    Trailer {
        /// What is wrong with it.
        problem: String,
    },
    /// Bytes of the file are not what was written.
    Chunk {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Their checksum, as the trailer has it.
        stored: u32,
        /// Their checksum.
        found: u32,
    },
    /// The operating system could not read there.
    Unreadable {
        /// Where.
        offset: u64,
        /// What it said.
        problem: String,
    },
}

/// Holds a whole file against its trailer, and passes on how many bytes were read, piece by piece. An error is
/// that of `progress`.
///
/// What the trailer says of its own length is compared and never believed: everything that is read or allocated
/// follows from the length of the file.
pub(crate) fn check<E>(
    file: &dyn File,
    file_bytes: u64,
    progress: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Vec<TrailerFault>, E> {
    let (covered, sums) = match read(file, file_bytes) {
        Ok(read) => read,
        Err(fault) => return Ok(vec![fault]),
    };
    progress(trailer_bytes(covered))?;
    let mut faults = Vec::new();
    let mut buffer = vec![0; CHUNK_BYTES.min(covered) as usize];
    for (number, sum) in sums.chunks_exact(SUM_BYTES as usize).enumerate() {
        let offset = number as u64 * CHUNK_BYTES;
        let bytes = CHUNK_BYTES.min(covered - offset);
        let chunk = &mut buffer[..bytes as usize];
        let stored = u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]);
        match read_exact_at(file, chunk, offset) {
            Ok(()) => {
                let found = crc32fast::hash(chunk);
                if found != stored {
                    faults.push(TrailerFault::Chunk {
                        offset,
                        bytes,
                        stored,
                        found,
                    });
                }
            }
            Err(e) => faults.push(TrailerFault::Unreadable {
                offset,
                problem: e.to_string(),
            }),
        }
        progress(bytes)?;
    }
    Ok(faults)
}

/// Reads the trailer of a file of this length: how much it covers, and the checksums.
fn read(file: &dyn File, file_bytes: u64) -> Result<(u64, Vec<u8>), TrailerFault> {
    let unreadable = |offset| {
        move |e: std::io::Error| TrailerFault::Unreadable {
            offset,
            problem: e.to_string(),
        }
    };
    let fixed_at = file_bytes
        .checked_sub(FIXED_BYTES as u64)
        .ok_or(TrailerFault::Absent)?;
    let mut fixed = [0; FIXED_BYTES];
    read_exact_at(file, &mut fixed, fixed_at).map_err(unreadable(fixed_at))?;
    let magic = fixed[20..] == MAGIC;
    let Some(covered) = covered_by(file_bytes) else {
        return Err(TrailerFault::Absent);
    };
    let mut trailer = vec![0; trailer_bytes(covered) as usize];
    read_exact_at(file, &mut trailer, covered).map_err(unreadable(covered))?;
    let sums_len = trailer.len() - FIXED_BYTES;
    let summed = sums_len + 16;
    let word =
        |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let sound = crc32fast::hash(&trailer[..summed]) == word(16);
    let wrong = |problem: String| Err(TrailerFault::Trailer { problem });
    match (magic, sound) {
        (true, true) => {}
        (false, false) => return Err(TrailerFault::Absent),
        (false, true) => return wrong("the mark at its end is not that of a trailer".to_owned()),
        (true, false) => return wrong("its own checksum does not match it".to_owned()),
    }
    let stated = u64::from(word(0)) | u64::from(word(4)) << 32;
    let (chunk, chunks) = (u64::from(word(8)), u64::from(word(12)));
    if (stated, chunk, chunks) != (covered, CHUNK_BYTES, sums_len as u64 / SUM_BYTES) {
        return wrong(format!(
            "it says that it covers {stated} bytes in {chunks} chunks of {chunk}"
        ));
    }
    trailer.truncate(sums_len);
    Ok((covered, trailer))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::path::Path;

    use vault_core::vfs::{FileSystem, MemoryFileSystem};

    use super::*;

    fn with_trailer(content: &[u8], pieces: usize) -> Vec<u8> {
        let mut summing = Summing::default();
        content.chunks(pieces).for_each(|piece| summing.add(piece));
        let mut bytes = content.to_vec();
        summing.finish(&mut bytes);
        bytes
    }

    fn faults(bytes: &[u8]) -> Vec<TrailerFault> {
        let fs = MemoryFileSystem::new();
        fs.write_file("/file", bytes).unwrap();
        let file = fs.open(Path::new("/file")).unwrap();
        let mut read = 0;
        let mut progress = |bytes| {
            read += bytes;
            Ok::<_, Infallible>(())
        };
        let faults = check(&*file, bytes.len() as u64, &mut progress).unwrap();
        if faults.is_empty() {
            assert_eq!(read, bytes.len() as u64);
        }
        faults
    }

    fn content(bytes: u64) -> Vec<u8> {
        (0..bytes).map(|n| (n * 7 / 3) as u8).collect()
    }

    #[test]
    fn the_length_of_a_file_tells_where_its_trailer_begins() {
        let around = |n: u64| n.saturating_sub(12)..=n + 12;
        let lengths = (1..300)
            .chain(around(CHUNK_BYTES))
            .chain(around(2 * CHUNK_BYTES))
            .chain(around(1 << 40));
        let mut before = 0;
        for covered in lengths {
            let file_bytes = covered + trailer_bytes(covered);
            assert_eq!(sealed_end(1, file_bytes), Some(covered));
            assert_eq!(sealed_end(ChecksumTransform::ID, covered), Some(covered));
            for gap in before + 1..file_bytes.min(before + 6) {
                let end = sealed_end(1, gap);
                assert!(
                    end.is_none_or(|end| end + trailer_bytes(end) == gap),
                    "{gap}"
                );
            }
            before = file_bytes;
        }
        for no_file in [0, 1, FIXED_BYTES as u64, FIXED_BYTES as u64 + 4] {
            assert_eq!(sealed_end(1, no_file), None, "{no_file}");
        }
        assert!(sealed_end(1, u64::MAX).is_none_or(|end| end < u64::MAX));
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_a_file_is_written() {
        for bytes in [
            1,
            100,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            3 * CHUNK_BYTES + 5,
        ] {
            let content = content(bytes);
            let whole = with_trailer(&content, content.len());
            assert_eq!(faults(&whole), []);
            assert_eq!(whole.len() as u64, bytes + trailer_bytes(bytes));
            for pieces in [1, 1000, 65_536, 100_000] {
                assert!(with_trailer(&content, pieces) == whole);
            }
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let content = content(CHUNK_BYTES + 300);
        let whole = with_trailer(&content, 999);
        let ends = (0..600).chain(CHUNK_BYTES as usize - 4..whole.len());
        for at in ends {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            let found = faults(&damaged);
            let chunk = (at as u64) / CHUNK_BYTES * CHUNK_BYTES;
            match &found[..] {
                [TrailerFault::Chunk { offset, .. }] => {
                    assert!(at < content.len() && *offset == chunk, "byte {at}");
                }
                [TrailerFault::Trailer { .. }] => assert!(at >= content.len(), "byte {at}"),
                other => panic!("byte {at}: {other:?}"),
            }
            assert!(!faults(&whole[..at]).is_empty(), "cut at {at}");
        }
    }

    /// What a trailer says of its own length decides nothing.
    #[test]
    fn a_trailer_that_lies_about_its_lengths_is_refused_and_not_believed() {
        let whole = with_trailer(&content(500), 500);
        let at = whole.len() - FIXED_BYTES;
        for (field, lie) in [
            (0, u64::MAX),
            (0, 0),
            (0, 499),
            (8, u64::from(u32::MAX)),
            (8, 0),
        ] {
            let mut lying = whole.clone();
            lying[at + field..at + field + 8].copy_from_slice(&lie.to_le_bytes());
            let summed = &lying[500..at + 16];
            let checksum = crc32fast::hash(summed);
            lying[at + 16..at + 20].copy_from_slice(&checksum.to_le_bytes());
            let found = faults(&lying);
            assert!(
                matches!(&found[..], [TrailerFault::Trailer { .. }]),
                "{found:?}"
            );
        }
    }
}
