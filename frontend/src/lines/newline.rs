//! Where lines end.

/// The same value in every byte.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
const NEWLINES: u64 = u64::from_ne_bytes([b'\n'; 8]);

/// Where the first newline stands. Lines are short: looking at eight bytes at once, in place, takes a third of the
/// instructions of `memchr`, whose strength are long texts.
pub(super) fn newline_in(bytes: &[u8]) -> Option<usize> {
    let (eights, rest) = bytes.as_chunks::<8>();
    for (number, eight) in eights.iter().enumerate() {
        let differences = u64::from_le_bytes(*eight) ^ NEWLINES;
        // The high bit of each byte without a difference; of bytes behind such a one perhaps by mistake.
        let found = differences.wrapping_sub(ONES) & !differences & HIGH_BITS;
        if found != 0 {
            return Some(number * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    Some(eights.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_newline_is_found_wherever_it_stands() {
        // Bytes around the newline's own are the ones that a borrow could make look like it.
        for other in [0, 1, 9, 11, b'a', 0x80, 0x8a, 0xff] {
            for length in 0..40 {
                let mut bytes = vec![other; length];
                assert_eq!(newline_in(&bytes), None, "{other} x {length}");
                for at in (0..length).rev() {
                    bytes[at] = b'\n';
                    assert_eq!(newline_in(&bytes), Some(at), "{other} x {length}");
                }
            }
        }
    }
}
