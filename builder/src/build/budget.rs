//! `--budget`: an image that has grown too large fails the build, before it is named or pushed.

use crate::error::BuildError;
use crate::image::BuiltImage;
use crate::layers;
use crate::options::ImageBudget;

/// Layers that are named when there are too many bytes.
const NAMED: usize = 3;

/// Fails when an image is over the budget.
pub(super) fn check(budget: &ImageBudget, images: &[BuiltImage]) -> Result<(), BuildError> {
    for image in images {
        let exceeded = exceeded(budget, image);
        if !exceeded.is_empty() {
            return Err(BuildError::OverBudget {
                exceeded,
                heaviest: heaviest(image),
            });
        }
    }
    Ok(())
}

fn exceeded(budget: &ImageBudget, image: &BuiltImage) -> Vec<String> {
    let size = image.chain.tar_size();
    let added = image.added_size();
    let layers = image.chain.len() as u64;
    // Rounded apart, so that what is over a limit never looks equal to it.
    let bytes = |name: &str, is: u64, limit: Option<u64>| {
        let limit = limit.filter(|&limit| is > limit)?;
        let limit = limit / TENTH * TENTH;
        Some(format!("{name} {} of {}", megabytes(is), megabytes(limit)))
    };
    let too_many = budget.layers.filter(|&limit| layers > limit);
    [
        bytes("size is", size, budget.size),
        bytes("added are", added, budget.added),
        too_many.map(|limit| format!("layers are {layers} of {limit}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn heaviest(image: &BuiltImage) -> String {
    let made_by = layers::instructions(&image.config);
    let own = image.chain.iter().zip(made_by).skip(image.base_layers);
    let mut own: Vec<_> = own
        .map(|(layer, made_by)| (layer.tar_size, made_by))
        .collect();
    own.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    own.truncate(NAMED);
    if own.is_empty() {
        return "none, all are the base image's".to_owned();
    }
    let words = own.iter().map(|(size, made_by)| {
        format!(
            "{} `{}`",
            megabytes(*size),
            made_by.lines().next().unwrap_or_default()
        )
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Bytes of a tenth of a megabyte.
const TENTH: u64 = 100_000;

/// To a tenth, and never less than it is.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(TENTH);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}
