//! Decompression by magic bytes; names and media types are not asked.

use std::io::{self, BufRead, Read};

/// More than any real preset of xz needs (65 MiB for -9), less than what hurts.
const XZ_MEMORY: u64 = 256 * 1024 * 1024;

/// What a stream's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Nothing known: taken as it is.
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Format {
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// Reads the content of `source`, whatever it is compressed with; several members or frames in a row are one content.
pub fn reader<'a>(mut source: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match Format::of(source.fill_buf()?) {
        Format::Plain => Box::new(source),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Format::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_format_is_recognised() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"text").unwrap();
        let gzip = gzip.finish().unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(b"text").unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(b"text").unwrap();
        let zstd = zstd::encode_all(&b"text"[..], 1).unwrap();
        for (name, bytes) in [
            ("plain", b"text".to_vec()),
            ("gzip", gzip.clone()),
            ("zstd", zstd),
            ("bzip2", bzip2.finish().unwrap()),
            ("xz", xz.finish().unwrap()),
        ] {
            let mut content = String::new();
            reader(&bytes[..])
                .unwrap()
                .read_to_string(&mut content)
                .unwrap();
            assert_eq!(content, "text", "{name}");
        }
        let mut content = String::new();
        let two = [gzip.clone(), gzip].concat();
        reader(&two[..])
            .unwrap()
            .read_to_string(&mut content)
            .unwrap();
        assert_eq!(content, "texttext");
    }
}
