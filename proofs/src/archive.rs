//! An OCI archive as the tree that it shows, read without rbuild: every blob against its digest, then layer over layer.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::tree::{Node, Tree, file, remove};
use crate::{Result, ensure};

/// What the first image of an archive shows.
pub(crate) fn read(path: &Path) -> Result<Tree> {
    let mut files: HashMap<PathBuf, Vec<u8>> = HashMap::new();
    let mut archive = tar::Archive::new(File::open(path)?);
    for member in archive.entries()? {
        let mut member = member?;
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes)?;
        files.insert(member.path()?.into_owned(), bytes);
    }
    let document = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes);
    let index = files.get(Path::new("index.json")).ok_or("no index.json")?;
    let manifest = blob(&files, &document(index)?["manifests"][0])?;
    let manifest = document(&manifest)?;
    let config = document(&blob(&files, &manifest["config"])?)?;
    let mut tree = Tree::new();
    let layers = manifest["layers"].as_array().ok_or("no layers")?;
    for (position, layer) in layers.iter().enumerate() {
        let bytes = blob(&files, layer)?;
        let plain = if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain)?;
            plain
        } else {
            bytes
        };
        let diff_id = config["rootfs"]["diff_ids"][position].as_str();
        ensure!(
            diff_id == Some(&digest(&plain)),
            "layer {position} has another diff_id than the config says"
        );
        put_over(&mut tree, &plain)?;
    }
    Ok(tree)
}

fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes of a descriptor, which have its digest and size.
fn blob(files: &HashMap<PathBuf, Vec<u8>>, descriptor: &Value) -> Result<Vec<u8>> {
    let name = descriptor["digest"].as_str().ok_or("no digest")?;
    let path = PathBuf::from("blobs").join(name.replace(':', "/"));
    let bytes = files
        .get(&path)
        .ok_or_else(|| format!("the archive has no `{name}`"))?;
    ensure!(digest(bytes) == name, "`{name}` has other bytes");
    ensure!(
        descriptor["size"].as_u64() == Some(bytes.len() as u64),
        "`{name}` has {} bytes, its descriptor says {}",
        bytes.len(),
        descriptor["size"]
    );
    Ok(bytes.clone())
}

/// Puts a layer over a tree.
fn put_over(tree: &mut Tree, layer: &[u8]) -> Result<()> {
    let mut archive = tar::Archive::new(layer);
    for member in archive.entries()? {
        let mut member = member?;
        let path: PathBuf = member.path()?.components().collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(deleted) = name.strip_prefix(".wh.") {
            remove(tree, &path.with_file_name(deleted));
            continue;
        }
        let mode = member.header().mode()? & 0o7777;
        let kind = member.header().entry_type();
        let node = if kind.is_dir() {
            Node::Directory { mode }
        } else if kind.is_symlink() {
            let target = member.link_name_bytes().ok_or("a link to nothing")?;
            Node::Symlink {
                target: target.into_owned(),
            }
        } else if kind.is_file() {
            let mut content = Vec::new();
            member.read_to_end(&mut content)?;
            file(mode, &content)
        } else {
            Node::Other { mode }
        };
        if !kind.is_dir() {
            remove(tree, &path);
        }
        tree.insert(path, node);
    }
    Ok(())
}
