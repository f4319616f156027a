//! Starts the broker: the real binary as a child process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A broker on a free port, stopped when this is dropped.
pub(crate) struct Server {
    child: Child,
    bootstrap: String,
    keep: bool,
}

impl Server {
    /// Starts `millstream serve` and waits until it listens.
    ///
    /// # Errors
    /// The broker does not start; its log says why.
    pub(crate) fn start(millstream: &Path, data: &Path, log: &Path) -> Result<Self> {
        let mut child = Command::new(millstream)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log).with_context(|| format!("cannot write {}", log.display()))?)
            .spawn()
            .with_context(|| format!("cannot start {}", millstream.display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("the standard output is a pipe")?).read_line(&mut line)?;
        let Some(bootstrap) = line.trim().strip_prefix("listening on ").map(str::to_owned) else {
            child.kill().ok();
            bail!("the broker did not start: see {}", log.display());
        };
        Ok(Self { child, bootstrap, keep: false })
    }

    /// Returns the address, as `HOST:PORT`.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Leaves the broker running, and returns the id of its process.
    pub(crate) fn keep(mut self) -> u32 {
        self.keep = true;
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.keep {
            kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
            self.child.wait().ok();
        }
    }
}
