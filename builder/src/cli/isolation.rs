//! `--isolation` and `--ignore-chown-errors`, and the variables that stand in for them.

use std::path::PathBuf;

use rbuild::{EngineOptions, Isolation};

use super::args::IsolationArgs;
use super::error::UsageError;
use super::request::Variables;
use super::typed::parse_switch;

const FLAG: &str = "--isolation";
const IGNORE: &str = "RBUILD_IGNORE_CHOWN_ERRORS";

/// How an engine with its store at `root` is to work.
pub(crate) fn engine_options(
    root: PathBuf,
    args: &IsolationArgs,
    variables: &Variables,
) -> Result<EngineOptions, UsageError> {
    let variable = |name: &str| variables.get(name).filter(|text| !text.is_empty());
    let typed = (args.isolation.as_ref()).or_else(|| variable("RBUILD_ISOLATION"));
    let isolation = match typed.map(String::as_str) {
        // Docker's word for its only one on Linux.
        None | Some("" | "auto" | "default") => Isolation::Auto,
        Some("namespaces") => Isolation::Namespaces,
        Some("userns" | "rootless") => Isolation::Userns,
        Some("chroot") => Isolation::Chroot,
        Some(other) => {
            return Err(UsageError::value(
                FLAG,
                other,
                "it is one of auto, namespaces, userns, chroot",
            )
            .with_help("`rbuild info` says which of them can be had here"));
        }
    };
    let ignores = match variable(IGNORE) {
        None => false,
        Some(text) => parse_switch(text)
            .ok_or_else(|| UsageError::value(IGNORE, text, "it is neither true nor false"))?,
    };
    Ok(EngineOptions {
        isolation,
        ignores_chown_errors: args.ignore_chown_errors || ignores,
        ..EngineOptions::new(root)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(
        flag: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<EngineOptions, UsageError> {
        let args = IsolationArgs {
            isolation: flag.map(str::to_owned),
            ignore_chown_errors: false,
        };
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables = variables.iter().map(pair).collect();
        engine_options(PathBuf::from("/r"), &args, &variables)
    }

    #[test]
    fn flags_go_before_variables() {
        type Pairs = &'static [(&'static str, &'static str)];
        let rows: [(Option<&str>, Pairs, Isolation, bool); 6] = [
            (None, &[], Isolation::Auto, false),
            (Some("default"), &[], Isolation::Auto, false),
            (
                None,
                &[("RBUILD_ISOLATION", "userns")],
                Isolation::Userns,
                false,
            ),
            (
                Some("namespaces"),
                &[("RBUILD_ISOLATION", "userns")],
                Isolation::Namespaces,
                false,
            ),
            (None, &[("RBUILD_ISOLATION", "")], Isolation::Auto, false),
            (None, &[(IGNORE, "1")], Isolation::Auto, true),
        ];
        for (flag, variables, isolation, ignores) in rows {
            let made = options(flag, variables).expect("options");
            assert_eq!(
                (made.isolation, made.ignores_chown_errors),
                (isolation, ignores),
                "{flag:?} {variables:?}"
            );
        }
        for wrong in ["oci", "none", "AUTO"] {
            let error = options(Some(wrong), &[]).expect_err(wrong);
            assert!(error.to_string().contains(wrong));
        }
        assert!(options(None, &[(IGNORE, "perhaps")]).is_err());
    }
}
