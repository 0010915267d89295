//! Bytes as text in hexadecimal, small letters.

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_nothing_else_is_taken() {
        let bytes = [0, 1, 0x9a, 0xff];
        assert_eq!(hex(&bytes), "00019aff");
        assert_eq!(from_hex("00019AfF").as_deref(), Some(&bytes[..]));
        for odd in ["0", "0g", "+1", "ß", " 0"] {
            assert_eq!(from_hex(odd), None, "{odd}");
        }
    }
}
