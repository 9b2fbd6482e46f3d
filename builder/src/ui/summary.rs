//! The end of a build: what there is now, and what it took.

use std::time::Duration;

use rbuild::BuildOutcome;

use super::terminal::{Style, Terminal};
use super::units;

/// A few lines, greppable by their first word.
pub(crate) fn render(outcome: &BuildOutcome, took: Duration, terminal: Terminal) -> String {
    let names = match outcome.tags.as_slice() {
        [] => "an image without a name".to_owned(),
        tags => tags.join(", "),
    };
    let mut rows = vec![("built", terminal.paint(Style::Bold, &names))];
    for image in &outcome.images {
        // The platform tells images apart; of a single one it is no news.
        let platform = if outcome.images.len() > 1 {
            format!(" {}", image.platform)
        } else {
            String::new()
        };
        rows.push(("id", format!("{}{platform}", image.image_id)));
        rows.push((
            "size",
            format!("{} in {} layers", units::bytes(image.size), image.layers),
        ));
    }
    rows.extend(
        outcome
            .descriptor
            .iter()
            .map(|descriptor| ("digest", descriptor.digest.to_string())),
    );
    rows.push((
        "steps",
        format!(
            "{} run, {} cached",
            outcome.counts.done, outcome.counts.cached
        ),
    ));
    rows.push(("time", units::duration(took)));
    let line = |(word, value)| {
        format!(
            "{} {value}\n",
            terminal.paint(Style::Green, &format!("{word:<6}"))
        )
    };
    rows.into_iter().map(line).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use oci_spec::image::Digest;
    use rbuild::export::ExportedDescriptor;
    use rbuild::{BuiltPlatform, StepCounts};
    use rbuild_frontend::platform::Platform;

    use super::*;

    fn digest(digit: &str) -> Digest {
        Digest::from_str(&format!("sha256:{}", digit.repeat(64))).unwrap()
    }

    fn image(architecture: &str, digit: &str) -> BuiltPlatform {
        let platform = Platform::new("linux", architecture, "");
        BuiltPlatform {
            platform,
            image_id: digest(digit),
            layers: 3,
            size: 12_300_000,
        }
    }

    #[test]
    fn summaries() {
        let took = Duration::from_millis(1_440);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let one = BuildOutcome {
            image_id: digest("1"),
            descriptor: Some(ExportedDescriptor {
                media_type: media_type.to_owned(),
                digest: digest("2"),
                size: 500,
            }),
            tags: vec!["app:latest".into(), "app:1".into()],
            images: vec![image("amd64", "1")],
            counts: StepCounts { cached: 3, done: 2 },
            build_id: None,
        };
        insta::assert_snapshot!(render(&one, took, Terminal::default()), @r"
        built  app:latest, app:1
        id     sha256:1111111111111111111111111111111111111111111111111111111111111111
        size   12.3 MB in 3 layers
        digest sha256:2222222222222222222222222222222222222222222222222222222222222222
        steps  2 run, 3 cached
        time   1.4s
        ");
        let images = vec![image("amd64", "1"), image("arm64", "3")];
        let two = BuildOutcome {
            descriptor: None,
            tags: vec![],
            images,
            ..one
        };
        insta::assert_snapshot!(render(&two, took, Terminal::default()), @r"
        built  an image without a name
        id     sha256:1111111111111111111111111111111111111111111111111111111111111111 linux/amd64
        size   12.3 MB in 3 layers
        id     sha256:3333333333333333333333333333333333333333333333333333333333333333 linux/arm64
        size   12.3 MB in 3 layers
        steps  2 run, 3 cached
        time   1.4s
        ");
    }
}
