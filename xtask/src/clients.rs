//! Sets up other projects' clients and tools for the tests: Python packages in a virtual environment, Apache Kafka's
//! Java tools by Maven, KafkaJS by npm, programs with clients in Go, and kcat; the packages that run plug-ins in these
//! languages, and the compilers of plug-ins in C, Go, JavaScript and Python. All but Debian's packages go into the
//! target folder.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo::succeed;

/// The clients for the tests, by the environment variable that names each.
pub(crate) struct Clients {
    /// The variable and value of each client that is installed.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Why other clients are missing.
    pub(crate) missing: Vec<String>,
}

/// The variable with the class path of Apache Kafka and its tools.
pub(crate) const KAFKA_CLASSPATH: &str = "MILLSTREAM_KAFKA_CLASSPATH";

/// The variables of the compilers of plug-ins in C, Go and JavaScript.
pub(crate) const CLANG: &str = "MILLSTREAM_CLANG";
pub(crate) const GO: &str = "MILLSTREAM_GO";
pub(crate) const QJS: &str = "MILLSTREAM_QJS";

/// What compiles C for WebAssembly.
const CLANG_PACKAGES: [&str; 4] = ["clang", "lld", "wasi-libc", "libclang-rt-dev-wasm32"];

/// The file that names the version of componentize-qjs.
const QJS_PACKAGE: &str = "examples/languages/javascript/package.json";

/// The variable with the class path of Apache Kafka 4.2.
const KAFKA_42_CLASSPATH: &str = "MILLSTREAM_KAFKA_42_CLASSPATH";

impl Clients {
    fn add(&mut self, variable: &'static str, name: &str, outcome: Result<String>) {
        match outcome {
            Ok(value) => self.environment.push((variable, value)),
            Err(error) => self.missing.push(format!("{name}: {error:#}")),
        }
    }

    /// Returns the value of a variable, if its client is installed.
    pub(crate) fn value(&self, variable: &str) -> Option<&str> {
        self.environment.iter().find(|(name, _)| *name == variable).map(|(_, value)| value.as_str())
    }
}

/// Sets up the clients that this machine can run.
pub(crate) fn set_up(target: &Path) -> Clients {
    let folder = target.join("clients");
    let mut clients = Clients { environment: Vec::new(), missing: Vec::new() };
    let mut add = |variable, name: &str, outcome: Result<String>| clients.add(variable, name, outcome);
    add("MILLSTREAM_PYTHON", "Python clients", python(&folder.join("python"), "requirements.txt"));
    add("MILLSTREAM_QUIX", "Quix Streams", python(&folder.join("quix"), "requirements-quix.txt"));
    add(KAFKA_CLASSPATH, "Apache Kafka's Java tools", kafka_classpath(&folder.join("java"), None));
    add(KAFKA_42_CLASSPATH, "Apache Kafka 4.2's Java tools", kafka_42(target));
    add("MILLSTREAM_KCAT", "kcat", debian_program("kcat", &["kcat"]));
    add("MILLSTREAM_STRACE", "strace", debian_program("strace", &["strace"]));
    add("MILLSTREAM_VALGRIND", "valgrind", debian_program("valgrind", &["valgrind"]));
    compilers(&folder, &mut add);
    let componentize_py = python(&folder.join("componentize-py"), "requirements-componentize-py.txt");
    add("MILLSTREAM_COMPONENTIZE_PY", "componentize-py", componentize_py);
    add("MILLSTREAM_KAFKAJS", "KafkaJS", npm("KafkaJS", "tests/interop/package.json", &folder.join("node")));
    let platformatic = folder.join("platformatic");
    let project = "tests/interop/node/platformatic/package.json";
    add("MILLSTREAM_PLATFORMATIC", "@platformatic/kafka", npm("@platformatic/kafka", project, &platformatic));
    add("MILLSTREAM_GO_CLIENTS", "franz-go and sarama", go_programs(&folder.join("go")));
    add("MILLSTREAM_RDKAFKA", "rdkafka", rdkafka_program(&folder.join("rdkafka")));
    hosts(&folder, add);
    clients
}

/// Sets up what makes plug-ins of other languages and what runs plug-ins in them, for `cargo xtask bench --stages`.
pub(crate) fn set_up_languages(target: &Path) -> Clients {
    let folder = target.join("clients");
    let mut clients = Clients { environment: Vec::new(), missing: Vec::new() };
    let mut add = |variable, name: &str, outcome: Result<String>| clients.add(variable, name, outcome);
    compilers(&folder, &mut add);
    add("MILLSTREAM_PYTHON", "Python clients", python(&folder.join("python"), "requirements.txt"));
    hosts(&folder, add);
    clients
}

/// Sets up the compilers of plug-ins in C, Go and JavaScript: what `cargo xtask soak --reloads` needs.
pub(crate) fn set_up_compilers(target: &Path) -> Clients {
    let mut clients = Clients { environment: Vec::new(), missing: Vec::new() };
    compilers(&target.join("clients"), |variable, name, outcome| clients.add(variable, name, outcome));
    clients
}

fn compilers(folder: &Path, mut add: impl FnMut(&'static str, &str, Result<String>)) {
    add(CLANG, "clang for WebAssembly", debian_program("wasm-ld", &CLANG_PACKAGES));
    add(GO, "Go", go());
    add(QJS, "componentize-qjs", npm("componentize-qjs", QJS_PACKAGE, &folder.join("qjs")));
}

/// Sets up the packages of `sdk/hosts` with their dependencies. That of Python has those of the Python clients.
fn hosts(folder: &Path, mut add: impl FnMut(&'static str, &str, Result<String>)) {
    let node = npm("jco", "sdk/hosts/node/package.json", &folder.join("hosts-node"));
    add("MILLSTREAM_HOSTS_NODE", "plug-ins in Node", node);
    add("MILLSTREAM_HOSTS_GO", "plug-ins in Go", go_host(&folder.join("hosts-go")));
    add("MILLSTREAM_HOSTS_JAVA", "plug-ins in Java", java_host(&folder.join("hosts-java")));
}

/// Sets up Apache Kafka 4.2 and its tools, and returns the class path.
///
/// # Errors
/// Java or Maven is missing, or something cannot be downloaded.
pub(crate) fn kafka_42(target: &Path) -> Result<String> {
    kafka_classpath(&target.join("clients/java-4.2"), Some("4.2.0"))
}

/// Makes a virtual environment with the packages of a file in `tests/interop`, and returns its interpreter.
fn python(environment: &Path, requirements: &str) -> Result<String> {
    let requirements = crate::root().join("tests/interop").join(requirements);
    let interpreter = environment.join("bin/python");
    made_from(&requirements, &environment.join("requirements.txt"), || {
        println!("making a Python environment with {}", requirements.display());
        fs::create_dir_all(environment)?;
        succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment))?;
        succeed(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements))
    })?;
    Ok(interpreter.display().to_string())
}

/// Resolves Apache Kafka and its tools, in the version of `tests/interop/pom.xml` unless one is named, and returns the
/// class path.
fn kafka_classpath(folder: &Path, version: Option<&str>) -> Result<String> {
    let name = version.map_or_else(|| "Apache Kafka's tools".to_owned(), |number| format!("Apache Kafka {number}"));
    classpath(&name, "tests/interop/pom.xml", folder, version.map(|number| format!("-Dkafka.version={number}")))
}

/// Resolves the dependencies of a project of Maven, and returns the class path.
fn classpath(name: &str, project: &str, folder: &Path, option: Option<String>) -> Result<String> {
    let project = crate::root().join(project);
    let classpath = folder.join("classpath.txt");
    quiet(Command::new("java").arg("-version"))?;
    made_from(&project, &folder.join("pom.xml"), || {
        println!("resolving {name}");
        fs::create_dir_all(folder)?;
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "dependency:build-classpath"]).arg("-f").arg(&project);
        maven.arg(format!("-Dmdep.outputFile={}", classpath.display()));
        succeed(maven.args(option))
    })?;
    fs::read_to_string(&classpath).with_context(|| format!("cannot read {}", classpath.display()))
}

/// Compiles `sdk/hosts/java` with its tests, and returns the class path of both and their dependencies.
fn java_host(folder: &Path) -> Result<String> {
    let dependencies = classpath("plug-ins in Java", "sdk/hosts/java/pom.xml", folder, None)?;
    let classes = folder.join("classes");
    let mut compile = Command::new("javac");
    compile.args(["-nowarn", "-d"]).arg(&classes).args(["-cp", &dependencies]);
    for part in ["main", "test"] {
        let sources = crate::root().join("sdk/hosts/java/src").join(part).join("java/millstream/stage");
        for source in fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))? {
            compile.arg(source?.path());
        }
    }
    succeed(&mut compile)?;
    Ok(format!("{}:{dependencies}", classes.display()))
}

/// Installs the packages of a `package.json` in a folder, and returns the folder that node finds them in.
fn npm(name: &str, package: &str, project: &Path) -> Result<String> {
    let package = crate::root().join(package);
    quiet(Command::new("node").arg("--version")).context("node is needed")?;
    made_from(&package, &project.join("installed.json"), || {
        println!("installing {name}");
        fs::create_dir_all(project)?;
        fs::copy(&package, project.join("package.json"))?;
        let options = ["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"];
        succeed(Command::new("npm").args(options).current_dir(project))
    })?;
    Ok(project.join("node_modules").display().to_string())
}

/// Builds the programs of `tests/interop/go`, and returns the folder that they are in.
fn go_programs(folder: &Path) -> Result<String> {
    quiet(Command::new("go").arg("version")).context("go is needed")?;
    fs::create_dir_all(folder)?;
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(folder).arg("./...").current_dir(crate::root().join("tests/interop/go"));
    succeed(&mut build)?;
    Ok(folder.display().to_string())
}

/// Builds the tests and the bench of `sdk/hosts/go`, and returns the folder that they are in.
fn go_host(folder: &Path) -> Result<String> {
    quiet(Command::new("go").arg("version")).context("go is needed")?;
    fs::create_dir_all(folder)?;
    for arguments in [&["test", "-c"][..], &["build"]] {
        let packages = if arguments == ["build"] { &["./bench"][..] } else { &[".", "./franz", "./sarama"] };
        let mut go = Command::new("go");
        go.args(arguments).arg("-o").arg(folder.join("")).args(packages);
        succeed(go.current_dir(crate::root().join("sdk/hosts/go")))?;
    }
    Ok(folder.display().to_string())
}

/// Builds the program of `tests/interop/rdkafka`, with librdkafka, and returns its path.
fn rdkafka_program(folder: &Path) -> Result<String> {
    let manifest = crate::root().join("tests/interop/rdkafka/Cargo.toml");
    let mut build = crate::cargo::cargo(["build", "--quiet", "--release", "--locked", "--manifest-path"]);
    succeed(build.arg(manifest).arg("--target-dir").arg(folder))?;
    Ok(folder.join("release/with-rdkafka").display().to_string())
}

/// Returns the name of the go tool.
fn go() -> Result<String> {
    quiet(Command::new("go").arg("version")).context("go is needed")?;
    Ok("go".to_owned())
}

/// Returns the name of a program on the path. If it is missing and that is allowed, installs its Debian packages.
fn debian_program(name: &str, packages: &[&str]) -> Result<String> {
    let is_there = || quiet(Command::new(name).arg("--version")).or_else(|_| quiet(Command::new(name).arg("-V")));
    if is_there().is_ok() {
        return Ok(name.to_owned());
    }
    if !is_root() {
        bail!("not on the path, and only root may install it");
    }
    println!("installing {name}");
    succeed(Command::new("apt-get").args(["-q", "update"]).stdout(Stdio::null()))?;
    succeed(Command::new("apt-get").args(["-q", "-y", "install"]).args(packages).stdout(Stdio::null()))?;
    is_there()?;
    Ok(name.to_owned())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn quiet(command: &mut Command) -> Result<()> {
    succeed(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Runs `make`, unless it has run for the current text of `source`; `stamp` keeps a copy of that text.
fn made_from(source: &Path, stamp: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = fs::read_to_string(source).with_context(|| format!("cannot read {}", source.display()))?;
    if fs::read_to_string(stamp).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    make()?;
    fs::write(stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
