//! The program that could not be started, read where it lies in the image.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rbuild_runner::{FileKind, root};
use rustix::fs::OFlags;

use super::Failed;

/// Bytes of a program that are looked at: a first line, or the headers of an ELF file.
const HEAD: u64 = 4096;

/// How shells end the line about a program that they could not start.
const ENDINGS: [&str; 9] = [
    ": not found",
    ": command not found",
    ": No such file or directory",
    ": Permission denied",
    ": Exec format error",
    ": exec format error",
    ": cannot execute: required file not found",
    ": cannot execute binary file: Exec format error",
    ": bad interpreter",
];

/// The layers that a step stood on, topmost first.
///
/// Each is looked at by itself: a symlink into another layer is not followed, and what a higher layer deleted is seen. Good
/// enough for a guess.
pub(crate) struct Files {
    layers: Vec<PathBuf>,
}

/// What is known of a file.
struct Program {
    head: Vec<u8>,
    mode: u32,
}

impl Files {
    /// Of directories, lowest first.
    pub(crate) fn new(lowers: &[PathBuf]) -> Self {
        Self {
            layers: lowers.iter().rev().cloned().collect(),
        }
    }

    fn program(&self, path: &[u8]) -> Option<Program> {
        self.layers.iter().find_map(|layer| {
            let root = root::open_root(layer).ok()?;
            let metadata = root::metadata(root.as_fd(), path).ok()?;
            if metadata.kind != FileKind::File {
                return None;
            }
            // A file that became a fifo meanwhile would block.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let file = std::fs::File::from(root::open(root.as_fd(), path, flags).ok()?);
            let mut head = Vec::new();
            file.take(HEAD).read_to_end(&mut head).ok()?;
            Some(Program {
                head,
                mode: metadata.mode,
            })
        })
    }

    /// Whether there is anything of that name; symlinks count, wherever they lead.
    fn has(&self, path: &[u8]) -> bool {
        self.layers.iter().any(|layer| {
            root::open_root(layer).is_ok_and(|root| {
                let flags = OFlags::PATH;
                root::open_no_follow(root.as_fd(), path, flags).is_ok()
            })
        })
    }
}

/// The program that a shell's last words are about.
pub(super) fn named_in<'a>(lines: &[&'a str]) -> Option<&'a str> {
    lines.iter().rev().take(20).find_map(|line| {
        let end = ENDINGS
            .iter()
            .filter_map(|ending| line.find(ending))
            .min()?;
        let name = line[..end].rsplit(": ").next()?;
        // `bash: ./x: /bin/sh^M: bad interpreter` names the interpreter last, and the script is what matters.
        let name = match line[..end].rsplit(": ").nth(1) {
            Some(script) if line[end..].starts_with(": bad interpreter") => script,
            _ => name,
        };
        let name = name.strip_prefix("can't execute ").unwrap_or(name);
        let name = name.trim_matches(|quote| "'‘’`\"".contains(quote));
        (!name.is_empty() && !name.contains(' ')).then_some(name)
    })
}

/// What keeps the program `name` from starting.
pub(super) fn advice(name: &str, failed: &Failed<'_>, files: &Files) -> Option<String> {
    if let Some(command) = name.strip_suffix("\\r").or_else(|| name.strip_suffix('\r')) {
        return Some(format!(
            "a script asks for `{command}` followed by a carriage return: it has Windows line ends (CRLF); {MEND_LINE_ENDS}"
        ));
    }
    match name {
        "sudo" => {
            return Some(
                "steps run as root unless `USER` says otherwise: leave `sudo` out".to_owned(),
            );
        }
        "[[" | "source" | "pushd" | "popd" | "declare" => {
            return Some(super::said::needs_bash());
        }
        _ => {}
    }
    if !name.contains('/') {
        return Some(format!(
            "`{name}` is not in this image, or not in its PATH: install it in an earlier step, or begin with an image that has it"
        ));
    }
    let path = absolute(name, failed.working_directory);
    of_path(&path, files).or_else(|| {
        (!files.has(path.as_bytes())).then(|| {
            format!("there is no `{path}` in the image at this step: copy it there first, or mend the path (the working directory is `{}`)", failed.working_directory)
        })
    })
}

/// The same of a program by its path.
pub(super) fn of_path(path: &str, files: &Files) -> Option<String> {
    let program = files.program(path.as_bytes())?;
    if let Some(line) = program.head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or(line);
        let text = String::from_utf8_lossy(line);
        if text.ends_with('\r') {
            return Some(format!(
                "`{path}` begins with `#!{}` and a carriage return: it has Windows line ends (CRLF); {MEND_LINE_ENDS}",
                text.trim_end()
            ));
        }
        let interpreter = text.split_whitespace().next()?;
        if !files.has(interpreter.as_bytes()) {
            return Some(format!(
                "`{path}` begins with `#!{}`, and there is no `{interpreter}` in the image: install it, or use what is there (`#!/bin/sh`)",
                text.trim()
            ));
        }
    } else if let Some(architecture) = architecture(&program.head)
        && architecture != crate::build::this_machine().architecture
    {
        return Some(format!(
            "`{path}` is a program for linux/{architecture}, and this machine is {}: copy the one for this platform, or build with `--platform linux/{architecture}` where its programs can run",
            crate::build::this_machine()
        ));
    } else if let Some(loader) = loader(&program.head)
        && !files.has(loader.as_bytes())
    {
        return Some(format!(
            "`{path}` is linked against a C library whose loader `{loader}` is not in the image (a glibc program in a musl image, or none at all): link it statically, or begin with an image that has it"
        ));
    }
    (program.mode & 0o111 == 0).then(|| {
        format!(
            "`{path}` is not executable: `COPY --chmod=755 …`, or `chmod +x` it where it comes from"
        )
    })
}

const MEND_LINE_ENDS: &str = "save it with Unix ones, and keep git from changing them with `*.sh text eol=lf` in `.gitattributes`";

fn absolute(name: &str, directory: &str) -> String {
    if name.starts_with('/') {
        return name.to_owned();
    }
    let name = name.strip_prefix("./").unwrap_or(name);
    format!("{}/{name}", directory.trim_end_matches('/'))
}

/// The architecture of an ELF file as images name it.
fn architecture(head: &[u8]) -> Option<&'static str> {
    let machine = u16::from_le_bytes(elf(head)?.get(18..20)?.try_into().ok()?);
    let machine = if head[5] == 2 {
        machine.swap_bytes()
    } else {
        machine
    };
    Some(match machine {
        3 => "386",
        8 => "mips",
        20 => "ppc",
        21 => "ppc64le",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        258 => "loong64",
        _ => return None,
    })
}

fn elf(head: &[u8]) -> Option<&[u8]> {
    (head.starts_with(b"\x7fELF") && head.len() > 20).then_some(head)
}

/// The loader that a 64-bit little-endian ELF file asks for.
fn loader(head: &[u8]) -> Option<String> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(head.get(at..at.checked_add(size)?)?);
        Some(u64::from_le_bytes(bytes))
    };
    elf(head).filter(|head| head[4] == 2 && head[5] == 1)?;
    let table = usize::try_from(number(32, 8)?).ok()?;
    let (size, count) = (number(54, 2)?, number(56, 2)?);
    (0..count)
        .map_while(|index| table.checked_add(usize::try_from(index * size).ok()?))
        .find(|at| number(*at, 4) == Some(PT_INTERP))
        .and_then(|at| {
            let start = usize::try_from(number(at.checked_add(8)?, 8)?).ok()?;
            let length = usize::try_from(number(at.checked_add(32)?, 8)?).ok()?;
            let text = head.get(start..start.checked_add(length)?)?;
            let text = text.split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(text).into_owned())
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rbuild_runner::job::CommandStatus;
    use tempfile::TempDir;

    use super::*;

    fn failed(output: &[u8]) -> Failed<'_> {
        Failed {
            status: CommandStatus::Exited(127),
            output,
            script: "",
            working_directory: "/app",
            is_offline: false,
            resolv_conf: b"",
        }
    }

    #[test]
    fn shells_name_what_they_could_not_start() {
        for (line, name) in [
            ("/bin/sh: 1: curl: not found", Some("curl")),
            ("/bin/sh: curl: not found", Some("curl")),
            ("/bin/bash: line 1: curl: command not found", Some("curl")),
            ("/bin/sh: 1: ./run.sh: Permission denied", Some("./run.sh")),
            (
                "bash: ./run.sh: /bin/bash^M: bad interpreter: No such file or directory",
                Some("./run.sh"),
            ),
            (
                "env: can't execute 'bash\r': No such file or directory",
                Some("bash\r"),
            ),
            (
                "/usr/bin/env: ‘bash\\r’: No such file or directory",
                Some("bash\\r"),
            ),
            (
                "/bin/bash: line 1: /x: cannot execute binary file: Exec format error",
                Some("/x"),
            ),
            ("make: *** [all] Error 127", None),
            ("cat: a b c: No such file or directory", None),
        ] {
            assert_eq!(named_in(&[line]), name, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_program_is_seen() {
        let image = TempDir::new().unwrap();
        let files = Files::new(&[image.path().to_owned()]);
        std::fs::create_dir_all(image.path().join("app")).unwrap();
        std::fs::create_dir_all(image.path().join("bin")).unwrap();
        std::fs::write(image.path().join("bin/sh"), "").unwrap();
        let elf = |machine: u8| {
            let mut head = vec![0; 64];
            head[..6].copy_from_slice(b"\x7fELF\x02\x01");
            head[18] = machine;
            head
        };
        let native = if cfg!(target_arch = "x86_64") {
            62
        } else {
            183
        };
        for (content, mode, wanted) in [
            (
                b"#!/bin/sh\r\necho\r\n".to_vec(),
                0o755,
                Some("Windows line ends (CRLF)"),
            ),
            (
                b"#!/bin/bash -e\n".to_vec(),
                0o755,
                Some("there is no `/bin/bash` in the image"),
            ),
            (
                b"#!/bin/sh\n".to_vec(),
                0o644,
                Some("`/app/run` is not executable"),
            ),
            (b"#!/bin/sh\n".to_vec(), 0o755, None),
            (
                elf(22),
                0o755,
                Some("a program for linux/s390x, and this machine is"),
            ),
            (elf(native), 0o755, None),
        ] {
            let path = image.path().join("app/run");
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let said = advice("./run", &failed(b""), &files);
            match wanted {
                Some(words) => assert!(
                    said.as_ref().is_some_and(|said| said.contains(words)),
                    "{said:?}"
                ),
                None => assert_eq!(said, None),
            }
        }
        let missing = advice("./other", &failed(b""), &files).unwrap();
        assert!(
            missing.starts_with("there is no `/app/other` in the image"),
            "{missing}"
        );
    }

    #[test]
    fn the_loader_of_this_very_program_is_found() {
        let head = std::fs::read("/proc/self/exe").unwrap();
        let head = &head[..usize::try_from(HEAD).unwrap()];
        // A static build has none.
        if let Some(loader) = loader(head) {
            assert!(std::path::Path::new(&loader).exists(), "{loader}");
        }
        assert_eq!(
            architecture(head),
            Some(crate::build::this_machine().architecture.as_str())
        );
    }

    #[test]
    fn headers_that_lie_are_no_trouble() {
        let mut head = vec![0xff; 128];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(loader(&head), None);
        assert_eq!(loader(&head[..21]), None);
        assert_eq!(architecture(b"\x7fELF"), None);
    }
}
