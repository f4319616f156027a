//! Measures the way of an edited plug-in from its source to a running broker: `plugin build`, `plugin push`, and a view
//! that the new version serves. The caches of the compilers are warm, and the component is new each time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::measure::median;
use crate::report::Row;

/// The edits that are measured.
const EDITS: usize = 7;

/// A language as `plugin new` names it, its file with the filter, and the expression there that decides about a record.
struct Language {
    name: &'static str,
    option: &'static str,
    file: &'static str,
    decision: &'static str,
    length: &'static str,
}

const LANGUAGES: [Language; 3] = [
    Language {
        name: "Rust",
        option: "rust",
        file: "src/lib.rs",
        decision: "value.contains(&self.text)",
        length: "value.len()",
    },
    Language {
        name: "C",
        option: "c",
        file: "src/plugin.c",
        decision: "ms_contains(record->value, text)",
        length: "record->value.length",
    },
    Language {
        name: "Go",
        option: "go",
        file: "plugin.go",
        decision: "bytes.Contains(record.Value(), []byte(it.Text))",
        length: "len(record.Value())",
    },
];

impl Language {
    fn row(&self) -> String {
        format!("source to serving, {}", self.name)
    }

    /// Returns the source after an edit. Every second one keeps the other records, and each is another component.
    fn edited(&self, source: &str, edit: usize) -> Result<String> {
        let Language { decision, length, file, .. } = self;
        ensure!(source.contains(decision), "{file} does not have `{decision}`");
        let compared = if edit.is_multiple_of(2) { "==" } else { "!=" };
        Ok(source.replace(decision, &format!("({decision} {compared} ({length} < {}))", 1_000 + edit)))
    }
}

/// Measures every language whose row contains `only` and whose compiler is here. `millstream` is the binary.
pub(crate) fn rows(millstream: &Path, only: &str) -> Result<Vec<Row>> {
    let wanted: Vec<&Language> = LANGUAGES.iter().filter(|language| language.row().contains(only)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    ensure!(millstream.is_file(), "{} is missing: run cargo xtask bench --stages", millstream.display());
    let broker = Broker::start(millstream)?;
    broker.run(&["topic", "create", "lines", "--partitions", "1", "-b", &broker.address])?;
    broker.produce("lines", "an error\nall is well\n")?;
    let mut rows = Vec::new();
    for language in wanted {
        match broker.measure(language) {
            Ok(row) => rows.push(row),
            Err(error) => println!("{} is left out: {error:#}", language.name),
        }
    }
    Ok(rows)
}

/// A broker of this binary, and the folder of everything that is made. Dropping it ends the process.
struct Broker {
    millstream: PathBuf,
    folder: tempfile::TempDir,
    child: Child,
    address: String,
}

impl Broker {
    fn start(millstream: &Path) -> Result<Broker> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(millstream);
        command.env("XDG_CACHE_HOME", folder.path().join("cache"));
        command.arg("serve").arg("--data-dir").arg(folder.path().join("data")).args(["--listen", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", millstream.display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").context("the broker does not listen")?.to_owned();
        Ok(Broker { millstream: millstream.to_owned(), folder, child, address })
    }

    /// Returns a command of the binary in the folder, with the cache of the broker.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.millstream);
        command.args(arguments).current_dir(self.folder.path());
        command.env("XDG_CACHE_HOME", self.folder.path().join("cache"));
        command
    }

    /// Runs a command, and returns what it prints.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output()?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`millstream {}` has failed: {}", arguments.join(" "), problem.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    fn produce(&self, topic: &str, lines: &str) -> Result<()> {
        let mut child = self
            .command(&["produce", topic, "-b", &self.address])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        child.stdin.take().context("a pipe")?.write_all(lines.as_bytes())?;
        ensure!(child.wait()?.success(), "`millstream produce` has failed");
        Ok(())
    }

    fn measure(&self, language: &Language) -> Result<Row> {
        let name = format!("{}-filter", language.option);
        self.run(&["plugin", "new", &name, "--kind", "filter", "--language", language.option])?;
        let file = self.folder.path().join(&name).join(language.file);
        let source = fs::read_to_string(&file)?;
        let view = format!("seen-by-{}", language.option);
        let mut edits = Vec::new();
        for edit in 0..=EDITS {
            fs::write(&file, language.edited(&source, edit)?)?;
            let begun = Instant::now();
            let component = self.run(&["plugin", "build", &name])?;
            let built = begun.elapsed();
            self.run(&["plugin", "push", component.trim(), "-b", &self.address])?;
            let pushed = begun.elapsed();
            if edit == 0 {
                // It warms up the compiler, and the view needs a version.
                let stage = format!(r#"{name}{{"text":"error"}}"#);
                self.run(&["view", "create", &view, "--of", "lines", "--filter", &stage, "-b", &self.address])?;
            }
            let seen = self.run(&["consume", &view, "--from-beginning", "-b", &self.address])?;
            let expected = if edit.is_multiple_of(2) { "an error\n" } else { "all is well\n" };
            ensure!(seen == expected, "after edit {edit} the view shows {seen:?} instead of {expected:?}");
            if edit > 0 {
                edits.push([built, pushed - built, begun.elapsed() - pushed, begun.elapsed()]);
            }
        }
        let at = |step: usize| median(edits.iter().map(|edit: &[Duration; 4]| edit[step].as_secs_f64()));
        let longest = edits.iter().map(|edit| edit[3].as_secs_f64()).fold(0.0, f64::max);
        let detail = format!(
            "`plugin build` {:.2} s, `plugin push` {:.2} s, `consume` of a view {:.2} s; {EDITS} edits, \
             {longest:.2} s at most",
            at(0),
            at(1),
            at(2)
        );
        Ok(Row { name: language.row(), figure: format!("{:.2} s", at(3)), goal: "2 s".to_owned(), detail })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The templates have the expression that an edit changes.
    #[test]
    fn every_template_can_be_edited() {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/cli/templates");
        for (language, template) in LANGUAGES.iter().zip(["filter.rs", "c/filter.c", "go/filter.go"]) {
            let source = fs::read_to_string(templates.join(template)).unwrap();
            let (even, odd) = (language.edited(&source, 2).unwrap(), language.edited(&source, 3).unwrap());
            assert!(even.contains(" < 1002") && odd.contains("!=") && !source.contains(" < 100"));
        }
    }
}
