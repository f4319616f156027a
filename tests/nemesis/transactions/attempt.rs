//! Copies name the attempt that made them: one transaction, and whether it is to be committed.

/// What the names of attempts that are to be aborted begin with.
const ABORTED: &str = "aborted";

const SEPARATOR: &str = " by ";

/// Returns a name for a transaction, without digits.
pub(super) fn name(commits: bool) -> String {
    let random = std::iter::repeat_with(fastrand::lowercase).take(10);
    format!("{}-{}", if commits { "committed" } else { ABORTED }, random.collect::<String>())
}

/// Returns the copy of a value.
pub(super) fn copy(value: &str, attempt: &str) -> String {
    format!("{value}{SEPARATOR}{attempt}")
}

/// Returns the value that was copied, and the attempt.
pub(super) fn parse(copy: &str) -> (&str, &str) {
    copy.split_once(SEPARATOR).expect("a copy names its attempt")
}

/// Returns whether an attempt was to be aborted.
pub(super) fn is_aborted(attempt: &str) -> bool {
    attempt.starts_with(ABORTED)
}
