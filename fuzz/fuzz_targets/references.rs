//! Image names, platforms and git references: what parses prints, and parses again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::git_reference::GitReference;
use rbuild_frontend::platform::Platform;
use rbuild_frontend::reference::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        let again = Reference::parse(&reference.to_string());
        assert_eq!(again.ok(), Some(reference));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse().ok(), Some(platform));
    }
    if let Ok(Some(git)) = GitReference::parse(text) {
        // Without its query and fragment an address is still that of a repository; of `ssh://` alone `ssh:` is left,
        // as in the reference, and of `ssh://?` `ssh:?`.
        let again = GitReference::parse(&git.remote);
        let is_bare = matches!(git.remote.trim_end_matches('?'), "ssh:" | "git:");
        assert!(is_bare || matches!(again, Ok(Some(_))), "{text}: {}", git.remote);
        // That of a query is kept as it was written; who checks out goes through it name by name.
        let is_beneath = !git.subdirectory.starts_with('/');
        assert!(is_beneath || text.contains('?'), "{text}");
    }
});
