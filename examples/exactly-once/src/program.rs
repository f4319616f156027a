//! The copier as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::copier::COMMITTED;

/// The running copier, ended when this is dropped.
pub(crate) struct Program {
    bootstrap: String,
    stage: PathBuf,
    log: PathBuf,
    process: Child,
    lines: UnboundedReceiver<String>,
}

impl Program {
    /// Starts the program.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(bootstrap: &str, stage: &Path, log: &Path) -> Result<Self> {
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--copy", bootstrap, "--stage"]).arg(stage);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut process = command.spawn().context("cannot start the copier")?;
        let output = process.stdout.take().context("the standard output is a pipe")?;
        let (sender, lines) = mpsc::unbounded_channel();
        // Ends with the program.
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.map(|line| sender.send(line)).take_while(Result::is_ok).count()
        });
        Ok(Self { bootstrap: bootstrap.to_owned(), stage: stage.to_owned(), log: log.to_owned(), process, lines })
    }

    /// Waits for a transaction that the program has committed. Returns the number of its records.
    ///
    /// # Errors
    /// The program has ended.
    pub(crate) async fn committed(&mut self) -> Result<u64> {
        match self.lines.recv().await {
            Some(line) => {
                let count = line.strip_prefix(COMMITTED).context("the copier prints something else")?;
                Ok(count.trim().parse()?)
            }
            None => bail!("the copier has ended: {}", std::fs::read_to_string(&self.log).unwrap_or_default()),
        }
    }

    /// Ends the program with SIGKILL and starts it again.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn kill_and_restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        *self = Self::start(&self.bootstrap, &self.stage, &self.log)?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
