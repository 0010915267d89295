//! Files of framed records, judged without a key.
//!
//! A frame checks by itself, and a sealed payload of an encrypted store ends in its own CRC-32: so it can be told whether
//! a record is what was written. What cannot be told is whether it counts. With keys a torn tail is known from damage
//! by what later records and the pointer say of how far the file was durable; here only the bytes are left to
//! judge by:
//!
//! - A piece that never reached the medium, or was never copied into the file, reads as zeros. What is sealed holds no run of
//!   zeros to speak of. So a broken record without such a run was whole once: it is **damaged**.
//! - Zeros from somewhere in a record to the end of the file are what a writer leaves that was killed, or lost power, while
//!   it wrote: **torn**. Nothing relied on it, unless somebody put the zeros there.
//! - A run of zeros with more behind it may be a piece that the power took with it before it was synced, or one that a
//!   medium has lost since: **unclear**.

use vault_core::transform::HEADER_BYTES;

use crate::frame::{FRAME_BYTES, decode};

/// Bytes of the checksum that a sealed payload ends in.
const CHECKSUM_BYTES: usize = 4;
/// So many zeros in what is sealed are no accident: they come once in four billion bytes.
pub(super) const ZEROS_MIN: usize = 4;
/// Media lose and keep what was not synced in pieces of so many bytes.
const SECTOR_BYTES: usize = 512;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was whole once.
    Damaged,
    /// It was never whole, as it seems, and is the last one.
    Torn,
    /// It was never whole, or a piece of it was lost.
    Unclear,
    /// The file ends before it does.
    CutShort,
    /// It is whole, and belongs elsewhere in the file.
    Misplaced,
}

/// A record that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) fault: Fault,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Records that are what was written.
    pub(super) records: u64,
    pub(super) broken: Vec<Broken>,
}

/// Whether the sealed bytes are those that were written: a block of an encrypted store in a file that is no table.
pub(super) fn is_sound(sealed: &[u8]) -> bool {
    match sealed.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((before, stored)) if !before.is_empty() => {
            crc32fast::hash(before) == u32::from_le_bytes(*stored)
        }
        _ => false,
    }
}

/// Whether there is a run of so many zeros.
pub(super) fn has_zeros(bytes: &[u8], run: usize) -> bool {
    let mut zeros = 0;
    bytes.iter().any(|&byte| {
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        zeros >= run
    })
}

/// Walks over the records of a file, which `bytes` holds whole.
pub(super) fn walk(bytes: &[u8], header_checksum: u32) -> Walked {
    let mut walk = Walk {
        bytes,
        header_checksum,
        used: HEADER_BYTES.max(
            bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |at| at + 1),
        ),
        offset: HEADER_BYTES,
        ordinal: 0,
        walked: Walked::default(),
    };
    while walk.offset < walk.used {
        walk.step();
    }
    walk.walked
}

struct Walk<'a> {
    bytes: &'a [u8],
    header_checksum: u32,
    /// Behind it there are only zeros.
    used: usize,
    offset: usize,
    ordinal: u32,
    walked: Walked,
}

impl Walk<'_> {
    /// Deals with what stands at the current place, and moves behind it.
    fn step(&mut self) {
        let offset = self.offset;
        let Some((ordinal, len)) = decode(self.header_checksum, &self.bytes[offset..]) else {
            return self.without_frame();
        };
        let start = offset + FRAME_BYTES;
        let end = start.saturating_add(len);
        let misplaced = ordinal != self.ordinal;
        self.ordinal = ordinal.saturating_add(1);
        let Some(sealed) = self.bytes.get(start..end) else {
            let bytes = self.bytes.len() - offset;
            return self.note(Fault::CutShort, bytes, self.bytes.len());
        };
        match (is_sound(sealed), misplaced) {
            (true, false) => {
                self.walked.records += 1;
                self.offset = end;
            }
            (true, true) => self.note(Fault::Misplaced, end - offset, end),
            (false, _) => {
                let fault = self.judge(start, end);
                self.note(fault, end - offset, end);
            }
        }
    }

    fn note(&mut self, fault: Fault, bytes: usize, next: usize) {
        let offset = self.offset;
        self.walked.broken.push(Broken {
            fault,
            offset,
            bytes,
        });
        self.offset = next;
    }

    /// A frame that does not check: how long its record is cannot be known.
    fn without_frame(&mut self) {
        let offset = self.offset;
        let next = self.find_behind();
        let end = next.map_or(self.used, |(at, _)| at);
        if self.bytes.len() - offset < FRAME_BYTES {
            return self.note(Fault::CutShort, end - offset, self.bytes.len());
        }
        // What holds less than a frame and has nothing behind it was cut off while the frame was written.
        let fault = if next.is_none() && end - offset <= FRAME_BYTES && self.zeros_follow(end) {
            Fault::Torn
        } else if self.begins_with_a_lost_sector() {
            Fault::Unclear
        } else {
            // Length and ordinal are small numbers: their zeros say nothing.
            self.judge((offset + 8).min(end), end)
        };
        if let Some((_, ordinal)) = next {
            self.ordinal = ordinal;
        }
        // With nothing to hold it against, a record without a frame is not called torn.
        let fault = match fault {
            Fault::Torn if end - offset > FRAME_BYTES => Fault::Unclear,
            fault => fault,
        };
        self.note(
            fault,
            end - offset,
            next.map_or(self.bytes.len(), |(at, _)| at),
        );
    }

    /// Judges by its zeros what should be sealed bytes.
    fn judge(&self, start: usize, end: usize) -> Fault {
        let sealed = &self.bytes[start..end];
        let filled = sealed
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1);
        let at_the_end = sealed.len() - filled;
        let run = |bytes: &[u8]| bytes == [0; ZEROS_MIN];
        if end >= self.used && at_the_end >= ZEROS_MIN {
            // Behind it, too, there are only zeros.
            Fault::Torn
        } else if (at_the_end > 0 && self.sector_ends_empty(end))
            || sealed.windows(ZEROS_MIN).any(run)
        {
            Fault::Unclear
        } else {
            Fault::Damaged
        }
    }

    /// Whether nothing stands behind `end` in its sector: what was lost with a sector's end, was lost to that end.
    fn sector_ends_empty(&self, end: usize) -> bool {
        let sector_end = end.next_multiple_of(SECTOR_BYTES).min(self.bytes.len());
        self.bytes[end..sector_end].iter().all(|&byte| byte == 0)
    }

    /// Whether there are zeros from `end` on, at least to the end of its sector.
    fn zeros_follow(&self, end: usize) -> bool {
        end < self.bytes.len() && end >= self.used
    }

    /// Whether a record begins right before the end of a sector, and that end is all zeros: a run that is too short to
    /// be told otherwise.
    fn begins_with_a_lost_sector(&self) -> bool {
        let sector_end = (self.offset + 1).next_multiple_of(SECTOR_BYTES);
        let piece = self.bytes.get(self.offset..sector_end);
        piece.is_some_and(|piece| {
            piece.len() <= FRAME_BYTES + ZEROS_MIN && piece.iter().all(|&byte| byte == 0)
        })
    }

    /// Looks for a whole record behind a frame that does not check; gives where, and its ordinal.
    fn find_behind(&self) -> Option<(usize, u32)> {
        let mut at = self.offset + 1;
        while at + FRAME_BYTES <= self.used {
            if self.bytes[at..at + FRAME_BYTES] == [0; FRAME_BYTES] {
                at += FRAME_BYTES - 1;
                continue;
            }
            if let Some((ordinal, len)) = decode(self.header_checksum, &self.bytes[at..])
                && ordinal >= self.ordinal
            {
                let start = at + FRAME_BYTES;
                let sealed = self.bytes.get(start..start.saturating_add(len));
                if sealed.is_some_and(is_sound) {
                    return Some((at, ordinal));
                }
            }
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use vault_core::random::SeededRandom;

    use super::*;
    use crate::frame::encode;

    const CHECKSUM: u32 = 0x1234_5678;

    /// A file of records of these lengths, with zeros behind them. Gives where each begins, and the end.
    fn file(lengths: &[usize], zeros: usize) -> (Vec<u8>, Vec<usize>) {
        let random = SeededRandom::new(5);
        let mut bytes = vec![7; HEADER_BYTES];
        let mut starts = Vec::new();
        for (ordinal, &len) in lengths.iter().enumerate() {
            starts.push(bytes.len());
            // Without zeros, so that each case is what it says.
            let sealed: Vec<u8> = (0..len).map(|_| random.below(255) as u8 + 1).collect();
            let checksum = crc32fast::hash(&sealed).to_le_bytes();
            let frame = encode(CHECKSUM, ordinal as u32, len as u32 + 4);
            bytes.extend([&frame[..], &sealed, &checksum].concat());
        }
        starts.push(bytes.len());
        bytes.resize(bytes.len() + zeros, 0);
        (bytes, starts)
    }

    fn faults(bytes: &[u8]) -> Vec<(usize, Fault)> {
        let walked = walk(bytes, CHECKSUM);
        let faults = walked.broken.iter();
        faults.map(|broken| (broken.offset, broken.fault)).collect()
    }

    #[test]
    fn sound_files_have_no_faults() {
        for zeros in [0, 1, 600] {
            let (bytes, _) = file(&[40, 1, 2000, 17], zeros);
            let walked = walk(&bytes, CHECKSUM);
            assert_eq!((walked.records, walked.broken.len()), (4, 0));
        }
        assert_eq!(walk(&[7; HEADER_BYTES], CHECKSUM).records, 0);
        assert!(faults(&[7; HEADER_BYTES]).is_empty());
    }

    #[test]
    fn every_flipped_byte_of_a_record_is_damage_in_its_place() {
        for zeros in [0, 700] {
            let (bytes, starts) = file(&[40, 300, 90], zeros);
            for at in HEADER_BYTES..starts[3] {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x40;
                let record = starts.iter().rposition(|&start| start <= at).unwrap();
                let found = faults(&damaged);
                let expected = (starts[record], Fault::Damaged);
                // A byte that turns to zero, or the frame of the last record, leaves a doubt.
                let doubt = (starts[record], Fault::Unclear);
                assert!(
                    found == [expected] || found == [doubt],
                    "byte {at}: {found:?}"
                );
                let sure = damaged[at] != 0 && (record < 2 || zeros == 0);
                assert!(!sure || found == [expected], "byte {at}: {found:?}");
            }
        }
    }

    #[test]
    fn what_a_killed_writer_leaves_is_torn() {
        let (bytes, starts) = file(&[40, 300], 900);
        for copied in 1..300 {
            let mut torn = bytes.clone();
            torn[starts[1] + copied..].fill(0);
            assert_eq!(faults(&torn), [(starts[1], Fault::Torn)], "{copied} bytes");
        }
        let mut nothing = bytes;
        nothing[starts[1]..].fill(0);
        assert!(faults(&nothing).is_empty());
    }

    #[test]
    fn what_a_loss_of_power_leaves_is_never_called_damage() {
        let lengths: Vec<usize> = (0..40).map(|n| 20 + n * 13 % 90).collect();
        let (bytes, _) = file(&lengths, 600);
        let sectors = bytes.len() / SECTOR_BYTES;
        for lost in 1_u64..(1 << (sectors - 1)) {
            let mut torn = bytes.clone();
            for sector in (1..sectors).filter(|sector| lost >> (sector - 1) & 1 == 1) {
                torn[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
            }
            let found = faults(&torn);
            let damage = |fault: &&(usize, Fault)| !matches!(fault.1, Fault::Torn | Fault::Unclear);
            assert_eq!(found.iter().find(damage), None, "sectors {lost:b}");
        }
    }

    #[test]
    fn a_record_that_the_file_ends_in_is_cut_short() {
        let (bytes, starts) = file(&[40, 300], 0);
        for len in starts[1] + FRAME_BYTES..bytes.len() {
            assert_eq!(
                faults(&bytes[..len]),
                [(starts[1], Fault::CutShort)],
                "{len} bytes"
            );
        }
        for len in starts[1] + 1..starts[1] + FRAME_BYTES {
            assert_eq!(faults(&bytes[..len]).len(), 1, "{len} bytes");
        }
        // The end of a record is the end of a file that was written no further.
        assert!(faults(&bytes[..starts[1]]).is_empty());
    }

    #[test]
    fn a_record_in_the_place_of_another_is_told() {
        let (bytes, starts) = file(&[40, 40, 40], 0);
        let mut moved = bytes.clone();
        moved[starts[0]..starts[1]].copy_from_slice(&bytes[starts[1]..starts[2]]);
        let found = faults(&moved);
        assert_eq!(
            found,
            [(starts[0], Fault::Misplaced), (starts[1], Fault::Misplaced)]
        );
    }
}
