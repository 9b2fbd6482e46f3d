//! What steps wrote: one compressed file a run of a step, never clipped.
//!
//! ```text
//! logs/<build>-<step>.zst  = zstd frame of record*
//! record                   = stream:u8 milliseconds length bytes        stream: 1 stdout, 2 stderr; LEB128 numbers
//! ```
//!
//! Records stand in the order in which the bytes came, so both streams are interleaved as they were. The file grows
//! while the step runs and may be read meanwhile: [`StepLogWriter::flush`] makes all that was written readable. A
//! process that is killed leaves a file that ends early; what was flushed is read all the same.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::entry::put_number;
use crate::store::Store;

/// Directory of the logs in a store.
pub(crate) const LOGS: &str = "logs";

/// Level of compression: logs are written while a command waits for its pipe to drain.
const LEVEL: i32 = 3;

/// Longest piece that is read back at once: longer ones are written as several. Bounds what a damaged file can ask for.
const LONGEST_PIECE: usize = 1 << 20;

/// Why a step's log could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepLogError {
    /// It could not be written.
    #[error("cannot write the step's log `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read the step's log `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds what no log holds.
    #[error("the step's log `{path}` is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Which of a command's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// stdout
    Stdout,
    /// stderr
    Stderr,
}

/// Some bytes of a step's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// Where the command wrote them.
    pub stream: LogStream,
    /// When, in milliseconds since the step began.
    pub at: u64,
    /// Not necessarily whole lines.
    pub bytes: Vec<u8>,
}

/// Writes one step's log.
pub struct StepLogWriter {
    encoder: zstd::stream::write::Encoder<'static, File>,
    path: PathBuf,
    has_unflushed: bool,
}

impl std::fmt::Debug for StepLogWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StepLogWriter")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl StepLogWriter {
    /// Adds bytes.
    pub fn write(&mut self, stream: LogStream, at: u64, bytes: &[u8]) -> Result<(), StepLogError> {
        self.has_unflushed = true;
        for piece in bytes.chunks(LONGEST_PIECE) {
            let mut head = vec![match stream {
                LogStream::Stdout => 1,
                LogStream::Stderr => 2,
            }];
            put_number(&mut head, at);
            put_number(&mut head, piece.len() as u64);
            let written = self
                .encoder
                .write_all(&head)
                .and_then(|()| self.encoder.write_all(piece));
            written.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// Makes everything written so far readable by others.
    pub fn flush(&mut self) -> Result<(), StepLogError> {
        if std::mem::take(&mut self.has_unflushed) {
            let flushed = self.encoder.flush();
            flushed.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// Ends the log.
    pub fn finish(self) -> Result<(), StepLogError> {
        let path = self.path;
        match self.encoder.finish() {
            Ok(_) => Ok(()),
            Err(source) => Err(StepLogError::Write { path, source }),
        }
    }

    fn failed(&self, source: io::Error) -> StepLogError {
        StepLogError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// Reads one step's log piece by piece. The end may be that of a log that still grows, or whose writer was killed.
pub struct StepLogReader {
    decoder: zstd::stream::read::Decoder<'static, BufReader<File>>,
    path: PathBuf,
    is_whole: bool,
}

impl std::fmt::Debug for StepLogReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StepLogReader")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl StepLogReader {
    /// After the last piece: false when the log's writer did not come to its end (yet).
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The next piece; none at the end.
    pub fn next_piece(&mut self) -> Result<Option<LogPiece>, StepLogError> {
        match self.read_piece() {
            Ok(Some(piece)) => Ok(Some(piece)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(StepLogError::Damaged {
                    path: self.path.clone(),
                })
            }
            Ok(None) => {
                self.is_whole = true;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(StepLogError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// None at the end of the frame; invalid data is what no writer writes.
    fn read_piece(&mut self) -> io::Result<Option<LogPiece>> {
        let mut tag = [0];
        if self.decoder.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let stream = match tag[0] {
            1 => LogStream::Stdout,
            2 => LogStream::Stderr,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let at = self.number()?;
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length > LONGEST_PIECE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        self.decoder.read_exact(&mut bytes)?;
        Ok(Some(LogPiece { stream, at, bytes }))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.decoder.read_exact(&mut byte)?;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                break;
            }
        }
        Ok(number)
    }
}

impl Store {
    /// Starts the log of a step; one of the same name is replaced.
    pub fn write_step_log(&self, name: &str) -> Result<StepLogWriter, StepLogError> {
        let path = self.step_log_path(name);
        let failed = |source| StepLogError::Write {
            path: path.clone(),
            source,
        };
        let open = || {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
        };
        let file = match open() {
            // A store made by an older rbuild has no such directory yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(path.parent().unwrap_or(&path)).map_err(failed)?;
                open()
            }
            file => file,
        };
        let encoder = zstd::stream::write::Encoder::new(file.map_err(failed)?, LEVEL);
        Ok(StepLogWriter {
            encoder: encoder.map_err(failed)?,
            path,
            has_unflushed: true,
        })
    }

    /// Opens the log of a step; none when it is not kept (any more).
    pub fn read_step_log(&self, name: &str) -> Result<Option<StepLogReader>, StepLogError> {
        let path = self.step_log_path(name);
        let failed = |source| StepLogError::Read {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let decoder = zstd::stream::read::Decoder::new(file).map_err(failed)?;
        Ok(Some(StepLogReader {
            decoder: decoder.single_frame(),
            path,
            is_whole: false,
        }))
    }

    /// Where a log is. A name that could lead elsewhere names a file that is never there.
    pub(crate) fn step_log_path(&self, name: &str) -> PathBuf {
        let is_plain = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let name = if is_plain { name } else { "none" };
        self.inner.root.join(LOGS).join(format!("{name}.zst"))
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}
