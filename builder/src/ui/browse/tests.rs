//! Keys, and what stands on the screen after them.

use std::str::FromStr;

use rbuild::layers::{Change, ChangeKind};

use super::*;

fn change(path: &str, kind: ChangeKind, size: u64, hidden: u64) -> Change {
    Change {
        path: path.into(),
        kind,
        size,
        hidden,
    }
}

fn image() -> ImageLayers {
    let layer = |digit: &str, created_by: &str, size, changes| LayerView {
        diff_id: oci_spec::image::Digest::from_str(&format!("sha256:{}", digit.repeat(64)))
            .expect("a digest"),
        created_by: created_by.to_owned(),
        size,
        changes,
    };
    ImageLayers {
        image_id: oci_spec::image::Digest::from_str(&format!("sha256:{}", "0".repeat(64)))
            .expect("a digest"),
        layers: vec![
            layer(
                "1",
                "COPY . /app",
                12_400_000,
                vec![
                    change("app", ChangeKind::Added, 0, 0),
                    change("app/bin/main", ChangeKind::Added, 12_000_000, 0),
                    change("app/\u{6f22}\u{5b57}\x1b[2J", ChangeKind::Added, 10, 0),
                ],
            ),
            layer(
                "2",
                "RUN rm /app/bin/main",
                1_024,
                vec![change("app/bin/main", ChangeKind::Removed, 0, 12_000_000)],
            ),
        ],
    }
}

/// What stands on a terminal of this size after these bytes were typed.
fn shown(columns: usize, rows: usize, typed: &[u8]) -> String {
    let size = Size { columns, rows };
    let mut browser = Browser::new(&image());
    for key in keys::parse(typed) {
        browser.press(key, rows - FRAME);
    }
    let lines = browser.lines(size, Terminal::default());
    assert_eq!(lines.len(), rows);
    let plain = |line: &String| line.replace("\x1b[7m", ">").replace("\x1b[0m", "");
    for line in &lines {
        assert!(width(&plain(line).replace('>', "")) < columns, "{line:?}");
    }
    let lines: Vec<String> = lines
        .iter()
        .map(|line| plain(line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

#[test]
fn one_walks_through_the_tree() {
    insta::assert_snapshot!(shown(72, 9, b""), @r"
    12.4 MB in 2 layers, 12.0 MB of them wasted
    >▸   1 COPY . /app                            12.4 MB
    ▸   2 RUN rm /app/bin/main                    1.0 kB  12.0 MB wasted





    arrows: walk  enter: open, close  w: only what wastes  q: leave
    ");
    insta::assert_snapshot!(shown(72, 9, b"\r\x1b[B\x1b[C"), @r"
    12.4 MB in 2 layers, 12.0 MB of them wasted
    ▾   1 COPY . /app                            12.4 MB
    >  ▾ + app                                    12.0 MB
        ▸   bin                                  12.0 MB
          + 漢字                                    10 B
    ▸   2 RUN rm /app/bin/main                    1.0 kB  12.0 MB wasted


    arrows: walk  enter: open, close  w: only what wastes  q: leave
    ");
    // Out again, and to the end.
    insta::assert_snapshot!(shown(72, 9, b"ljlhhhG"), @r"
    12.4 MB in 2 layers, 12.0 MB of them wasted
    ▸   1 COPY . /app                            12.4 MB
    >▸   2 RUN rm /app/bin/main                    1.0 kB  12.0 MB wasted





    arrows: walk  enter: open, close  w: only what wastes  q: leave
    ");
    insta::assert_snapshot!(shown(72, 9, b"w\x1bOCjljl"), @r"
    12.4 MB in 2 layers, 12.0 MB of them wasted; only what wastes
    ▾   2 RUN rm /app/bin/main                    1.0 kB  12.0 MB wasted
      ▾   app                                        0 B  12.0 MB wasted
    >    ▾   bin                                      0 B  12.0 MB wasted
            - main                                   0 B  12.0 MB wasted



    arrows: walk  enter: open, close  w: only what wastes  q: leave
    ");
}

#[test]
fn a_small_terminal_shows_where_one_is() {
    insta::assert_snapshot!(shown(30, 4, b"ljlj"), @r"
    12.4 MB in 2 layers, 12.0 ...
      ▾ + app             12.0 MB
    >    ▸   bin           12.0 MB
    arrows: walk  enter: open,...
    ");
}

#[test]
fn keys_are_recognised() {
    let table: [(&[u8], &[Key]); 7] = [
        (b"q", &[Key::Leave]),
        (b"\x03", &[Key::Leave]),
        (b"\x1b", &[Key::Leave]),
        (b"\x1b[A\x1b[6~j", &[Key::Up, Key::PageDown, Key::Down]),
        // Shift-F5 and a letter that means nothing.
        (b"\x1b[15;2~z\r", &[Key::Toggle]),
        (b"\x1b[", &[]),
        (b"\x1bx\xff\xfe", &[]),
    ];
    for (bytes, expected) in table {
        assert_eq!(keys::parse(bytes), expected, "{bytes:?}");
    }
}
