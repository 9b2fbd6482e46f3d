//! Which commit a reference means.

use super::{GitError, GitSource, is_whole_commit, redacted};
use crate::build::Workspace;
use crate::error::StepError;

/// A reference at the moment it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The full name (`refs/heads/main`); empty where none is known: a commit, or a default branch without a name.
    name: String,
    /// What the name points at: a commit, or an annotated tag.
    pub(super) object: String,
    /// The commit that an annotated tag points at.
    peeled: Option<String>,
}

impl Resolved {
    fn commit_only(commit: &str) -> Self {
        Self {
            name: String::new(),
            object: commit.to_owned(),
            peeled: None,
        }
    }

    /// What the key of the files holds: a tag and the commit that it points at have the same files, but not the same
    /// `.git`.
    pub(super) fn commit(&self, keeps_git_dir: bool) -> &str {
        match &self.peeled {
            Some(commit) if !keeps_git_dir => commit,
            _ => &self.object,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Asks the remote, unless the source names a whole commit.
pub(crate) async fn resolve(
    workspace: &Workspace,
    source: &GitSource,
) -> Result<Resolved, StepError> {
    if is_whole_commit(&source.reference) {
        let resolved = Resolved::commit_only(&source.reference);
        check(source, &resolved, &source.reference)?;
        return Ok(resolved);
    }
    if source.fetches_by_commit {
        if !is_whole_commit(&source.checksum) {
            return Err(GitError::NoWholeCommit.into());
        }
        return Ok(Resolved {
            name: match source.reference.as_str() {
                "" => String::new(),
                full if full.starts_with("refs/") => full.to_owned(),
                branch => format!("refs/heads/{branch}"),
            },
            ..Resolved::commit_only(&source.checksum)
        });
    }
    let (git, _) = source.git(workspace)?;
    let wanted = source.reference.as_str();
    let peeled = format!("{wanted}^{{}}");
    let mut arguments = vec!["ls-remote"];
    if wanted.is_empty() {
        arguments.extend(["--symref", "--", &source.remote, "HEAD"]);
    } else {
        arguments.extend(["--", &source.remote, wanted, &peeled]);
    }
    let answer = git.run("read the references of", &arguments).await?;
    let found = if wanted.is_empty() {
        default_branch(&answer).ok_or_else(|| GitError::Empty {
            remote: redacted(&source.remote),
        })?
    } else {
        pick(&answer, wanted).ok_or_else(|| GitError::NoReference {
            remote: redacted(&source.remote),
            reference: wanted.to_owned(),
        })?
    };
    let shown = match wanted {
        "" if found.name.is_empty() => "HEAD",
        "" => &found.name,
        name => name,
    };
    check(source, &found, shown)?;
    Ok(found)
}

/// The promised commit may be shortened, and may be a tag's own id or the commit's.
fn check(source: &GitSource, found: &Resolved, shown: &str) -> Result<(), GitError> {
    let fits = |id: &String| id.starts_with(&source.checksum);
    if fits(&found.object) || found.peeled.as_ref().is_some_and(fits) {
        return Ok(());
    }
    Err(GitError::Checksum {
        remote: redacted(&source.remote),
        reference: shown.to_owned(),
        expected: source.checksum.clone(),
        found: found.commit(false).to_owned(),
    })
}

/// Lines of `ls-remote`: an id and a name.
fn lines(answer: &str) -> impl Iterator<Item = (&str, &str)> {
    answer
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(id, _)| is_whole_commit(id))
}

/// `ref: refs/heads/main<TAB>HEAD`, then the id.
fn default_branch(answer: &str) -> Option<Resolved> {
    let (id, _) = lines(answer).find(|(_, name)| *name == "HEAD")?;
    let name = answer.lines().find_map(|line| {
        let (target, name) = line.strip_prefix("ref: ")?.split_once('\t')?;
        (name == "HEAD" && super::is_name(target)).then(|| target.to_owned())
    });
    Some(Resolved {
        name: name.unwrap_or_default(),
        ..Resolved::commit_only(id)
    })
}

/// The name itself below `refs/`, else the branch, else the tag: `ls-remote` finds every name that ends like the wanted
/// one.
fn pick(answer: &str, wanted: &str) -> Option<Resolved> {
    let of = |name: &str| {
        lines(answer)
            .find(|(_, found)| *found == name)
            .map(|(id, _)| id.to_owned())
    };
    let below = |start: &str| {
        let rest = wanted.strip_prefix(start).unwrap_or(wanted);
        format!("{start}{rest}")
    };
    let (plain, branch, tag) = (below("refs/"), below("refs/heads/"), below("refs/tags/"));
    for name in [plain, branch, tag] {
        if let Some(object) = of(&name) {
            let peeled = name
                .starts_with("refs/tags/")
                .then(|| of(&format!("{name}^{{}}")))
                .flatten();
            return Some(Resolved {
                name,
                object,
                peeled,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_goes_before_a_tag_and_a_full_name_before_both() {
        let id = |digit: char| digit.to_string().repeat(40);
        let answer = format!(
            "{}\trefs/heads/x\n{}\trefs/tags/x\n{}\trefs/tags/x^{{}}\n{}\trefs/heads/other/x\nnonsense\n",
            id('1'),
            id('2'),
            id('3'),
            id('4')
        );
        for (wanted, name, object, peeled) in [
            ("x", "refs/heads/x", '1', None),
            ("refs/tags/x", "refs/tags/x", '2', Some('3')),
            ("tags/x", "refs/tags/x", '2', Some('3')),
            ("other/x", "refs/heads/other/x", '4', None),
        ] {
            let found = pick(&answer, wanted).unwrap();
            assert_eq!(found.name, name, "{wanted}");
            assert_eq!(found.object, id(object), "{wanted}");
            assert_eq!(found.peeled, peeled.map(id), "{wanted}");
        }
        assert_eq!(pick(&answer, "y"), None);
    }

    #[test]
    fn the_default_branch_has_a_name_where_the_server_tells_it() {
        let id = "a".repeat(40);
        let found = default_branch(&format!("ref: refs/heads/main\tHEAD\n{id}\tHEAD\n")).unwrap();
        assert_eq!(
            (found.name.as_str(), found.object.as_str()),
            ("refs/heads/main", id.as_str())
        );
        let found = default_branch(&format!("{id}\tHEAD\n")).unwrap();
        assert_eq!(found.name, "");
        assert_eq!(default_branch("").map(|found| found.object), None);
        let found = default_branch(&format!("ref: --x\tHEAD\n{id}\tHEAD\n")).unwrap();
        assert_eq!(found.name, "", "a name that is none");
    }
}
