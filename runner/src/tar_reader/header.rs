//! The fields of a 512-byte tar header.

use super::BLOCK;

/// A header block.
#[derive(Debug)]
pub(super) struct RawHeader([u8; BLOCK]);

impl RawHeader {
    pub(super) fn new(block: &[u8; BLOCK]) -> Self {
        Self(*block)
    }

    /// Checksum over unsigned bytes, or signed ones as some old programs wrote it.
    pub(super) fn is_intact(&self) -> bool {
        let sum = |widen: fn(u8) -> i64| {
            let outside = self.0[..148].iter().chain(&self.0[156..]);
            outside.map(|byte| widen(*byte)).sum::<i64>() + 8 * i64::from(b' ')
        };
        let stated = number(&self.0[148..156]);
        stated == Some(sum(i64::from)) || stated == Some(sum(|byte| i64::from(byte.cast_signed())))
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[0..100]);
        // GNU's magic is `ustar  `: its bytes at 345 are something else.
        let prefix = if &self.0[257..263] == b"ustar\0" {
            text(&self.0[345..500])
        } else {
            b""
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, name].join(&b'/')
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    /// Major and minor number; zero where the fields hold something else (v7).
    pub(super) fn device(&self) -> (u32, u32) {
        let part = |field| {
            number(field)
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(0)
        };
        (part(&self.0[329..337]), part(&self.0[337..345]))
    }

    /// The four sparse fields of a GNU header.
    pub(super) fn sparse_fields(&self) -> &[u8] {
        &self.0[386..482]
    }

    pub(super) fn sparse_continues(&self) -> bool {
        self.0[482] != 0
    }

    pub(super) fn sparse_size(&self) -> Option<i64> {
        number(&self.0[483..495])
    }
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len())]
}

/// Octal digits with blanks or zeros around them, or GNU's base 256; an empty field is zero.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let is_negative = field[0] & 0x40 != 0;
        let first = if is_negative {
            field[0]
        } else {
            field[0] & 0x7f
        };
        let start = if is_negative { -1_i128 } else { 0 };
        let mut value = (start << 8) | i128::from(first);
        for byte in &field[1..] {
            value = value.checked_mul(256)? | i128::from(*byte);
        }
        return i64::try_from(value).ok();
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o7777_7777)),
            (b"00008\0\0\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }
}
