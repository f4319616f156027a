//! `millstream view`, as a shell runs it.

use millstream_tests::{Broker, Finished, Tool, millstream};

const BIG: &str = r#"json-compare{"path":"/n","op":">=","value":5}"#;

fn run(broker: &Broker, args: &[&str], input: &str) -> Finished {
    Tool::new(millstream()).args(args).args(["-b", &broker.bootstrap()]).input(input).run()
}

/// Runs a command that must succeed, and returns its standard output.
fn output(broker: &Broker, args: &[&str], input: &str) -> String {
    let finished = run(broker, args, input);
    assert_eq!(finished.code, Some(0), "{args:?}: {}", finished.stderr);
    finished.stdout
}

fn refused(broker: &Broker, args: &[&str]) -> String {
    let finished = run(broker, args, "");
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{args:?}: {}", finished.stderr);
    assert!(finished.stderr.starts_with("error: ") && finished.stderr.lines().count() == 1, "{}", finished.stderr);
    finished.stderr
}

#[test]
fn a_view_from_its_creation_to_its_end() {
    let broker = Broker::start();
    output(&broker, &["topic", "create", "numbers", "-p", "2"], "");
    let create = ["view", "create", "big", "--of", "numbers", "--filter", BIG];
    assert_eq!(output(&broker, &create, ""), "created view big of numbers\n");
    output(&broker, &["view", "create", "all", "--of", "big", "--failure-policy", "pass"], "");
    assert_eq!(output(&broker, &["view", "list"], ""), format!("all\tof big\tno filter\nbig\tof numbers\t{BIG}\n"));
    let described = output(&broker, &["view", "describe", "big"], "");
    for line in ["PartitionCount: 2", "\tOf: numbers\n", &format!("\tFilter: {BIG}\n"), "\tFailurePolicy: skip\n"] {
        assert!(described.contains(line), "{line} is not in {described}");
    }
    let lines: String = (0..10).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    output(&broker, &["produce", "numbers"], &lines);
    let read = |name| output(&broker, &["consume", name, "--from-beginning"], "").lines().count();
    assert_eq!((read("numbers"), read("big"), read("all")), (10, 5, 5));

    let more = r#"json-compare{"path":"/n","op":">=","value":9}"#;
    assert_eq!(output(&broker, &["view", "alter", "big", "--filter", more], ""), "altered view big\n");
    assert_eq!((read("big"), read("all")), (1, 1));

    assert!(refused(&broker, &["view", "create", "big", "--of", "numbers"]).contains("TOPIC_ALREADY_EXISTS"));
    assert!(
        refused(&broker, &["view", "create", "x", "--of", "none"]).contains("view.of=none: there is no such topic")
    );
    assert!(refused(&broker, &["view", "create", "x", "--of", "numbers", "--filter", "none"]).contains("stage.filter"));
    assert!(refused(&broker, &["view", "delete", "numbers"]).contains("numbers is a topic with its own records"));
    assert!(refused(&broker, &["view", "alter", "numbers", "--filter", more]).contains("not a view"));
    assert!(refused(&broker, &["view", "alter", "big"]).contains("nothing to change"));
    assert!(refused(&broker, &["topic", "delete", "numbers"]).contains("is the source of the view all, the view big"));
    let wrote = run(&broker, &["produce", "big"], "x\n");
    assert_eq!(wrote.code, Some(1));
    assert!(wrote.stderr.contains("big is a view of numbers and takes no records"), "{}", wrote.stderr);

    assert_eq!(output(&broker, &["view", "delete", "all", "big"], ""), "deleted view all\ndeleted view big\n");
    assert_eq!(output(&broker, &["view", "list"], ""), "");
    assert_eq!(read("numbers"), 10);
}
