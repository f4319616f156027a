//! Each file beside the logs is lost, cut, flipped, too long, too old or that of another topic: one file at a time, on
//! the real process, after a clean stop and after a kill.
//!
//! A start then shows clients the same as one without damage, or it names the file and says what to do.

mod damage;
mod fixture;
mod seen;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use damage::{Damage, Promise, named};
use fixture::{Ended, FIXTURE, Fixture, builder, folder};
use millstream_tests::copy_folder;
use millstream_wire::ErrorCode;
use rustix::process::Signal;
use seen::Seen;

use crate::support::{Raw, producer_batch};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a start may say about a damaged file.
const WORDS: [&str; 5] = [
    "a checkpoint is ignored",
    "a checkpoint is missing",
    "made again",
    "a damaged producer snapshot is removed",
    "an index entry is wrong",
];

/// One damaged file.
struct Case<'f> {
    fixture: &'f Fixture,
    ended: &'f Ended,
    /// The path in the data folder.
    file: PathBuf,
    damage: Damage,
}

/// Tries all cases. Returns their number.
fn try_all(ended: &Ended) -> usize {
    let mut cases = 0;
    for (place, name, damages) in damage::all() {
        let files = named(&ended.folder, place, name);
        assert!(!files.is_empty() || name == ".kafka_cleanshutdown", "{place}/{name} is not there");
        for file in files {
            for damage in damages.iter().copied() {
                let case = Case { fixture: &FIXTURE, ended, file: file.clone(), damage };
                cases += usize::from(case.run());
            }
        }
    }
    cases
}

impl Case<'_> {
    /// Returns whether the file differs by the damage. If so, a broker was started with it.
    fn run(&self) -> bool {
        let Some(content) = self.damage.apply(self.fixture, self.ended, &self.file) else { return false };
        let data = folder();
        copy_folder(&self.ended.folder, data.path());
        let path = data.path().join(&self.file);
        match &content {
            None => fs::remove_file(&path).expect("removed"),
            Some(bytes) => fs::write(&path, bytes).expect("written"),
        }
        match self.damage.promise(&self.file, self.ended.is_clean) {
            Promise::Refused => self.is_refused(data.path()),
            promise => self.is_served(data.path(), promise),
        }
        true
    }

    fn what(&self) -> String {
        format!("{}: {:?}, after a clean stop: {}", self.file.display(), self.damage, self.ended.is_clean)
    }

    fn is_refused(&self, data: &Path) {
        let words = builder(data).rejected();
        let name = self.file.file_name().expect("a name").to_string_lossy();
        assert!(words.contains(&*name) && words.contains("estore the file"), "{}: {words}", self.what());
        assert!(!words.contains("panicked"), "{}: {words}", self.what());
    }

    fn is_served(&self, data: &Path, promise: Promise) {
        let what = self.what();
        let broker = builder(data).start();
        WORDS.iter().for_each(|words| broker.allow(words));
        let path = data.join(&self.file).display().to_string();
        let is_offline = broker.log().lines().any(|line| {
            line.contains("the partition is offline") && line.contains(&path) && line.contains("delete the file")
        });
        let mut raw = Raw::connect(&broker);
        if is_offline {
            assert!(matches!(promise, Promise::Offline | Promise::MayBeOffline), "{what}: {}", broker.log());
            ["the partition is offline", "cannot load"].iter().for_each(|words| broker.allow(words));
            let place = self.file.parent().expect("a folder").to_string_lossy();
            Seen::besides(&mut raw, &self.fixture.known, &place).assert_eq(&self.ended.seen, &what);
            return;
        }
        assert_ne!(promise, Promise::Offline, "{what}: it is served");
        let seen = Seen::of(&mut raw, &self.fixture.known);
        match promise {
            Promise::OlderStart => {
                seen.assert_holds(&self.ended.seen, &what);
                assert!(broker.log().contains("kafka-delete-records"), "{what}: it says so");
            }
            Promise::NextEpoch => seen.assert_eq_but_epochs(&self.ended.seen, &what),
            _ => seen.assert_eq(&self.ended.seen, &what),
        }
        self.goes_on(&mut raw, &what);
    }

    /// Goes on with the producer where it was: nothing is stored twice, and no sequence is skipped.
    fn goes_on(&self, raw: &mut Raw, what: &str) {
        let (topic, producer) = (&self.fixture.known.topics[0], &self.fixture.producer);
        let end = topic.end(raw);
        let mut send = |epoch, sequence| {
            let answer = topic.produce_by(raw, 9, producer_batch(producer.id, epoch, sequence, &["a", "b"]));
            (answer.error_code, answer.base_offset)
        };
        for (sequence, offset) in producer.sent.iter().rev().take(4).rev() {
            assert_eq!(send(producer.epoch, *sequence), (ErrorCode::NONE, *offset), "{what}: a duplicate");
        }
        let gap = send(producer.epoch, producer.next + 2).0;
        assert_eq!(gap, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, "{what}: a gap");
        assert_eq!(send(producer.epoch, producer.next), (ErrorCode::NONE, end), "{what}: the next batch");
    }
}

#[test]
fn one_damaged_file_after_a_clean_stop() {
    let cases = try_all(&FIXTURE.stopped);
    assert!(cases > 250, "{cases}");
}

#[test]
fn one_damaged_file_after_a_kill() {
    let cases = try_all(&FIXTURE.killed);
    assert!(cases > 250, "{cases}");
}

/// A marker of a clean stop from before the kill hides nothing that was written since.
#[test]
fn an_old_marker_of_a_clean_stop() {
    let ended = &FIXTURE.killed;
    let data = folder();
    copy_folder(&ended.folder, data.path());
    fs::copy(FIXTURE.stale().join(".kafka_cleanshutdown"), data.path().join(".kafka_cleanshutdown")).expect("copied");
    let broker = builder(data.path()).start();
    WORDS.iter().for_each(|words| broker.allow(words));
    let seen = Seen::of(&mut Raw::connect(&broker), &FIXTURE.known);
    seen.assert_eq_but_epochs(&ended.seen, "an old marker");
}

/// A repair lasts: the second start finds nothing to say, and shows the same.
#[test]
fn what_is_made_again_is_on_the_disk() {
    let ended = &FIXTURE.stopped;
    for (place, name) in [
        ("", "log-start-offset-checkpoint"),
        ("topic-0", "leader-epoch-checkpoint"),
        ("topic-0", "partition.metadata"),
        ("topic-0", ".txnindex"),
        ("topic-0", ".snapshot"),
        ("topic-0", ".index"),
        ("topic-0", "file-checksums"),
    ] {
        let file = named(&ended.folder, place, name).remove(0);
        let what = file.display().to_string();
        let data = folder();
        copy_folder(&ended.folder, data.path());
        fs::remove_file(data.path().join(&file)).expect("removed");
        let mut broker = builder(data.path()).start();
        WORDS.iter().for_each(|words| broker.allow(words));
        assert_eq!(broker.stop(Signal::TERM).code(), Some(0), "{what}");
        let said = broker.log().len();
        broker.restart();
        Seen::of(&mut Raw::connect(&broker), &FIXTURE.known).assert_eq(&ended.seen, &what);
        let log = broker.log();
        let again: Vec<_> = log[said..].lines().filter(|line| WORDS.iter().any(|words| line.contains(words))).collect();
        assert!(again.is_empty(), "{what}: {again:?}");
    }
}
