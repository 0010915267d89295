//! A search of all memory of this process, as the system shows it (`/proc/self/mem`), for bytes that are kept masked, so
//! that the search does not find itself.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;

/// Bytes of a needle: these are not in memory by chance.
pub(crate) const NEEDLE_BYTES: usize = 16;
const MASK: u8 = 0xa7;
const WINDOW_BYTES: usize = 1 << 20;

/// Bytes that are looked for, masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needle {
    pub(crate) name: String,
    masked: [u8; NEEDLE_BYTES],
}

impl Needle {
    /// Both halves of a key: whoever holds it need not hold them together.
    pub(crate) fn halves(name: &str, key: &[u8; 32]) -> [Self; 2] {
        ["first", "second"].map(|half| {
            let from = if half == "first" { 0 } else { NEEDLE_BYTES };
            let mut masked = [0; NEEDLE_BYTES];
            for (masked, byte) in masked.iter_mut().zip(&key[from..]) {
                *masked = byte ^ MASK;
            }
            Self {
                name: format!("{name}, {half} half"),
                masked,
            }
        })
    }
}

/// How often each needle is in memory.
pub(crate) fn search(needles: &[Needle]) -> Vec<usize> {
    let mut window = vec![0; WINDOW_BYTES];
    let own = window.as_ptr().addr()..window.as_ptr().addr() + window.len();
    // By the first byte, so that all of them are looked for in one pass.
    let mut by_first: Vec<Vec<usize>> = vec![Vec::new(); 256];
    for (index, needle) in needles.iter().enumerate() {
        by_first[usize::from(needle.masked[0] ^ MASK)].push(index);
    }
    let mut found = vec![0; needles.len()];
    let mut read_bytes = 0;
    #[expect(clippy::disallowed_methods, reason = "the memory of this process")]
    let memory = File::open("/proc/self/mem").unwrap();
    for range in writable_ranges() {
        let mut at = range.start;
        while at < range.end {
            let len = window.len().min(range.end - at);
            // Mappings that cannot be read hold nothing that we wrote.
            if memory.read_exact_at(&mut window[..len], at as u64).is_err() {
                break;
            }
            read_bytes += len;
            for (offset, bytes) in window[..len].windows(NEEDLE_BYTES).enumerate() {
                if own.contains(&(at + offset)) {
                    continue;
                }
                for &index in &by_first[usize::from(bytes[0])] {
                    let mut pairs = bytes.iter().zip(&needles[index].masked);
                    found[index] += usize::from(pairs.all(|(byte, masked)| byte ^ MASK == *masked));
                }
            }
            // The last bytes of a window are the first of the next one, until the range ends.
            at += if len < window.len() {
                len
            } else {
                len - NEEDLE_BYTES + 1
            };
        }
    }
    window.fill(0);
    assert!(read_bytes > 100 << 10, "{read_bytes} bytes of memory read");
    found
}

fn writable_ranges() -> Vec<std::ops::Range<usize>> {
    #[expect(clippy::disallowed_methods, reason = "the memory of this process")]
    let maps = File::open("/proc/self/maps").unwrap();
    let lines = BufReader::new(maps).lines().map(Result::unwrap);
    let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
    lines
        .filter(|line| line.contains(" rw"))
        .map(|line| {
            let (begin, rest) = line.split_once('-').unwrap();
            number(begin)..number(rest.split(' ').next().unwrap())
        })
        .collect()
}
