//! `rbuild run`: an image looked at in the sandbox of RUN steps.

use std::fs;
use std::process::Output;

use crate::support::Place;

/// A place with an image named `app`.
fn place() -> Place {
    let place = Place::new();
    let dockerfile = "FROM base\nENV A=image B=kept\nWORKDIR /data\nUSER app\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"echo default\"]\n";
    place.build(dockerfile).arg("--tag=app").ok();
    place
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    let mut command = place.rbuild();
    command.arg("run").args(arguments);
    command.output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_the_image_says_can_be_replaced() {
    let place = place();
    let show = "echo $A $B $C; pwd; id -u; id -g";
    let rows: &[(&[&str], &str)] = &[
        (&["--network=none", "app"], "default\n"),
        (
            &["--network=none", "app", show],
            "image kept\n/data\n1000\n1001\n",
        ),
        (
            &[
                "--rm",
                "-i",
                "--network=none",
                "-e",
                "A=mine",
                "-e",
                "C=more",
                "-w",
                "/tmp",
                "-u",
                "7:8",
                "app",
                show,
            ],
            "mine kept more\n/tmp\n7\n8\n",
        ),
        (
            &["--network=none", "--entrypoint", "/bin/echo", "app", "word"],
            "word\n",
        ),
    ];
    for (arguments, expected) in rows {
        let output = run(&place, arguments);
        assert_eq!(printed(&output), *expected, "{arguments:?}: {output:?}");
    }
}

#[test]
fn exit_codes_are_passed_on() {
    let place = place();
    for (arguments, code) in [
        (&["--network=none", "app", "exit 3"][..], 3),
        (
            &[
                "--network=none",
                "app",
                "kill -9 $$; sleep 9 & kill -9 $!; wait $!",
            ],
            137,
        ),
        (&["--network=none", "--entrypoint", "/none", "app"], 127),
        (&["--network=none", "--entrypoint", "/data", "app"], 126),
        (&["no-such-image"], 125),
        (&["-v", "named:/data", "app"], 125),
        (&["--network=none", "-m", "24m", "app", "exit 4"], 4),
    ] {
        let output = run(&place, arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
    }
}

#[test]
fn volumes_are_seen_and_written_unless_read_only() {
    let place = place();
    let directory = place.path().join("volume");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("in"), "from outside").unwrap();
    let (all, one) = (
        format!("{}:/v", directory.display()),
        format!("{}:/one:ro", directory.join("in").display()),
    );
    let text = "cat /v/in /one; echo written > /v/out; echo x > /one || echo refused";
    let output = run(
        &place,
        &[
            "--network=none",
            "-u",
            "0",
            "-v",
            &all,
            "-v",
            &one,
            "app",
            text,
        ],
    );
    assert_eq!(
        printed(&output),
        "from outsidefrom outsiderefused\n",
        "{output:?}"
    );
    assert_eq!(
        fs::read_to_string(directory.join("out")).unwrap(),
        "written\n"
    );
    assert_eq!(
        fs::read_to_string(directory.join("in")).unwrap(),
        "from outside"
    );
}

#[test]
fn a_terminal_is_one_inside() {
    let place = place();
    let text = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal; echo typed > /dev/tty; exit 5";
    let output = run(&place, &["-t", "--network=none", "app", text]);
    assert_eq!(printed(&output), "terminal\r\ntyped\r\n", "{output:?}");
    assert_eq!(output.status.code(), Some(5));
    let output = run(&place, &["--network=none", "app", "[ -t 1 ] || echo none"]);
    assert_eq!(printed(&output), "none\n");
}
