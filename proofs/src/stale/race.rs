//! A file that changes while it is copied: an error or what it held at one moment, never a mixture.
//!
//! A writer fills the file with one generation after the other, block by block in ascending order. At any moment the file
//! therefore holds a generation up to some block and the one before from there on; a reader that was overtaken has seen
//! something else, and that must not come out of a build.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::place::Place;
use crate::random::Random;
use crate::stale::Builder;
use crate::{Result, ensure};

const BLOCK: usize = 4096;
const BLOCKS: usize = 256;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In place; times are put back after each generation.
    InPlace,
    /// A new file takes the name.
    Rename,
}

/// Builds `rounds` times while files are being written.
pub(super) fn prove(place: &Place, random: &mut Random, rounds: usize) -> Result<String> {
    let context = place.directory("race")?;
    let store = place.path("race-store");
    let dockerfile = "FROM scratch\nCOPY inplace /inplace\nCOPY renamed /renamed\n";
    let builder = Builder::new(&store, &context, dockerfile.to_owned())?;
    let files = [("inplace", Way::InPlace), ("renamed", Way::Rename)];
    let mut generation = 1;
    for (name, _) in files {
        fs::write(context.join(name), vec![0; BLOCK * BLOCKS])?;
    }
    let mut refused = 0;
    for _ in 0..rounds {
        let is_over = AtomicBool::new(false);
        let pause = Duration::from_micros(random.below(40) as u64);
        let (built, last) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut last = generation;
                while !is_over.load(Ordering::Relaxed) {
                    for (name, way) in files {
                        write(&context.join(name), way, last, pause)?;
                    }
                    last += 1;
                }
                Result::Ok(last)
            });
            let built = builder.build();
            is_over.store(true, Ordering::Relaxed);
            (built, writer.join())
        });
        generation = last.map_err(|_| "the writer panicked")??;
        if built.is_ok() {
            let copied = |name: &str| read_copy(&builder, name);
            check_moment(&copied("inplace")?, Way::InPlace)?;
            check_moment(&copied("renamed")?, Way::Rename)?;
        } else {
            refused += 1;
        }
        // Nobody writes any more: what was recorded meanwhile must not be taken for this.
        builder.build()?;
        builder.compare()?;
    }
    Ok(format!(
        "{rounds} builds during writes to what they copy ({refused} refused): 0 mixtures"
    ))
}

fn write(path: &Path, way: Way, generation: u64, pause: Duration) -> Result<()> {
    let block = generation.to_le_bytes().repeat(BLOCK / 8);
    match way {
        Way::InPlace => {
            let file = fs::OpenOptions::new().write(true).open(path)?;
            for number in 0..BLOCKS {
                file.write_all_at(&block, (number * BLOCK) as u64)?;
                if !pause.is_zero() && number % 32 == 0 {
                    std::thread::sleep(pause);
                }
            }
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            file.set_times(fs::FileTimes::new().set_modified(time))?;
        }
        Way::Rename => {
            // Beside the context, so that it is not copied itself.
            let new = path.with_file_name("../new");
            fs::write(&new, block.repeat(BLOCKS))?;
            fs::rename(&new, path)?;
        }
    }
    Ok(())
}

fn read_copy(builder: &Builder, name: &str) -> Result<Vec<u8>> {
    let store = builder.engine.store();
    let image = store
        .image(crate::base::IMAGE)?
        .ok_or("the image is not in the store")?;
    let layers = image.chain.snapshot_paths(store);
    let path = layers
        .iter()
        .map(|layer| layer.join(name))
        .find(|path| path.exists())
        .ok_or("no layer has the file")?;
    Ok(fs::read(path)?)
}

/// Fails unless the file can have looked like this at one moment.
fn check_moment(bytes: &[u8], way: Way) -> Result<()> {
    ensure!(
        bytes.len() == BLOCK * BLOCKS,
        "{way:?}: a copy has {} bytes",
        bytes.len()
    );
    let mut generations = Vec::new();
    for block in bytes.chunks_exact(BLOCK) {
        let first = &block[..8];
        ensure!(
            block.chunks_exact(8).all(|word| word == first),
            "{way:?}: a block of a copy holds two generations"
        );
        generations.push(u64::from_le_bytes(first.try_into()?));
    }
    generations.dedup();
    let is_moment = match (way, generations.as_slice()) {
        (_, [_]) => true,
        (Way::InPlace, [new, old]) => *new == old + 1 || *old == 0,
        _ => false,
    };
    ensure!(
        is_moment,
        "{way:?}: a copy holds a mixture that the file never held: generations {generations:?}"
    );
    Ok(())
}
