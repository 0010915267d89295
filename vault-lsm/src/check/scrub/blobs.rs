//! A blob file of an encrypted store, looked at without a key.
//!
//! Such a file is whole before anything relies on it, and nothing is ever added. So what is wrong with it is damage, unless it looks
//! like what a writer leaves that was killed or lost power: the file ends too early, or has zeros in it, of which sealed bytes
//! hold no runs. That nobody can tell from damage without the keys.

use vault_core::Result;
use vault_core::transform::HEADER_BYTES;
use vault_core::vfs::{File, read_exact_at};

use super::files::Look;
use super::frames::{ZEROS_MIN, has_zeros, is_sound};
use crate::check::report::FindingKind;
use crate::frame::{FRAME_BYTES, decode};

/// So many zeros are no part of frames, whose lengths and ordinals are small numbers.
const ZEROS_BESIDE_FRAMES: usize = 16;
/// Bytes that are looked at behind a frame that does not check.
const LOOKED_AT_BYTES: u64 = 64 << 10;

impl Look {
    pub(super) fn blob(
        &mut self,
        file: &dyn File,
        header_checksum: u32,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let len = self.bytes;
        let mut offset = HEADER_BYTES as u64;
        let mut ordinal = 0_u32;
        let mut record = Vec::new();
        progress(offset)?;
        while offset < len {
            let framed = match frame_at(file, header_checksum, offset, len, &mut record) {
                Ok(framed) => framed,
                Err(e) => {
                    self.unreadable(&e);
                    return progress(len - offset);
                }
            };
            let Framed::Record(found) = framed else {
                self.blob_breaks_off(offset, &framed, &record);
                return progress(len - offset);
            };
            if found != ordinal {
                let found = "one that belongs elsewhere in the file";
                self.damage(FindingKind::Value, offset, "the next record", found);
            } else if is_sound(&record[FRAME_BYTES..]) {
                self.records += 1;
            } else {
                self.blob_record(offset, &record);
            }
            progress(record.len() as u64)?;
            (offset, ordinal) = (offset + record.len() as u64, found.saturating_add(1));
        }
        if ordinal == 0 {
            let found = "none: it was never finished, or its end was lost";
            self.doubt(FindingKind::Value, len, "records behind the header", found);
        }
        Ok(())
    }

    /// A record that is not what was written.
    fn blob_record(&mut self, offset: u64, record: &[u8]) {
        let (bytes, expected) = (record.len(), "a record that is what was written");
        if has_zeros(&record[FRAME_BYTES..], ZEROS_MIN) {
            let found = format!("{bytes} bytes with zeros among them: a piece was lost");
            self.doubt(FindingKind::Value, offset, expected, &found);
        } else {
            let found = format!("{bytes} bytes that are not");
            self.damage(FindingKind::Value, offset, expected, &found);
        }
    }

    /// Where the next record begins is not known, or the file ends within this one.
    fn blob_breaks_off(&mut self, offset: u64, framed: &Framed, bytes: &[u8]) {
        let expected = "a record, up to the end of the file";
        if matches!(framed, Framed::CutShort) || has_zeros(bytes, ZEROS_BESIDE_FRAMES) {
            let found = "one that is cut off: it was never finished, or its end was lost";
            self.doubt(FindingKind::Value, offset, expected, found);
        } else {
            let found = "bytes that are none; what follows cannot be told apart";
            self.damage(FindingKind::Value, offset, expected, found);
        }
    }
}

/// What stands where a record should.
enum Framed {
    /// A record with this ordinal, read whole.
    Record(u32),
    /// The file ends before it does.
    CutShort,
    /// No frame.
    Nothing,
}

/// Reads what stands at `offset`: a record, or some of what is there in its place.
fn frame_at(
    file: &dyn File,
    header_checksum: u32,
    offset: u64,
    len: u64,
    record: &mut Vec<u8>,
) -> std::io::Result<Framed> {
    let rest = len - offset;
    let mut read = |bytes: u64| {
        record.resize(bytes as usize, 0);
        read_exact_at(file, record, offset)?;
        Ok::<_, std::io::Error>(decode(header_checksum, record))
    };
    if rest < FRAME_BYTES as u64 {
        return Ok(Framed::CutShort);
    }
    let Some((ordinal, sealed)) = read(FRAME_BYTES as u64)? else {
        read(rest.min(LOOKED_AT_BYTES))?;
        return Ok(Framed::Nothing);
    };
    let bytes = FRAME_BYTES as u64 + sealed as u64;
    if bytes > rest {
        return Ok(Framed::CutShort);
    }
    read(bytes)?;
    Ok(Framed::Record(ordinal))
}
