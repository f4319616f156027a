//! The broker under test: the real binary as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command::{Tool, wait_until};
use crate::log::{AFTER_KILL, Allowed};

/// How long a broker may take to respond, and to stop. It is generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the `millstream` binary under test: the one that `MILLSTREAM` names, else the one in the profile folder that
/// this test was built into.
///
/// # Panics
/// When it does not exist, with the command that builds it.
pub fn millstream() -> PathBuf {
    if let Some(path) = env::var_os("MILLSTREAM") {
        return path.into();
    }
    let test = env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in PROFILE/deps");
    let binary = profile.join("millstream");
    assert!(binary.exists(), "{} is missing: run `cargo build -p millstream-cli` first", binary.display());
    binary
}

/// A broker that is about to start.
#[derive(Default)]
pub struct BrokerBuilder {
    allowed: Allowed,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    plugins: Option<PathBuf>,
    program: Option<PathBuf>,
    folder: Option<PathBuf>,
    more_folders: Vec<PathBuf>,
    listen: Option<String>,
    config: Option<PathBuf>,
    open_files: Option<(u32, u32)>,
    namespace: Option<String>,
}

impl BrokerBuilder {
    /// Sets a configuration key, as `--set KEY=VALUE` does.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Sets an environment variable of the process.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Follows this folder of plug-ins, as `--plugins DIR` does.
    #[must_use]
    pub fn plugins(mut self, folder: impl Into<PathBuf>) -> Self {
        self.plugins = Some(folder.into());
        self
    }

    /// Runs this program instead of the one that [`millstream`] returns.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Uses this data folder instead of a temporary one, and does not remove it at the end.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Uses this data folder too, as another disk.
    #[must_use]
    pub fn more_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.more_folders.push(folder.into());
        self
    }

    /// Listens on this address instead of a free port of 127.0.0.1.
    #[must_use]
    pub fn address(self, address: SocketAddr) -> Self {
        self.listen(&address.to_string())
    }

    /// Passes this address, `HOST:PORT`, as `--listen`.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// Reads the configuration from a file, which names the listeners too.
    #[must_use]
    pub fn config(mut self, file: &Path) -> Self {
        self.config = Some(file.to_owned());
        self
    }

    /// Starts the process with these limits of open files, soft and hard.
    #[must_use]
    pub fn open_files(mut self, soft: u32, hard: u32) -> Self {
        self.open_files = Some((soft, hard));
        self
    }

    /// Runs the process in this network namespace.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// Allows warnings and errors in the log that contain `part`. Any other fails the test.
    #[must_use]
    pub fn allow(self, part: &str) -> Self {
        self.allowed.add(part);
        self
    }

    /// Starts a broker that does not start up, and returns what it writes to its standard error.
    ///
    /// # Panics
    /// When it goes on running.
    pub fn rejected(self) -> String {
        let temporary = TempDir::new().expect("a temporary folder can be made");
        let folder = self.folder.clone().unwrap_or_else(|| temporary.path().join("data"));
        let settings = self.settings.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
        let listen = ["--listen", "127.0.0.1:0"].map(str::to_owned);
        let finished = Tool::new(millstream())
            .arg("serve")
            .args(listen)
            .arg("--data-dir")
            .arg(folder)
            .args(self.more_folders.iter().flat_map(|folder| [Path::new("--data-dir"), folder]))
            .args(settings)
            .limit(PATIENCE)
            .run();
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        finished.stderr
    }

    /// Starts the broker and waits for its `listening on` line.
    ///
    /// # Panics
    /// When the line does not come, with the broker's log.
    pub fn start(self) -> Broker {
        let temporary = TempDir::new().expect("a temporary folder can be made");
        let folder = self.folder.clone().unwrap_or_else(|| temporary.path().join("data"));
        let log = temporary.path().join("log");
        let mut broker = Broker {
            settings: self.settings,
            environment: self.environment,
            plugins: self.plugins,
            config: self.config,
            program: self.program.unwrap_or_else(millstream),
            open_files: self.open_files,
            namespace: self.namespace,
            folder,
            more_folders: self.more_folders,
            log,
            address: None,
            child: None,
            temporary,
            allowed: self.allowed,
        };
        broker.launch(self.listen);
        broker
    }
}

/// A running broker. Dropping it kills the process, fails the test if the log has a warning or an error that was not
/// allowed, and removes the temporary folder.
pub struct Broker {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    plugins: Option<PathBuf>,
    config: Option<PathBuf>,
    program: PathBuf,
    open_files: Option<(u32, u32)>,
    namespace: Option<String>,
    folder: PathBuf,
    more_folders: Vec<PathBuf>,
    log: PathBuf,
    address: Option<SocketAddr>,
    child: Option<Child>,
    temporary: TempDir,
    allowed: Allowed,
}

impl Broker {
    /// Starts a broker with the default configuration on a free port.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Returns a broker to configure.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// Returns `HOST:PORT`, as clients take it.
    pub fn bootstrap(&self) -> String {
        self.address().to_string()
    }

    /// Returns the address that the broker listens on.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a broker that was started has an address")
    }

    /// Returns the data folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Uses these data folders beside the first one from the next start on.
    pub fn set_more_folders(&mut self, folders: &[&Path]) {
        self.more_folders = folders.iter().map(|folder| folder.to_path_buf()).collect();
    }

    /// Returns a folder for the test's own files, which is removed with the broker.
    pub fn scratch(&self) -> &Path {
        self.temporary.path()
    }

    /// Returns what the broker wrote to its standard error, over all of its runs.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Allows warnings and errors in the log that contain `part`. Any other fails the test.
    pub fn allow(&self, part: &str) {
        self.allowed.add(part);
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the broker runs"))
    }

    /// Returns whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        self.end();
        AFTER_KILL.iter().for_each(|part| self.allowed.add(part));
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Sends `signal` to stop the process, and waits for its end.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        let pid = self.pid();
        let mut child = self.child.take().expect("the broker runs");
        kill_process(pid, signal).expect("the process can be signalled");
        let log = self.log.clone();
        wait_until(&format!("the broker to stop on {signal:?}, see {}", log.display()), PATIENCE, || {
            child.try_wait().expect("the child can be waited for")
        })
    }

    /// Sets a configuration key from the next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Stops following a folder of plug-ins from the next start on.
    pub fn without_plugins(&mut self) {
        self.plugins = None;
    }

    /// Starts the broker again on the same address and data folder, after `kill` or `stop`.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the broker still runs");
        self.launch(self.address.map(|address| address.to_string()));
    }

    fn launch(&mut self, address: Option<String>) {
        let address = address.unwrap_or_else(|| "127.0.0.1:0".to_owned());
        // A client that connects while nothing listens may be assigned this very port as its own. It holds the port
        // until it notices that it is connected to itself.
        let line = wait_until(&format!("the broker to listen on {address}"), PATIENCE, || {
            self.end();
            let begun = self.log().len();
            let line = self.spawn(&address);
            let is_taken = || self.log()[begun..].contains("Address already in use");
            assert!(line.is_some() || is_taken(), "no `listening on` line; log:\n{}", self.log());
            line
        });
        let listening = line.strip_prefix("listening on ").and_then(|address| address.parse().ok());
        self.address = Some(listening.unwrap_or_else(|| panic!("expected `listening on HOST:PORT`, got {line:?}")));
    }

    /// Starts the process. Returns its first line of output, if it lives that long.
    fn spawn(&mut self, address: &str) -> Option<String> {
        let log = fs::File::options().create(true).append(true).open(&self.log).expect("the log can be opened");
        let mut command = match (self.open_files, &self.namespace) {
            // It replaces itself by the program, so that the process stays a child of this one.
            (_, Some(namespace)) => {
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", namespace]).arg(&self.program);
                ip
            }
            (None, None) => Command::new(&self.program),
            (Some((soft, hard)), None) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script]).arg(&self.program);
                shell
            }
        };
        command.arg("serve").arg("--data-dir").arg(&self.folder);
        command.args(self.more_folders.iter().flat_map(|folder| [Path::new("--data-dir"), folder]));
        match &self.config {
            Some(file) => command.arg("--config").arg(file),
            None => command.args(["--listen", address]),
        };
        for (key, value) in &self.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        if let Some(folder) = &self.plugins {
            command.arg("--plugins").arg(folder);
        }
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("millstream starts");
        let (sender, receiver) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        // The thread ends with the process. Only the first line matters; the rest is read so that the broker never
        // blocks on a full pipe.
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        self.child = Some(child);
        receiver.recv_timeout(PATIENCE).ok()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
        let log = self.log();
        if thread::panicking() {
            eprintln!("-- log of the broker\n{log}");
            return;
        }
        let unexpected = self.allowed.unexpected(&log);
        assert!(unexpected.is_empty(), "unexpected in the broker's log:\n{}", unexpected.join("\n"));
    }
}
