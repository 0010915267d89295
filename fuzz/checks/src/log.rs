//! Whole segments of the log, as recovery reads them.
//!
//! Sequence numbers only go up; the log ends within its last segment; nothing is read twice. A log of which
//! somebody says where it ended is never cut in silence.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::{LogFiles, Seals};

use crate::{assert_blames_the_file, memory};

/// Segments, and what the pointer says of their end.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Whether a writer may be appending.
    pub live: bool,
    /// Whether the store was closed cleanly,
    pub closed: bool,
    /// and if so, in which segment the log ends, and where.
    pub end: (u64, u64),
    /// The segments: each is as long as the four bytes before it say, or as there are bytes left.
    pub segments: &'a [u8],
}

impl Input<'_> {
    fn clean_end(&self) -> Option<(u64, u64)> {
        (self.closed && self.end.0 != 0).then_some(self.end)
    }
}

/// More would only be slower.
const SEGMENTS_MAX: usize = 4;

/// Takes apart what [`joined`] put together.
#[must_use]
pub fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        if parts.len() == SEGMENTS_MAX {
            break;
        }
        let len = (u32::from_le_bytes(*len) as usize).min(rest.len());
        let (part, behind) = rest.split_at(len);
        parts.push(part);
        bytes = behind;
    }
    parts
}

/// Puts files behind each other, each behind its length.
#[must_use]
pub fn joined(files: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for file in files {
        out.extend_from_slice(&(file.len() as u32).to_le_bytes());
        out.extend_from_slice(file);
    }
    out
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = parts(self.segments);
        let lens: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let mut described = f.debug_struct("Log");
        described
            .field("live", &self.live)
            .field("clean_end", &self.clean_end())
            .field("segments_of_bytes", &lens);
        for seals in [Seals::Kept, Seals::Mended] {
            let read = LogFiles::new(&parts, seals).read(self.clean_end(), self.live);
            described.field(
                if seals == Seals::Kept {
                    "kept"
                } else {
                    "mended"
                },
                &read,
            );
        }
        described.finish()
    }
}

/// Reads them as they are, and with their checksums mended.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let parts = parts(input.segments);
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    for seals in [Seals::Kept, Seals::Mended] {
        let files = LogFiles::new(&parts, seals);
        let read = memory::bounded(bytes, || files.read(input.clean_end(), input.live));
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                assert_blames_the_file(&error);
                continue;
            }
        };
        assert!(read.ascending, "sequence numbers went down: {read:?}");
        assert!(read.used.is_sorted_by(|a, b| a < b), "{read:?}");
        assert!(read.operation_bytes <= bytes as u64);
        for number in read.used.iter().chain(&read.unused) {
            assert!(read.segments.contains(number), "{read:?}");
        }
        assert!(
            !read.used.iter().any(|number| read.unused.contains(number)),
            "{read:?}"
        );
        assert_eq!(
            read.end.0,
            read.used.last().copied().unwrap_or_default(),
            "{read:?}"
        );
        if let (Some(_), false) = (input.clean_end(), input.live) {
            assert_eq!(read.torn_bytes, 0, "cut in silence: {read:?}");
        }
    }
}
