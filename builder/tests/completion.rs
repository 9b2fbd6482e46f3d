//! Completion, as shells have it.

use std::fs;
use std::path::Path;
use std::process::Command;

const BASH: &str = r#"source <(rbuild completion bash)
COMP_LINE="$LINE" COMP_POINT=${#LINE}; read -ra COMP_WORDS <<<"$LINE"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
_rbuild; printf '%s\n' "${COMPREPLY[@]}""#;

const ZSH: &str = r#"autoload -Uz compinit; compinit -D -u
source <(rbuild completion zsh)
compadd() { while [[ $1 != -a ]]; do shift; done; print -l -- "${(@P)2}"; }
words=(${(z)LINE}); CURRENT=${#words}; _rbuild"#;

const FISH: &str = "rbuild completion fish | source; complete --do-complete=$LINE";

/// The shells themselves load the scripts and are asked what they would offer.
#[test]
fn shells_complete_what_is_typed() {
    let place = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_rbuild")).parent().unwrap();
    let path = std::env::join_paths([binary, Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    fs::write(
        place.path().join("Dockerfile"),
        "FROM scratch AS compile\nFROM compile AS run\n",
    )
    .unwrap();
    for (shell, script) in [("bash", BASH), ("zsh", ZSH), ("fish", FISH)] {
        for (line, expected) in [
            ("rbuild expl", "explain"),
            ("rbuild -t x --target r", "run"),
            ("rbuild builds sh", "show"),
            ("rbuild build --progress raw", "rawjson"),
        ] {
            let output = Command::new(shell)
                .args(["-c", script])
                .current_dir(place.path())
                .env_clear()
                .env("HOME", place.path())
                .env("LINE", line)
                .env("PATH", &path)
                .output()
                .expect(shell);
            let offered = String::from_utf8_lossy(&output.stdout);
            let words = offered
                .lines()
                .map(|line| line.split('\t').next().unwrap_or(line));
            let words: Vec<&str> = words.map(str::trim_end).collect();
            assert_eq!(words, [expected], "{shell}: {line}: {output:?}");
        }
    }
}
