//! What the proofs print.

/// A line of the result.
#[expect(clippy::print_stdout, reason = "it is a program")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// What went wrong.
#[expect(clippy::print_stderr, reason = "it is a program")]
pub(crate) fn complain(text: &str) {
    eprintln!("{text}");
}
