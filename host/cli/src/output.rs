//! Standard output that a closed pipe does not turn into a panic, as `println!` would.

use std::io::{self, BufWriter, StdoutLock, Write};

/// Buffered standard output: write with `writeln!(out, ...)?` and end with `out.flush()?`.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Writes one line to standard output at once.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

/// `1 record`, `2 records`.
pub(crate) fn records(count: u64) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

/// Whether the error, or what caused it, is that the reader of our output went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// An error and what caused it, on one line. Many an error quotes its cause: that is not said twice.
pub(crate) fn told_once(error: &anyhow::Error) -> String {
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
    fn a_cause_that_is_quoted_is_told_once() {
        let missing = || Err::<(), _>(io::Error::new(io::ErrorKind::NotFound, "no such file"));
        let told = missing().context("cannot read a.wasm").context("plug-in a").unwrap_err();
        assert_eq!(told_once(&told), "plug-in a: cannot read a.wasm: no such file");
        let quoted = missing().context("cannot read a.wasm: no such file").context("plug-in a").unwrap_err();
        assert_eq!(told_once(&quoted), "plug-in a: cannot read a.wasm: no such file");
    }

    #[test]
    fn a_broken_pipe_is_found_below_its_context() {
        let error =
            Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write the records").unwrap_err();
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&anyhow::anyhow!("no such topic")));
    }
}
