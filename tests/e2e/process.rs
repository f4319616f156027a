//! Starting and stopping.

use millstream_tests::{Broker, Tool, millstream};
use rustix::process::Signal;

#[test]
fn sigterm_and_sigint_stop_it_with_exit_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut broker = Broker::start();
        assert_eq!(broker.stop(signal).code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_second_broker_on_the_same_folder_is_rejected() {
    let broker = Broker::start();
    let second =
        Tool::new(millstream()).args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(broker.folder()).run();
    assert_ne!(second.code, Some(0));
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
    assert!(second.stderr.contains(&broker.folder().display().to_string()), "{}", second.stderr);
}

#[test]
fn an_unknown_key_and_a_bad_value_are_named() {
    for (setting, named) in [("num.partition=3", "num.partition"), ("num.partitions=many", "num.partitions")] {
        let end = Tool::new(millstream()).args(["serve", "--listen", "127.0.0.1:0", "--set", setting]).run();
        assert_ne!(end.code, Some(0), "{setting}");
        assert!(end.stderr.contains(named), "{setting}: {}", end.stderr);
    }
}
