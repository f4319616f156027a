//! Runs the compilers of other languages, and says how to install one that is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// A program that a build needs.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Its name on the path.
    pub(crate) program: &'static str,
    /// The arguments that make it print its version.
    pub(crate) version: &'static [&'static str],
    /// The oldest version that works.
    pub(crate) least: (u32, u32),
    /// The command that installs it, or where it is.
    pub(crate) install: &'static str,
}

impl Tool {
    /// Checks that the program runs, and that its version is new enough.
    pub(crate) fn check(&self) -> Result<()> {
        let (program, install) = (self.program, self.install);
        let output = Command::new(program).args(self.version).stdin(Stdio::null()).output();
        let output =
            output.map_err(|error| anyhow!("cannot run {program} ({error}): install it by\n\n    {install}\n"))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let version = version(&printed).filter(|_| output.status.success());
        let version = version.with_context(|| failure(&format!("{program} prints no version"), &output))?;
        let (major, minor) = self.least;
        if version < self.least {
            bail!(
                "{program} {}.{} is too old: {major}.{minor} is needed; install it by\n\n    {install}\n",
                version.0,
                version.1
            );
        }
        Ok(())
    }
}

/// Returns the first two numbers of a text that are joined by a dot.
pub(crate) fn version(text: &str) -> Option<(u32, u32)> {
    text.split(|character: char| !character.is_ascii_digit() && character != '.').find_map(|word| {
        let mut numbers = word.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        }
    })
}

/// Runs a compiler. Its errors go to stderr if `verbose`, else into the error.
pub(crate) fn compile(what: &str, command: &mut Command, verbose: bool) -> Result<()> {
    command.stdin(Stdio::null());
    command.stderr(if verbose { Stdio::inherit() } else { Stdio::piped() });
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}", failure(what, &output));
    }
    Ok(())
}

fn failure(what: &str, output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stderr);
    match printed.trim() {
        "" => format!("{what} ({})", output.status),
        printed => format!("{what}:\n{printed}"),
    }
}

/// Returns the nearest folder, from `dir` upwards, that has `path` in it.
pub(crate) fn above(dir: &Path, path: &str) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    dir.ancestors().find(|folder| folder.join(path).exists()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        for (text, expected) in [
            ("Debian clang version 14.0.6\nTarget: x86_64", Some((14, 0))),
            ("go version go1.26.8 linux/amd64", Some((1, 26))),
            ("v20.20.2\n", Some((20, 20))),
            ("Homebrew LLD 19.1.7 (compatible with GNU linkers)", Some((19, 1))),
            ("nothing", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_or_old_tool_is_named_with_the_command_that_installs_it() {
        let tool = |program, least| Tool { program, version: &["--version"], least, install: "apt-get install it" };
        let missing = tool("millstream-has-no-such-tool", (1, 0)).check().unwrap_err().to_string();
        assert!(missing.contains("cannot run millstream-has-no-such-tool"), "{missing}");
        assert!(missing.contains("apt-get install it"), "{missing}");
        let old = tool("cargo", (1_000, 0)).check().unwrap_err().to_string();
        assert!(old.contains("too old: 1000.0 is needed") && old.contains("apt-get install it"), "{old}");
        tool("cargo", (1, 0)).check().unwrap();
    }
}
