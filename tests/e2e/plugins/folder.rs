//! `millstream serve --plugins DIR`: a folder whose files are pushed.

use std::fs;
use std::path::Path;

use millstream_tests::{Broker, wait_until};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::*;

/// Replaces a file with a new version atomically, as a build should.
fn replace(folder: &Path, file: &str, component: &[u8]) {
    let aside = folder.join("aside");
    fs::write(&aside, component).expect("a file of the test's own");
    fs::rename(aside, folder.join(file)).expect("a file of the test's own");
}

fn wait_for_refusal(broker: &Broker, topic: &str, letters: &str) {
    wait_until(&format!("{topic} to reject {letters}"), PATIENCE, || {
        (refused_letters(broker, topic) == letters).then_some(())
    });
}

#[test]
fn a_changed_file_is_the_next_version_and_a_broken_one_changes_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    replace(folder.path(), "letters.wasm", &filter("letters", 1).build());
    replace(folder.path(), "broken.wasm", b"no component");
    // Nothing waits for data from a pipe.
    let pipe = folder.path().join("a-pipe.wasm");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let mut broker = Broker::builder().plugins(folder.path()).start();
    broker.allow("cannot read a plug-in");
    broker.allow("not used, what served before serves on");
    broker.allow("a write to __millstream_plugins");
    for file in ["broken.wasm", "a-pipe.wasm"] {
        assert!(broker.log().contains(file), "{}", broker.log());
    }
    admit(&broker, "lines", "letters");
    assert_eq!(refused_letters(&broker, "lines"), "a");
    replace(folder.path(), "letters.wasm", &filter("letters", 2).build());
    wait_for_refusal(&broker, "lines", "b");
    replace(folder.path(), "letters.wasm", b"broken too");
    wait_until("the broken file to be reported", PATIENCE, || {
        broker.log().contains("letters.wasm\" not used").then_some(()).or_else(|| {
            broker.log().lines().any(|line| line.contains("letters.wasm") && line.contains("not used")).then_some(())
        })
    });
    let traps = filter("letters", 3).hook("configure", "unreachable");
    replace(folder.path(), "letters.wasm", &traps.build());
    wait_until("the error to name the topic", PATIENCE, || {
        broker.log().contains("topic lines, stage.admit").then_some(())
    });
    assert_eq!(refused_letters(&broker, "lines"), "b");
    // The failed push is in the history, and its bytes are not in the store.
    let history = output(&broker, &["plugin", "history", "letters"]);
    assert!(history.lines().any(|line| line.contains("refused          letters@3")), "{history}");
    let versions = [filter("letters", 1).build(), filter("letters", 2).build()];
    wait_until("its bytes to be removed", PATIENCE, || {
        (stored_components(&broker) == digests(&[&versions[0], &versions[1]])).then_some(())
    });
    // A version from a command, and then from the folder again.
    push(&broker, &filter("letters", 4));
    assert_eq!(refused_letters(&broker, "lines"), "d");
    replace(folder.path(), "letters.wasm", &filter("letters", 5).build());
    wait_for_refusal(&broker, "lines", "e");
    let history = output(&broker, &["plugin", "history", "letters"]);
    let pushed: Vec<&str> = history.lines().filter(|line| line.contains("pushed")).collect();
    assert_eq!(pushed.len(), 4, "{history}");
    assert!(pushed[3].contains("letters@4 (5.0.0)  letters.wasm"), "{history}");
    // A version that was rolled back is not activated again by a restart.
    output(&broker, &["plugin", "rollback", "letters"]);
    broker.kill();
    broker.restart();
    assert_eq!(refused_letters(&broker, "lines"), "d");
}
