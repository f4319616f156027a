//! A stored batch that cannot be decoded: `consume` names it and can continue after it.

use std::fs;

use millstream_record::Codec;
use millstream_tests::{Broker, Finished, Tool, millstream};
use rustix::process::Signal;

use crate::support::{At, Raw, Topic, batch, compressed, forge};

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
    broker.allow("is damaged at byte");
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
        "error: the broker cannot read quakes-0 at offset 1: CORRUPT_MESSAGE",
        "to continue after it, use --skip-on-error, or --partition 0 and a --from-offset of 2 or more",
    ] {
        assert!(stopped.stderr.contains(part), "{part}: {}", stopped.stderr);
    }
    let rest = run(&broker, &["consume", TOPIC, "--partition", "0", "--from-offset", "3"], "");
    assert_eq!((rest.code, rest.stdout.as_str()), (Some(0), "fourth\n"), "{}", rest.stderr);

    let skipped = run(&broker, &["consume", TOPIC, "--from-beginning", "--skip-on-error"], "");
    assert_eq!((skipped.code, skipped.stdout.as_str()), (Some(0), "first\nfourth\n"), "{}", skipped.stderr);
    let warning = "warning: the broker cannot read quakes-0 at offset 1: CORRUPT_MESSAGE; skipped";
    assert!(skipped.stderr.starts_with(warning), "{}", skipped.stderr);

    let group = ["consume", TOPIC, "--from-beginning", "--group", "g"];
    let stopped = run(&broker, &group, "");
    assert_eq!((stopped.code, stopped.stdout.as_str()), (Some(1), "first\n"));
    assert!(stopped.stderr.contains("to continue after it, use --skip-on-error"), "{}", stopped.stderr);
    let skipped = run(&broker, &[&group[..], &["--skip-on-error"]].concat(), "");
    assert_eq!((skipped.code, skipped.stdout.as_str()), (Some(0), "fourth\n"), "{}", skipped.stderr);
    assert_eq!(run(&broker, &group, "").stdout, "", "the group has committed the end");
}

#[test]
fn consume_names_the_offset_at_which_a_view_fails_and_continues_after_it() {
    let broker = Broker::start();
    broker.allow("at a batch that cannot be read");
    broker.allow("the filter of view shown fails");
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, TOPIC, 1, &[("compressed.records.validation", "none")]);
    let filter = r#"json-compare{"path":"/n","op":">=","value":1}"#;
    let create = ["view", "create", "shown", "--of", TOPIC, "--filter", filter, "--failure-policy", "fail"];
    assert_eq!(run(&broker, &create, "").code, Some(0));
    let [one, two, three] = [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#];
    source.produce(&mut raw, batch(&[one]));
    let mut poison = compressed(Codec::Gzip, &[one, one, one]);
    let length = poison.len();
    poison[length - 20..].fill(0xff);
    assert_eq!(source.produce(&mut raw, forge(poison, At::Attributes, 1i16.to_be_bytes())), 1);
    source.produce(&mut raw, batch(&[two, "no JSON", three]));

    let consume = ["consume", "shown", "--from-beginning"];
    let stopped = run(&broker, &consume, "");
    assert_eq!((stopped.code, stopped.stdout), (Some(1), format!("{one}\n")), "{}", stopped.stderr);
    let message = "error: the broker cannot read shown-0 at offset 1: CORRUPT_MESSAGE; to continue after it, use \
                   --skip-on-error, or --partition 0 and a --from-offset of 2 or more";
    assert!(stopped.stderr.contains(message), "{}", stopped.stderr);

    let group = [&consume[..], &["--group", "g"]].concat();
    assert!(run(&broker, &group, "").stderr.contains("to continue after it, use --skip-on-error"));
    for args in [&consume[..], &group] {
        let skipped = run(&broker, &[args, &["--skip-on-error"]].concat(), "");
        assert_eq!(skipped.code, Some(0), "{}", skipped.stderr);
        assert!(skipped.stdout.ends_with(&format!("{two}\n{three}\n")), "{}", skipped.stdout);
        // One line for the three offsets of the batch, and one for the record.
        let at =
            |offset| format!("warning: the broker cannot read shown-0 at offset {offset}: CORRUPT_MESSAGE; skipped");
        assert_eq!(skipped.stderr.matches("warning: ").count(), 2, "{}", skipped.stderr);
        assert!(skipped.stderr.contains(&at(1)) && skipped.stderr.contains(&at(5)), "{}", skipped.stderr);
    }
    let rest = run(&broker, &["consume", "shown", "--partition", "0", "--from-offset", "6"], "");
    assert_eq!((rest.code, rest.stdout), (Some(0), format!("{three}\n")), "{}", rest.stderr);
}
