//! Maps of sparse files, in the four ways in which tars write them.

use super::BLOCK;
use super::header::{RawHeader, number};
use super::pax::decimal;

/// So many zeros a file may have beyond what is stored: hashing them takes time that the archive did not pay for.
const MAX_HOLES: u64 = 64 * 1024 * 1024 * 1024;
/// Segments of one file.
const MAX_SEGMENTS: usize = 1 << 20;

/// A run of stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Segments and the size of the file.
pub(super) type Map = Result<(Vec<Segment>, u64), &'static str>;

pub(super) fn with_size((segments, size): (Vec<Segment>, Option<u64>)) -> Map {
    size.map(|size| (segments, size))
        .ok_or("a sparse file without size")
}

/// GNU's type `S`: fields of 12 + 12 bytes in the header and in blocks after it.
pub(super) fn from_gnu_header(header: &RawHeader, blocks: &[[u8; BLOCK]]) -> Map {
    let mut segments = Vec::new();
    let fields = header.sparse_fields().chunks_exact(24);
    for field in fields.chain(
        blocks
            .iter()
            .flat_map(|block| block[..504].chunks_exact(24)),
    ) {
        if field[0] == 0 {
            break;
        }
        let part = |bytes| {
            number(bytes)
                .and_then(|number| u64::try_from(number).ok())
                .ok_or("a sparse map")
        };
        segments.push(Segment {
            offset: part(&field[..12])?,
            length: part(&field[12..])?,
        });
    }
    with_size((
        segments,
        header
            .sparse_size()
            .and_then(|size| u64::try_from(size).ok()),
    ))
}

/// In order, apart, inside the file, and as much as is stored.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for segment in segments {
        if segment.offset < end {
            return Err("a sparse map out of order");
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .ok_or("a sparse map beyond all sizes")?;
        sum += segment.length;
    }
    if end > size || sum != stored || i64::try_from(size).is_err() {
        return Err("a sparse map that does not fit its file");
    }
    if size - sum > MAX_HOLES {
        return Err("a sparse file with more holes than is reasonable");
    }
    Ok(())
}

/// Takes the blocks of a PAX 1.0 map.
#[derive(Debug, Default)]
pub(super) struct MapParser {
    line: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl MapParser {
    /// The segments, once the map is whole.
    pub(super) fn block(
        &mut self,
        block: &[u8; BLOCK],
    ) -> Result<Option<Vec<Segment>>, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return Err("a sparse map");
                }
                continue;
            }
            let value = decimal(&self.line).ok_or("a sparse map")?;
            self.line.clear();
            if self.count.is_some() {
                self.numbers.push(value);
            } else {
                let count = usize::try_from(value)
                    .ok()
                    .filter(|count| *count <= MAX_SEGMENTS);
                self.count = Some(count.ok_or("a sparse map that is too long")?);
            }
            if self
                .count
                .is_some_and(|count| self.numbers.len() == 2 * count)
            {
                let pairs = self.numbers.chunks_exact(2);
                return Ok(Some(
                    pairs
                        .map(|pair| Segment {
                            offset: pair[0],
                            length: pair[1],
                        })
                        .collect(),
                ));
            }
        }
        Ok(None)
    }
}
