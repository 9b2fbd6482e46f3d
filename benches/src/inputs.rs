//! Generated inputs: the same bytes on every machine.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::Result;

/// The seed of everything random.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// xorshift64*: good enough for bytes that do not compress, and needs no crate.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The one sequence.
    pub(crate) fn new() -> Self {
        Self(SEED)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Fills the new directory `root` with `count` files of 1 to 8 KiB, 100 a directory.
pub(crate) fn files(root: &Path, count: usize) -> Result<()> {
    let mut random = Random::new();
    for number in 0..count {
        let directory = root.join(format!("d{:04}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let size = 1024 + usize::try_from(random.next() % (7 * 1024)).unwrap_or_default();
        fs::write(directory.join(format!("f{number:06}")), random.bytes(size))?;
    }
    Ok(())
}

/// Fills the new directory `root` with `count` empty files, 100 a directory.
pub(crate) fn empty_files(root: &Path, count: usize) -> Result<()> {
    for number in 0..count {
        let directory = root.join(format!("d{:04}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        fs::write(directory.join(format!("f{number:06}")), [])?;
    }
    Ok(())
}

/// Writes a file of hexadecimal digits, which compress to a little more than half.
pub(crate) fn digits(path: &Path, random: &mut Random, size: u64) -> Result<()> {
    let mut file = std::io::BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    for _ in 0..size / 16 {
        write!(file, "{:016x}", random.next())?;
    }
    Ok(file.flush()?)
}

/// Writes a file that does not compress.
pub(crate) fn noise(path: &Path, random: &mut Random, size: u64) -> Result<()> {
    let mut file = fs::File::create(path)?;
    for _ in 0..size >> 20 {
        file.write_all(&random.bytes(1 << 20))?;
    }
    Ok(())
}

/// Writes a file of lines of made-up words, which compress to some third.
pub(crate) fn text(path: &Path, random: &mut Random, size: u64) -> Result<()> {
    let letters = b"etaoinshrdlucmfwypvbgkqjxz";
    let mut words = Vec::new();
    for _ in 0..4096 {
        let length = 2 + random.next() % 8;
        // The smaller of two numbers: early letters are common ones.
        let mut letter = || (random.next() % 26).min(random.next() % 26);
        let word: Vec<u8> = (0..length)
            .filter_map(|_| letters.get(usize::try_from(letter()).ok()?).copied())
            .collect();
        words.push(word);
    }
    let mut file = std::io::BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    let mut written = 0;
    while written < size {
        let pick = (random.next() % 4096).min(random.next() % 4096);
        let Some(word) = words.get(usize::try_from(pick)?) else {
            continue;
        };
        file.write_all(word)?;
        file.write_all(if random.next().is_multiple_of(12) {
            b"\n"
        } else {
            b" "
        })?;
        written += word.len() as u64 + 1;
    }
    Ok(file.flush()?)
}

/// Makes a minimal root file system: busybox as `sh` and `true`.
pub(crate) fn base(root: &Path) -> Result<()> {
    for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["true", "sh"] {
        fs::copy("/bin/busybox", root.join("bin").join(name)).map_err(|error| {
            format!("/bin/busybox (Debian's busybox-static) is needed: {error}")
        })?;
    }
    Ok(())
}

/// Writes a Dockerfile of lines.
pub(crate) fn dockerfile<S: AsRef<str>>(
    path: &Path,
    lines: impl IntoIterator<Item = S>,
) -> Result<()> {
    let mut file = fs::File::create(path)?;
    for line in lines {
        writeln!(file, "{}", line.as_ref())?;
    }
    Ok(())
}
