//! Standard output without the panic of `println!` on a closed pipe, and the text of errors.

use std::io::{self, BufWriter, StdoutLock, Write};

/// Returns buffered standard output. Write with `writeln!(out, ...)?` and end with `out.flush()?`.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Writes one line to standard output and flushes it.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Formats a count: `1 record`, `2 records`.
pub(crate) fn records(count: u64) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

/// Returns whether the error was caused by a closed output pipe.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// Formats an error and its causes on one line. A cause that is already quoted is not repeated.
pub(crate) fn error_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_quoted_cause_is_not_repeated() {
        let missing = || Err::<(), _>(io::Error::new(io::ErrorKind::NotFound, "no such file"));
        let plain = missing().context("cannot read a.wasm").context("plug-in a").unwrap_err();
        assert_eq!(error_line(&plain), "plug-in a: cannot read a.wasm: no such file");
        let quoted = missing().context("cannot read a.wasm: no such file").context("plug-in a").unwrap_err();
        assert_eq!(error_line(&quoted), "plug-in a: cannot read a.wasm: no such file");
    }

    #[test]
    fn a_broken_pipe_is_found_below_its_context() {
        let error =
            Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write the records").unwrap_err();
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&anyhow::anyhow!("no such topic")));
    }
}
