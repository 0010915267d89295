//! Immutable bytes that may share the block they were read from.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Longest value that is kept inside the [`Slice`] itself, in bytes.
const INLINE_BYTES_MAX: usize = 22;

/// Immutable bytes: a short copy kept inline, or a part of a shared buffer (a decoded block, say).
///
/// Cloning never copies more than 24 bytes. A slice that shares a block keeps the whole block in
/// memory; call [`Slice::detach`] before keeping many of them for long.
///
/// ```
/// use vault_core::Slice;
/// let value = Slice::from(&b"hello"[..]);
/// assert_eq!(&value[..], b"hello");
/// assert_eq!(value.len(), 5);
/// ```
#[derive(Clone)]
pub struct Slice(Repr);

#[derive(Clone)]
enum Repr {
    Inline {
        len: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    Shared {
        buffer: Arc<[u8]>,
        start: u32,
        len: u32,
    },
}

impl Slice {
    /// The empty slice.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Repr::Inline {
            len: 0,
            bytes: [0; INLINE_BYTES_MAX],
        })
    }

    /// Takes `len` bytes from `start` of a shared buffer without copying them (short ones are copied,
    /// so that they don't hold the buffer).
    ///
    /// # Panics
    /// If the range lies outside the buffer or the buffer is larger than 4 GiB.
    #[must_use]
    pub fn shared(buffer: &Arc<[u8]>, start: usize, len: usize) -> Self {
        let bytes = &buffer[start..start + len];
        if len <= INLINE_BYTES_MAX {
            return Self::inline(bytes);
        }
        let narrow = |n: usize| u32::try_from(n).expect("blocks are smaller than 4 GiB");
        Self(Repr::Shared {
            buffer: Arc::clone(buffer),
            start: narrow(start),
            len: narrow(len),
        })
    }

    /// Copies the bytes out of a larger shared buffer, so that it can be freed.
    #[must_use]
    pub fn detach(self) -> Self {
        match &self.0 {
            Repr::Shared { buffer, len, .. } if buffer.len() != *len as usize => {
                Self::from(&self[..])
            }
            _ => self,
        }
    }

    fn inline(source: &[u8]) -> Self {
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..source.len()].copy_from_slice(source);
        Self(Repr::Inline {
            len: source.len() as u8,
            bytes,
        })
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..*len as usize],
            Repr::Shared { buffer, start, len } => {
                &buffer[*start as usize..*start as usize + *len as usize]
            }
        }
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE_BYTES_MAX {
            Self::inline(bytes)
        } else {
            let buffer: Arc<[u8]> = Arc::from(bytes);
            let len = u32::try_from(bytes.len()).expect("values are smaller than 4 GiB");
            Self(Repr::Shared {
                buffer,
                start: 0,
                len,
            })
        }
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(&bytes[..])
    }
}

impl From<Arc<[u8]>> for Slice {
    fn from(buffer: Arc<[u8]>) -> Self {
        let len = buffer.len();
        Self::shared(&buffer, 0, len)
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::error::printable(self))
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Slice {}

impl PartialEq<[u8]> for Slice {
    fn eq(&self, other: &[u8]) -> bool {
        self[..] == *other
    }
}

impl PartialEq<&[u8]> for Slice {
    fn eq(&self, other: &&[u8]) -> bool {
        self[..] == **other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Slice {
    fn eq(&self, other: &&[u8; N]) -> bool {
        self[..] == other[..]
    }
}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self[..].cmp(&other[..])
    }
}

impl std::hash::Hash for Slice {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_slices_read_back() {
        for len in [0, 1, 22, 23, 24, 4096] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            assert_eq!(Slice::from(&bytes[..]), &bytes[..], "length {len}");
        }
    }

    #[test]
    fn shared_slice_holds_its_buffer_and_detach_lets_go() {
        let buffer: Arc<[u8]> = Arc::from(vec![7; 1000]);
        let part = Slice::shared(&buffer, 100, 50);
        assert_eq!(Arc::strong_count(&buffer), 2);
        let part = part.detach();
        assert_eq!(Arc::strong_count(&buffer), 1);
        assert_eq!(part, &[7; 50]);
    }

    #[test]
    fn a_slice_is_four_words() {
        assert!(size_of::<Slice>() <= 32);
    }
}
