//! How deep lists and maps stand in one another.

use super::NESTING_MAX;

/// Whether MessagePack content that was just written has no more lists and maps in one another than can be read back.
///
/// A list or map takes at least a byte, so short content needs no look.
pub(crate) fn is_readable(content: &[u8]) -> bool {
    content.len() <= NESTING_MAX || measure(content).is_some()
}

/// Walks over one value without recursion; `None` where it is too deep, or no MessagePack.
fn measure(content: &[u8]) -> Option<()> {
    let mut rest = content;
    // How many values are left of each list and map that is open.
    let mut open: Vec<u64> = Vec::with_capacity(16);
    loop {
        let (&marker, behind) = rest.split_first()?;
        rest = behind;
        let (skipped, values) = match marker {
            0x80..=0x8f => (0, u64::from(marker & 0x0f) * 2),
            0x90..=0x9f => (0, u64::from(marker & 0x0f)),
            0xa0..=0xbf => (usize::from(marker & 0x1f), 0),
            0xc4 | 0xd9 => (length(&mut rest, 1)?, 0),
            0xc5 | 0xda => (length(&mut rest, 2)?, 0),
            0xc6 | 0xdb => (length(&mut rest, 4)?, 0),
            0xc7 => (length(&mut rest, 1)?.checked_add(1)?, 0),
            0xc8 => (length(&mut rest, 2)?.checked_add(1)?, 0),
            0xc9 => (length(&mut rest, 4)?.checked_add(1)?, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 | 0xd4 => (2, 0),
            0xd5 => (3, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xd6 => (5, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xd7 => (9, 0),
            0xd8 => (17, 0),
            0xdc => (0, length(&mut rest, 2)? as u64),
            0xdd => (0, length(&mut rest, 4)? as u64),
            0xde => (0, length(&mut rest, 2)? as u64 * 2),
            0xdf => (0, length(&mut rest, 4)? as u64 * 2),
            _ => (0, 0),
        };
        rest = rest.get(skipped..)?;
        // Empty ones count: whoever reads them goes into them too.
        let is_list_or_map = matches!(marker, 0x80..=0x9f | 0xdc..=0xdf);
        if is_list_or_map && open.len() == NESTING_MAX {
            return None;
        }
        if values > 0 {
            open.push(values);
            continue;
        }
        loop {
            let Some(left) = open.last_mut() else {
                return Some(());
            };
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
    }
}

fn length(rest: &mut &[u8], bytes: usize) -> Option<usize> {
    let (length, behind) = rest.split_at_checked(bytes)?;
    *rest = behind;
    Some(
        length
            .iter()
            .fold(0, |length, &byte| length << 8 | usize::from(byte)),
    )
}
