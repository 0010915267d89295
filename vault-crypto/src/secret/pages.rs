//! Memory for secrets: pages that hold nothing else, so that they can be kept out of swap and of core dumps as a whole.
//!
//! Keys are many and small, and share pages. Their places are handed out of a list and come back to it, wiped; the pages
//! stay for as long as the process does, as many as the most keys that there were at one time need. A passphrase has a page to itself
//! and gives it back.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize;

use super::KEY_BYTES;

/// Size of a page: no page of the system that holds a secret holds anything else, where its pages are no larger than this.
#[cfg(target_arch = "x86_64")]
pub(super) const PAGE_BYTES: usize = 4 << 10;
#[cfg(not(target_arch = "x86_64"))]
pub(super) const PAGE_BYTES: usize = 64 << 10;

const KEYS_PER_PAGE: usize = PAGE_BYTES / KEY_BYTES;

#[cfg_attr(target_arch = "x86_64", repr(C, align(4096)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C, align(65536)))]
struct Page<T>(T);

/// Places that no key is in. All of them are zero.
static FREE: Mutex<Vec<&'static mut [[u8; KEY_BYTES]]>> = Mutex::new(Vec::new());

/// The place of one key.
pub(super) struct Slot {
    /// One place; none after it was given back.
    place: &'static mut [[u8; KEY_BYTES]],
}

impl Slot {
    /// A place that is zero.
    pub(super) fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = free.pop().unwrap_or_else(|| {
            let page = Box::leak(Box::new(Page([[0; KEY_BYTES]; KEYS_PER_PAGE])));
            system::keep_private(page.0.as_flattened_mut());
            let (first, rest) = page.0.split_at_mut(1);
            free.extend(rest.chunks_exact_mut(1));
            first
        });
        Self { place }
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.place[0]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; KEY_BYTES] {
        &mut self.place[0]
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        let place = std::mem::take(&mut self.place);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(place);
    }
}

/// A page for one secret of variable length.
pub(super) struct PageOfSecrets {
    page: Box<Page<[u8; PAGE_BYTES]>>,
}

impl PageOfSecrets {
    /// A page of zeros.
    pub(super) fn new() -> Self {
        let mut page = Box::new(Page([0; PAGE_BYTES]));
        system::keep_private(&mut page.0);
        Self { page }
    }

    pub(super) fn bytes(&self) -> &[u8; PAGE_BYTES] {
        &self.page.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; PAGE_BYTES] {
        &mut self.page.0
    }
}

impl Drop for PageOfSecrets {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        system::let_go(&mut self.page.0);
    }
}

/// What is asked of the system. All of it is best effort: a process has a limit of what it may lock
/// (`ulimit -l`), and a secret that can be swapped is better than a store that cannot be opened.
#[expect(
    unsafe_code,
    reason = "system calls on ranges of memory; the only ones of this crate"
)]
mod system {
    use rustix::mm::{Advice, madvise, mlock, munlock};

    /// Keeps whole pages out of swap and of core dumps.
    pub(super) fn keep_private(pages: &mut [u8]) {
        // SAFETY: the range is borrowed exclusively, and locking does not change what it holds.
        let _ = unsafe { mlock(pages.as_mut_ptr().cast(), pages.len()) };
        #[cfg(target_os = "linux")]
        advise(pages, Advice::LinuxDontDump);
    }

    /// Takes that back, before the pages are freed.
    pub(super) fn let_go(pages: &mut [u8]) {
        // SAFETY: as above.
        let _ = unsafe { munlock(pages.as_mut_ptr().cast(), pages.len()) };
        #[cfg(target_os = "linux")]
        advise(pages, Advice::LinuxDoDump);
    }

    #[cfg(target_os = "linux")]
    fn advise(pages: &mut [u8], advice: Advice) {
        debug_assert!(matches!(
            advice,
            Advice::LinuxDontDump | Advice::LinuxDoDump
        ));
        // SAFETY: the range is borrowed exclusively, and these two say only what a core dump holds.
        let _ = unsafe { madvise(pages.as_mut_ptr().cast(), pages.len(), advice) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_zero_when_it_is_taken_and_its_own() {
        let mut slots: Vec<Slot> = (0..3 * KEYS_PER_PAGE).map(|_| Slot::take()).collect();
        for (number, slot) in slots.iter_mut().enumerate() {
            assert_eq!(slot.bytes(), &[0; KEY_BYTES]);
            *slot.bytes_mut() = [number as u8; KEY_BYTES];
        }
        for (number, slot) in slots.iter().enumerate() {
            assert_eq!(slot.bytes(), &[number as u8; KEY_BYTES]);
        }
        drop(slots);
        let again: Vec<Slot> = (0..3 * KEYS_PER_PAGE).map(|_| Slot::take()).collect();
        assert!(again.iter().all(|slot| slot.bytes() == &[0; KEY_BYTES]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_keeps_secrets_out_of_swap_and_core_dumps() {
        let slot = Slot::take();
        let mut page = PageOfSecrets::new();
        for address in [slot.bytes().as_ptr(), page.bytes().as_ptr()] {
            let flags = flags_of(address.addr());
            assert!(flags.contains(&"dd".to_owned()), "dumped: {flags:?}");
            let may_lock = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
            if may_lock.is_none_or(|bytes| bytes >= 1 << 20) {
                assert!(flags.contains(&"lo".to_owned()), "not locked: {flags:?}");
            }
        }
        // What is freed is nobody's secret.
        system::let_go(page.bytes_mut());
        let flags = flags_of(page.bytes().as_ptr().addr());
        for flag in ["lo", "dd"] {
            assert!(!flags.contains(&flag.to_owned()), "kept: {flags:?}");
        }
    }

    /// The flags that the system has for the mapping of an address; none where nothing is mapped.
    #[cfg(target_os = "linux")]
    fn flags_of(address: usize) -> Vec<String> {
        #[expect(
            clippy::disallowed_methods,
            reason = "what the system knows of this process, which is no file"
        )]
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|word| word.split_once('-'));
            let bound = |text: &str| usize::from_str_radix(text, 16).ok();
            if let Some((Some(begin), Some(end))) = range.map(|(a, b)| (bound(a), bound(b))) {
                inside = (begin..end).contains(&address);
            } else if let (true, Some(flags)) = (inside, line.strip_prefix("VmFlags:")) {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        Vec::new()
    }
}
