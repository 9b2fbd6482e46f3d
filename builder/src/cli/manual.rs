//! `rbuild man`: manual pages, made of the same definitions as the help.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_mangen::Man;

use super::failure::Failure;

/// A page that can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the manual page `{path}`")]
struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Prints `rbuild.1`, or writes it and a page of each verb into a directory, which is made when it is missing.
pub(super) fn write(directory: Option<&Path>) -> Result<ExitCode, Failure> {
    let mut command = super::command();
    command.build();
    let Some(directory) = directory else {
        crate::ui::print_bytes(&page(&command).1);
        return Ok(ExitCode::SUCCESS);
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::new(WriteError { path, source })
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    for (name, bytes) in pages(&command) {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(failed(&path))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The command's page and those of all verbs below it.
fn pages(command: &clap::Command) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![page(command)];
    let verbs = command
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help");
    for verb in verbs {
        found.extend(pages(verb));
    }
    found
}

/// File name and content.
fn page(command: &clap::Command) -> (String, Vec<u8>) {
    // `rbuild builds show` is `rbuild-builds-show.1`.
    let man = Man::new(command.clone());
    let mut bytes = Vec::new();
    // Writing into memory does not fail.
    let _ = man.render(&mut bytes);
    (man.get_filename(), bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_verb_has_a_page() {
        let mut command = crate::cli::command();
        command.build();
        let pages = super::pages(&command);
        for name in [
            "rbuild.1",
            "rbuild-build.1",
            "rbuild-builds-show.1",
            "rbuild-cache-rm.1",
        ] {
            let (_, bytes) = (pages.iter().find(|(file, _)| file == name)).expect(name);
            let text = String::from_utf8_lossy(bytes);
            assert!(text.contains(".SH SYNOPSIS"), "{name}: {text}");
        }
        let names: std::collections::BTreeSet<_> = pages.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), pages.len());
    }
}
