//! From a commit of a remote to a layer of the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::{KeyPart, StepKey};
use rbuild_frontend::git_reference::GitMtime;
use rbuild_frontend::ignore_file::IgnoreMatcher;
use rbuild_runner::job::SourceRoot;

use super::command::Git;
use super::{GitError, GitSource, Resolved, TIME_PART, redacted};
use crate::build::Workspace;
use crate::error::StepError;
use crate::fetch::{Fetched, Record};
use crate::select::{self, Request};
use crate::tree::directory::DirectoryTree;
use crate::tree::{SourceTree, TreeError};

/// `.git` of the repository and of its submodules.
const GIT_DIRECTORIES: &str = "**/.git";

/// Fetches, checks out, and puts the files into the store under `key`.
pub(super) async fn check_out(
    workspace: &Arc<Workspace>,
    source: &GitSource,
    resolved: &Resolved,
    key: &StepKey,
) -> Result<Fetched, StepError> {
    let (git, directory) = source.git(workspace)?;
    let mut init = vec!["init", "--quiet", "--template="];
    if resolved.object.len() == 64 {
        init.push("--object-format=sha256");
    }
    let action = "check out";
    git.run(action, &init).await?;
    let remote = ["remote", "add", "--", "origin", &source.remote];
    git.run(action, &remote).await?;
    fetch(&git, source, resolved, &directory).await?;
    let commit = format!("{}^{{commit}}", resolved.object);
    let verify = [
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        &commit,
    ];
    let commit = git.run(action, &verify).await?.trim().to_owned();
    let checkout = ["checkout", "--quiet", "--detach", "--force", &commit];
    git.run(action, &checkout).await?;
    if source.has_submodules && directory.join(".gitmodules").is_file() {
        let update = [
            "submodule",
            "--quiet",
            "update",
            "--init",
            "--recursive",
            "--depth=1",
            "--checkout",
        ];
        git.run("fetch the submodules of", &update).await?;
    }
    let time = ["log", "-1", "--format=%ct", &commit, "--"];
    let time = git.run(action, &time).await?.trim().to_owned();
    if source.has_git_dir() {
        tidy(&git, source, &directory).await?;
    }
    let (workspace, source, key) = (Arc::clone(workspace), source.clone(), *key);
    let inner = Arc::clone(&workspace);
    inner
        .blocking(move || keep(&workspace, &source, &directory, &key, time))
        .await
}

/// Brings the commit here, as little else as the server allows.
async fn fetch(
    git: &Git,
    source: &GitSource,
    resolved: &Resolved,
    directory: &Path,
) -> Result<(), StepError> {
    const ACTION: &str = "fetch";
    let (name, object) = (resolved.name(), resolved.object.as_str());
    let has_object = async || -> Result<bool, GitError> {
        let exists = format!("{object}^{{commit}}");
        Ok(git.attempt(&["cat-file", "-e", &exists]).await?.is_ok)
    };
    let same_name = format!("+{name}:{name}");
    let by_name = !name.is_empty() && !source.fetches_by_commit;
    let wanted = if by_name { same_name.as_str() } else { object };
    let shallow = [
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        "--update-head-ok",
        "--",
        "origin",
        wanted,
    ];
    let first = git.attempt(&shallow).await?;
    if first.is_ok && has_object().await? {
        if !by_name && !name.is_empty() {
            let set = ["update-ref", "--no-deref", name, object];
            git.run(ACTION, &set).await?;
        }
        return Ok(());
    }
    // The name moved on since it was looked at, the server is too simple for a shallow fetch, or it gives no commit that
    // is not at the tip of something: then all that it has is fetched.
    let mut everything = vec!["fetch", "--quiet", "--update-head-ok", "--tags"];
    if directory.join(".git/shallow").exists() {
        everything.push("--unshallow");
    }
    everything.extend(["--", "origin", "+refs/heads/*:refs/remotes/origin/*"]);
    let whole = git.attempt(&everything).await?;
    if !whole.is_ok {
        let outcome = if first.is_ok { &whole } else { &first };
        return Err(git.failed(ACTION, outcome).into());
    }
    if !has_object().await? {
        let by_id = ["fetch", "--quiet", "--no-tags", "--", "origin", object];
        let last = git.attempt(&by_id).await?;
        if !last.is_ok || !has_object().await? {
            return Err(GitError::NoCommit {
                remote: redacted(&source.remote),
                commit: object.to_owned(),
            }
            .into());
        }
    }
    if !name.is_empty() {
        let set = ["update-ref", "--no-deref", name, object];
        git.run(ACTION, &set).await?;
    }
    Ok(())
}

/// Takes out of a kept `.git` what is about this fetch and not about the commit.
async fn tidy(git: &Git, source: &GitSource, directory: &Path) -> Result<(), StepError> {
    const ACTION: &str = "check out";
    let shown = redacted(&source.remote);
    git.run(ACTION, &["remote", "set-url", "--", "origin", &shown])
        .await?;
    git.run(ACTION, &["reflog", "expire", "--all", "--expire=now"])
        .await?;
    match std::fs::remove_file(directory.join(".git/FETCH_HEAD")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(GitError::Run {
            remote: shown,
            source: error,
        }
        .into()),
        _ => Ok(()),
    }
}

/// Moves the wanted files into the store. Blocks.
fn keep(
    workspace: &Arc<Workspace>,
    source: &GitSource,
    directory: &Path,
    key: &StepKey,
    time: String,
) -> Result<Fetched, StepError> {
    let root = subdirectory(source, directory)?;
    if source.mtime == GitMtime::Commit {
        let seconds = time.parse().unwrap_or(0);
        set_times(&root, seconds).map_err(|error| GitError::Run {
            remote: redacted(&source.remote),
            source: error,
        })?;
    }
    let title = source.title();
    let tree: Arc<dyn SourceTree> = Arc::new(DirectoryTree::open(
        &root,
        IgnoreMatcher::default(),
        title.clone(),
        None,
    )?);
    let exclude = if source.has_git_dir() {
        Vec::new()
    } else {
        vec![GIT_DIRECTORIES.to_owned()]
    };
    let request = Request {
        source: "/",
        keeps_parents: false,
        exclude: &exclude,
    };
    let found = select::select(&tree, &request)?;
    let operations = crate::steps::copy_to_root(&found, true)?;
    let sources = vec![SourceRoot::Directory(root)];
    let layer = crate::fetch::make_layer(workspace, sources, operations)?;
    // The clone is of no more use, and may be large.
    let _ = std::fs::remove_dir_all(directory);
    let record = Record {
        title: format!("git {title}"),
        facts: vec![KeyPart::new(TIME_PART, time)],
    };
    Fetched::record(workspace, &[*key], layer, record, title)
}

/// The subdirectory's path: every step of the way is a directory, never a link to one.
fn subdirectory(source: &GitSource, root: &Path) -> Result<PathBuf, StepError> {
    let mut path = root.to_owned();
    let mut place = PathBuf::new();
    for name in source
        .subdirectory
        .split('/')
        .filter(|name| !name.is_empty())
    {
        place.push(name);
        path.push(name);
        let what = match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                let is_plain = !matches!(name, "." | "..");
                if is_plain && name != ".git" {
                    continue;
                }
                "not part of the repository"
            }
            Ok(metadata) if metadata.is_symlink() => "a symlink",
            Ok(_) => "a file",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "not there",
            Err(error) => {
                return Err(StepError::Tree(TreeError::Read {
                    path: place.display().to_string(),
                    source: error,
                }));
            }
        };
        return Err(GitError::Subdirectory {
            remote: redacted(&source.remote),
            subdirectory: source.subdirectory.clone(),
            place: place.display().to_string(),
            what,
        }
        .into());
    }
    Ok(path)
}

/// Gives everything below a directory, and itself, one modification time. Nobody else writes there, and no link is
/// followed.
fn set_times(root: &Path, seconds: i64) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let mut waiting = vec![root.to_owned()];
    let mut directories = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                rustix::fs::utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        directories.push(directory);
    }
    for directory in directories.iter().rev() {
        rustix::fs::utimensat(CWD, directory, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
