//! Stages that name a file follow it however the file is replaced, even if it is missing at first.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use millstream_stage::{Kind, Library, LoadError, ResolveError, Stage, StageSpec, WatchEvent, Watcher};

use crate::guests::Guest;
use crate::support::{call, engine};

/// Far longer than the check of the files that needs no report of the system.
const WAIT: Duration = Duration::from_secs(60);

fn version(number: u32) -> Vec<u8> {
    Guest::filter().version(&format!("1.0.{number}")).build()
}

fn resolve(library: &Library, path: &Path) -> Result<Arc<Stage>, ResolveError> {
    library.resolve(&StageSpec::parse(&path.display().to_string()).expect("a file"), Kind::Filter)
}

fn watch(library: &Arc<Library>) -> (Watcher, mpsc::Receiver<WatchEvent>) {
    let (sender, events) = mpsc::channel();
    let watcher = Watcher::start(library.clone(), move |event| drop(sender.send(event))).expect("a watcher");
    (watcher, events)
}

/// Waits until the stage runs a version.
fn wait_for(stage: &Stage, number: u32, what: &str) {
    let version = format!("1.0.{number}");
    let deadline = Instant::now() + WAIT;
    while stage.stats().version != version {
        assert!(Instant::now() < deadline, "{what}: still {} instead of {version}", stage.stats().version);
        std::thread::sleep(Duration::from_millis(5));
    }
    call(stage).expect("a response");
}

/// Points a symbolic link to another target atomically.
fn relink(target: impl AsRef<Path>, link: &Path) {
    let aside = link.with_file_name("aside");
    symlink(target, &aside).expect("a link");
    fs::rename(aside, link).expect("renamed");
}

/// A way to replace a file: writes the first version, and replaces it with another.
type Replace = (&'static str, fn(&Path) -> PathBuf, fn(&Path, Vec<u8>));

/// Writes the first version to `name`, below `folder`.
fn first(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(&path, version(1)).expect("a file");
    path
}

/// Writes the next folder of versions: `folder/vN/stage.wasm`.
fn next_folder(folder: &Path, bytes: Vec<u8>) -> String {
    let name = (2..).map(|number| format!("v{number}")).find(|name| !folder.join(name).exists()).expect("a name");
    fs::create_dir(folder.join(&name)).expect("a folder");
    fs::write(folder.join(&name).join("stage.wasm"), bytes).expect("a file");
    name
}

const REPLACE: [Replace; 9] = [
    (
        "written in place",
        |folder| first(folder, "stage.wasm"),
        |folder, bytes| {
            fs::write(folder.join("stage.wasm"), bytes).expect("a file");
        },
    ),
    (
        "renamed over",
        |folder| first(folder, "stage.wasm"),
        |folder, bytes| {
            fs::write(folder.join("aside"), bytes).expect("a file");
            fs::rename(folder.join("aside"), folder.join("stage.wasm")).expect("renamed");
        },
    ),
    (
        "copied over",
        |folder| first(folder, "stage.wasm"),
        |folder, bytes| {
            fs::write(folder.join("aside"), bytes).expect("a file");
            fs::copy(folder.join("aside"), folder.join("stage.wasm")).expect("copied");
        },
    ),
    (
        "removed and written",
        |folder| first(folder, "stage.wasm"),
        |folder, bytes| {
            fs::remove_file(folder.join("stage.wasm")).expect("removed");
            fs::write(folder.join("stage.wasm"), bytes).expect("a file");
        },
    ),
    (
        "behind a link that stays",
        |folder| {
            let target = first(folder, "elsewhere/real.wasm");
            symlink(target, folder.join("stage.wasm")).expect("a link");
            folder.join("stage.wasm")
        },
        |folder, bytes| {
            fs::write(folder.join("elsewhere/aside"), bytes).expect("a file");
            fs::rename(folder.join("elsewhere/aside"), folder.join("elsewhere/real.wasm")).expect("renamed");
        },
    ),
    (
        "behind a link that changes",
        |folder| {
            first(folder, "v1/stage.wasm");
            symlink("v1/stage.wasm", folder.join("stage.wasm")).expect("a link");
            folder.join("stage.wasm")
        },
        |folder, bytes| {
            let next = next_folder(folder, bytes);
            relink(format!("{next}/stage.wasm"), &folder.join("stage.wasm"));
        },
    ),
    (
        "in a folder behind a link that changes",
        |folder| {
            first(folder, "v1/stage.wasm");
            symlink("v1", folder.join("current")).expect("a link");
            folder.join("current/stage.wasm")
        },
        |folder, bytes| {
            let next = next_folder(folder, bytes);
            relink(next, &folder.join("current"));
        },
    ),
    (
        "in a ConfigMap",
        |folder| {
            first(folder, "v1/stage.wasm");
            symlink("v1", folder.join("..data")).expect("a link");
            symlink("..data/stage.wasm", folder.join("stage.wasm")).expect("a link");
            folder.join("stage.wasm")
        },
        |folder, bytes| {
            let before = fs::read_link(folder.join("..data")).expect("a link");
            let next = next_folder(folder, bytes);
            relink(next, &folder.join("..data"));
            fs::rename(folder.join(before), folder.join("v9")).expect("renamed");
            fs::remove_dir_all(folder.join("v9")).expect("removed");
        },
    ),
    (
        "in a folder that is replaced",
        |folder| first(folder, "stages/stage.wasm"),
        |folder, bytes| {
            fs::rename(folder.join("stages"), folder.join("stages.old")).expect("renamed");
            let next = next_folder(folder, bytes);
            fs::rename(folder.join(next), folder.join("stages")).expect("renamed");
            fs::remove_dir_all(folder.join("stages.old")).expect("removed");
        },
    ),
];

#[test]
fn a_stage_follows_its_file_however_it_is_replaced() {
    for (what, make, replace) in REPLACE {
        let folder = tempfile::tempdir().expect("a folder");
        let path = make(folder.path());
        let library = Arc::new(Library::new(engine()));
        let (_watcher, _events) = watch(&library);
        let stage = resolve(&library, &path).expect("a stage");
        // More than once, since the watched folders change with the file.
        for number in 2..5 {
            replace(folder.path(), version(number));
            wait_for(&stage, number, what);
        }
        assert_eq!(stage.stats().errors, 0, "{what}");
    }
}

#[test]
fn a_file_that_is_missing_at_first_is_reported_when_it_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = Arc::new(Library::new(engine()));
    let (_watcher, events) = watch(&library);
    // Even its folder is missing.
    let path = folder.path().join("mount/stages/stage.wasm");
    let missing = |error: &ResolveError| match error {
        ResolveError::Load { source: LoadError::Read { source, .. }, .. } => source.kind() == ErrorKind::NotFound,
        _ => false,
    };
    let error = resolve(&library, &path).expect_err("no file");
    assert!(missing(&error), "{error}");
    assert!(error.to_string().contains("mount/stages/stage.wasm"), "{error}");
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    // The file is written in two parts, the first of which is not a plug-in.
    let bytes = version(1);
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("half a file");
    let event = events.recv_timeout(WAIT).expect("an event");
    assert!(matches!(event, WatchEvent::Refused { .. }), "{event:?}");
    assert!(resolve(&library, &path).is_err());
    fs::write(&path, bytes).expect("a file");
    let event = events.recv_timeout(WAIT).expect("an event");
    assert!(matches!(event, WatchEvent::Reloaded { .. }), "{event:?}");
    let stage = resolve(&library, &path).expect("a stage");
    wait_for(&stage, 1, "found");
    fs::write(&path, version(2)).expect("a file");
    wait_for(&stage, 2, "replaced");
    // A file that is removed changes nothing.
    fs::remove_file(&path).expect("removed");
    assert!(resolve(&library, &path).is_err_and(|error| missing(&error)));
    wait_for(&stage, 2, "removed");
    fs::write(&path, version(3)).expect("a file");
    wait_for(&stage, 3, "back");
}

#[test]
fn a_file_that_changes_all_the_time_is_still_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = first(folder.path(), "stage.wasm");
    let library = Arc::new(Library::new(engine()));
    let (_watcher, _events) = watch(&library);
    let stage = resolve(&library, &path).expect("a stage");
    let bytes = version(2);
    let deadline = Instant::now() + WAIT;
    while stage.stats().version != "1.0.2" {
        assert!(Instant::now() < deadline, "never loaded");
        fs::write(folder.path().join("aside"), &bytes).expect("a file");
        fs::rename(folder.path().join("aside"), &path).expect("renamed");
    }
}
