//! Slash-separated paths as text: cleaned and joined without asking any file system.
//!
//! The rules are Go's `path` package's, since Dockerfiles and ignore files are written against them. Whether a path
//! can leave a root is for whoever opens it to check; this is only spelling.

/// The shortest spelling: `.` and `..` resolved, slashes single, none at the end. Empty becomes `.`.
///
/// `..` at the start of a relative path stays; at the start of an absolute one it goes.
pub fn clean(path: &str) -> String {
    // Most paths are clean.
    let mut written = path.strip_prefix('/').unwrap_or(path).split('/');
    if written.all(|part| !matches!(part, "" | "." | "..")) {
        return path.to_owned();
    }
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// `path` below `directory`, or `path` itself if it is absolute; cleaned.
pub fn resolve(directory: &str, path: &str) -> String {
    if path.starts_with('/') {
        clean(path)
    } else {
        clean(&format!("{directory}/{path}"))
    }
}

/// As [`resolve`], but a trailing `/` or `/.` of `path` stays as `/`: it says that a directory is meant.
///
/// The empty path and `.` mean the directory itself.
pub fn resolve_keeping_slash(directory: &str, path: &str) -> String {
    let mut resolved = resolve(directory, path);
    let names_directory = matches!(path, "" | ".") || path.ends_with('/') || path.ends_with("/.");
    if names_directory && !resolved.ends_with('/') {
        resolved.push('/');
    }
    resolved
}

/// The last element; `/` for the root and `.` for an empty path.
pub fn base_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some((_, name)) => name,
        None if trimmed.is_empty() && path.is_empty() => ".",
        None if trimmed.is_empty() => "/",
        None => trimmed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, wanted) in [
            ("", "."),
            (".", "."),
            ("a/", "a"),
            ("a//b/./c/..", "a/b"),
            ("a/..", "."),
            ("a/../..", ".."),
            ("../../a", "../../a"),
            ("/", "/"),
            ("//..", "/"),
            ("/../a", "/a"),
            ("/a/b/../../..", "/"),
        ] {
            assert_eq!(clean(path), wanted, "{path}");
        }
    }

    #[test]
    fn paths_are_resolved() {
        for (directory, path, wanted) in [
            ("/w", "a", "/w/a"),
            ("/w", "../a/", "/a/"),
            ("/w", "/a/.", "/a/"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/", ".", "/"),
            ("/w", "./", "/w/"),
            ("/w", "..", "/"),
            ("/w/x", "..", "/w"),
        ] {
            assert_eq!(
                resolve_keeping_slash(directory, path),
                wanted,
                "{directory} {path}"
            );
        }
    }

    #[test]
    fn the_last_element_is_the_base_name() {
        for (path, wanted) in [
            ("", "."),
            ("/", "/"),
            ("a", "a"),
            ("/a/b/", "b"),
            ("a/b", "b"),
        ] {
            assert_eq!(base_name(path), wanted, "{path}");
        }
    }
}
