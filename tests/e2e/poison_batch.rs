//! A stored batch that cannot be decoded: `consume` names it and can continue after it.

use std::fs;

use millstream_tests::{Broker, Finished, Tool, millstream};
use rustix::process::Signal;

const TOPIC: &str = "quakes";

fn run(broker: &Broker, args: &[&str], input: &str) -> Finished {
    Tool::new(millstream()).args(args).args(["-b", &broker.bootstrap()]).input(input).run()
}

/// Flips a byte of a value in the only segment of the topic.
fn damage(broker: &Broker, value: &str) {
    let segment = broker.folder().join(format!("{TOPIC}-0")).join("00000000000000000000.log");
    let mut bytes = fs::read(&segment).expect("the segment");
    let at = bytes.windows(value.len()).position(|window| window == value.as_bytes()).expect("the value is stored");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("a file of the test's own");
}

#[test]
fn consume_names_a_batch_that_cannot_be_decoded_and_continues_after_it() {
    let mut broker = Broker::start();
    assert_eq!(run(&broker, &["topic", "create", TOPIC, "-p", "1"], "").code, Some(0));
    for value in ["first", "second\nthird", "fourth"] {
        assert_eq!(run(&broker, &["produce", TOPIC], value).code, Some(0));
    }
    // A clean stop, so that recovery does not truncate the log.
    broker.stop(Signal::TERM);
    damage(&broker, "second");
    broker.restart();

    let stopped = run(&broker, &["consume", TOPIC, "--from-beginning"], "");
    assert_eq!((stopped.code, stopped.stdout.as_str()), (Some(1), "first\n"), "{}", stopped.stderr);
    for part in [
        "error: the batch at offset 1 of quakes-0 cannot be decoded: CRC-32C mismatch",
        "to continue after it, use --partition 0 --from-offset 3, or --skip-on-error",
    ] {
        assert!(stopped.stderr.contains(part), "{part}: {}", stopped.stderr);
    }
    let rest = run(&broker, &["consume", TOPIC, "--partition", "0", "--from-offset", "3"], "");
    assert_eq!((rest.code, rest.stdout.as_str()), (Some(0), "fourth\n"), "{}", rest.stderr);

    let skipped = run(&broker, &["consume", TOPIC, "--from-beginning", "--skip-on-error"], "");
    assert_eq!((skipped.code, skipped.stdout.as_str()), (Some(0), "first\nfourth\n"), "{}", skipped.stderr);
    assert!(skipped.stderr.starts_with("warning: the batch at offset 1 of quakes-0"), "{}", skipped.stderr);
    assert!(skipped.stderr.contains("skipped to offset 3"), "{}", skipped.stderr);

    let group = ["consume", TOPIC, "--from-beginning", "--group", "g"];
    let stopped = run(&broker, &group, "");
    assert_eq!((stopped.code, stopped.stdout.as_str()), (Some(1), "first\n"));
    assert!(stopped.stderr.contains("to continue after it, use --skip-on-error"), "{}", stopped.stderr);
    let skipped = run(&broker, &[&group[..], &["--skip-on-error"]].concat(), "");
    assert_eq!((skipped.code, skipped.stdout.as_str()), (Some(0), "fourth\n"), "{}", skipped.stderr);
    assert_eq!(run(&broker, &group, "").stdout, "", "the group has committed the end");
}
