//! Counts the instructions that a record costs from the bytes of a produce request to the log, under callgrind. The
//! count depends on the code alone: neither on the machine's speed nor on other work.
//!
//! The program runs itself under `MILLSTREAM_VALGRIND`, with the number of batches to append.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use bytes::Bytes;
use libtest_mimic::{Arguments, Failed, Trial};
use millstream_log::{Log, LogConfig, OpenOptions};
use millstream_record::validate::{RecordRules, TimestampBounds, check_records, validate_produce};
use millstream_record::{BatchBuilder, Codec, TimestampType};

/// The valgrind program. Without it the test is skipped.
const VALGRIND: &str = "MILLSTREAM_VALGRIND";

/// The number of batches that a run under valgrind appends.
const BATCHES: &str = "MILLSTREAM_BATCHES";

const RECORDS: usize = 100;
const NOW_MS: i64 = 1_700_000_000_000;

/// The most instructions for a record of 100 bytes in a batch of 100: a tenth above what was measured. The CRC and
/// the walk over the records are most of it.
const PER_RECORD_MAX: usize = 900;

/// The most instructions for a batch of one record of 100 bytes.
const PER_SMALL_BATCH_MAX: usize = 6_750;

fn main() -> ExitCode {
    if let Some(batches) = env::var(BATCHES).ok().and_then(|number| number.parse().ok()) {
        let records = env::args().nth(1).and_then(|number| number.parse().ok()).expect("the records of a batch");
        append(batches, records);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let valgrind = env::var(VALGRIND).ok();
    let trials = [
        ("a_record_costs_few_instructions", RECORDS, PER_RECORD_MAX),
        ("a_small_batch_costs_few_instructions", 1, PER_SMALL_BATCH_MAX),
    ];
    let trials = trials.map(|(name, records, most)| {
        let program = valgrind.clone();
        let test = move || check(Path::new(&program.expect("skipped without it")), records, most);
        Trial::test(name, test).with_ignored_flag(valgrind.is_none())
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// Checks and appends batches as a broker does for a topic without stages.
fn append(batches: usize, records: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = Log::open(folder.path(), LogConfig::default(), OpenOptions::default()).expect("a new log");
    let batch = batch(records);
    let bounds = TimestampBounds { now_ms: NOW_MS, before_ms_max: i64::MAX, after_ms_max: 3_600_000 };
    let rules = RecordRules { timestamps: Some(bounds), keys: false, record_bytes_max: usize::MAX };
    for _ in 0..batches {
        let checked = validate_produce(&batch, 1 << 20).expect("a good batch");
        check_records(&checked, &rules).expect("good records");
        log.append(&checked, 0, NOW_MS).expect("appended");
    }
}

fn batch(records: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for _ in 0..records {
        builder.append(NOW_MS, Some(b"key"), Some(&[b'x'; 100]), []).expect("appended");
    }
    builder.build().expect("built").into()
}

fn check(valgrind: &Path, records: usize, most: usize) -> Result<(), Failed> {
    // The start of the program and of the log is in both runs.
    let few = instructions(valgrind, 100, records)?;
    let many = instructions(valgrind, 1_100, records)?;
    let each = (many - few) / (1_000 * records);
    println!("{each} instructions a record in batches of {records}");
    match each <= most {
        true => Ok(()),
        false => Err(format!("{each} instructions a record in batches of {records}, more than {most}").into()),
    }
}

/// Returns the instructions of a run of this program.
fn instructions(valgrind: &Path, batches: usize, records: usize) -> Result<usize, Failed> {
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(env::current_exe()?);
    let output = command.arg(records.to_string()).env(BATCHES, batches.to_string()).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {text}", output.status).into());
    }
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let number = collected.and_then(|(_, number)| number.trim().parse().ok());
    number.ok_or_else(|| format!("no count of instructions in: {text}").into())
}
