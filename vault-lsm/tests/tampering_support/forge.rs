//! What somebody can do to a store's files who knows their format and none of its keys: take them apart, exchange their
//! parts, and mend every checksum that needs no key.

use std::ops::Range;
use std::path::Path;

use vault_core::transform::HEADER_BYTES;

/// Bytes of the frame around a record of log and manifest.
const FRAME_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;
const HEADER_CHECKSUM: usize = HEADER_BYTES - CHECKSUM_BYTES;
/// How much of a table one checksum of its trailer is of.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes at the end of a table's trailer that are always as many.
const TRAILER_FIXED_BYTES: usize = 28;

/// Where the fields of a header stand.
pub(crate) mod field {
    use std::ops::Range;

    pub(crate) const KIND: Range<usize> = 6..7;
    pub(crate) const TRANSFORM: Range<usize> = 10..12;
    pub(crate) const DOMAIN: Range<usize> = 12..16;
    pub(crate) const STORE: Range<usize> = 16..32;
    pub(crate) const NUMBER: Range<usize> = 32..40;
    pub(crate) const EPOCH: Range<usize> = 66..70;
}

/// A kind of file, as its checksums go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Log,
    Manifest,
    Table,
    Blob,
    Pointer,
    Keyring,
}

impl Kind {
    pub(crate) fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str());
        let extension = path.extension().and_then(|extension| extension.to_str());
        match (name, extension) {
            (_, Some("log")) => Self::Log,
            (_, Some("man")) => Self::Manifest,
            (_, Some("tab")) => Self::Table,
            (_, Some("blob")) => Self::Blob,
            (Some("CURRENT"), _) => Self::Pointer,
            (Some("KEYRING" | "KEYRING.copy"), _) => Self::Keyring,
            _ => panic!("{} is no file of a store", path.display()),
        }
    }

    pub(crate) const fn has_records(self) -> bool {
        matches!(self, Self::Log | Self::Manifest | Self::Blob)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..at + 4].first_chunk().expect("four bytes");
    u32::from_le_bytes(*word)
}

fn put(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

fn frame_checksum(header_checksum: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(header_checksum);
    hasher.update(bytes);
    hasher.finalize()
}

/// The records of a whole log segment, manifest or blob file: where the frame of each begins, and where its sealed bytes lie.
pub(crate) fn records(bytes: &[u8]) -> Vec<(usize, Range<usize>)> {
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    while bytes.len() >= at + FRAME_BYTES {
        let len = word(bytes, at) as usize;
        let sealed = at + FRAME_BYTES..at + FRAME_BYTES + len;
        if len == 0 || sealed.end > bytes.len() {
            break;
        }
        at = sealed.end;
        records.push((sealed.start - FRAME_BYTES, sealed));
    }
    records
}

/// A file of records: this header, and these sealed bytes in this order, everything around them made to fit.
pub(crate) fn file_of_records(header: &[u8], sealed: &[&[u8]], len: usize) -> Vec<u8> {
    let mut bytes = header[..HEADER_BYTES].to_vec();
    for (ordinal, sealed) in sealed.iter().enumerate() {
        bytes.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(ordinal as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
        bytes.extend_from_slice(sealed);
    }
    bytes.resize(bytes.len().max(len), 0);
    bytes
}

/// Mends every checksum of a file that needs no key. `records` are those of the file as it was, which change no length.
pub(crate) fn mend(kind: Kind, records: &[(usize, Range<usize>)], bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let header_checksum = crc32fast::hash(&bytes[..HEADER_CHECKSUM]);
    put(bytes, HEADER_CHECKSUM, header_checksum);
    match kind {
        Kind::Log | Kind::Manifest | Kind::Blob => {
            for (frame, sealed) in records {
                mend_record(header_checksum, *frame, sealed.clone(), bytes);
            }
        }
        Kind::Pointer => mend_end(bytes, HEADER_BYTES),
        // Of the whole file.
        Kind::Keyring => mend_end(bytes, 0),
        Kind::Table => mend_trailer(bytes),
    }
}

/// Mends a frame, and the checksum behind the sealed bytes: where they ended, and where the frame says that they end.
fn mend_record(header_checksum: u32, frame: usize, sealed: Range<usize>, bytes: &mut [u8]) {
    if bytes.len() < sealed.start {
        return;
    }
    let check = frame_checksum(header_checksum, &bytes[frame..frame + 8]);
    put(bytes, frame + 8, check);
    let claimed = sealed.start.saturating_add(word(bytes, frame) as usize);
    for end in [sealed.end, claimed] {
        if end <= bytes.len() && end >= sealed.start + CHECKSUM_BYTES {
            let of = sealed.start..end - CHECKSUM_BYTES;
            let check = crc32fast::hash(&bytes[of]);
            put(bytes, end - CHECKSUM_BYTES, check);
        }
    }
}

/// Mends a checksum at the end of everything from `start` on.
fn mend_end(bytes: &mut [u8], start: usize) {
    if let Some(at) = bytes.len().checked_sub(CHECKSUM_BYTES)
        && at >= start
    {
        let check = crc32fast::hash(&bytes[start..at]);
        put(bytes, at, check);
    }
}

/// Where the trailer of a table of this length begins; the file's end where there can be none.
pub(crate) fn trailer_start(len: usize) -> usize {
    let Some(with_sums) = len.checked_sub(TRAILER_FIXED_BYTES) else {
        return len;
    };
    let chunks = with_sums.div_ceil(CHUNK_BYTES + CHECKSUM_BYTES);
    with_sums
        .checked_sub(chunks * CHECKSUM_BYTES)
        .unwrap_or(len)
}

/// Sums up a table anew.
fn mend_trailer(bytes: &mut [u8]) {
    let start = trailer_start(bytes.len());
    if start == bytes.len() {
        return;
    }
    let (covered, trailer) = bytes.split_at_mut(start);
    for (chunk, place) in covered.chunks(CHUNK_BYTES).zip(trailer.chunks_exact_mut(4)) {
        place.copy_from_slice(&crc32fast::hash(chunk).to_le_bytes());
    }
    let at = trailer.len() - TRAILER_FIXED_BYTES + 16;
    let check = crc32fast::hash(&trailer[..at]);
    put(trailer, at, check);
}
