//! What many partitions cost, counted in fsyncs by strace: creating them, a stop and a start after kill -9 wait for the
//! disk a few times, not once for each partition.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, millstream, wait_until};
use millstream_wire::messages::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millstream_wire::{ErrorCode, Records};
use rustix::process::{Pid, Signal, kill_process};

use crate::durability::{STRACE, Tracer};
use crate::support::{Raw, Topic, batch};

const PARTITIONS: i32 = 500;

/// The most fsyncs: checkpoints, the marker of a clean stop, the metadata log.
const SYNCS_MAX: usize = 25;

const PATIENCE: Duration = Duration::from_secs(120);

const SYNCS: &str = "trace=fsync,fdatasync,syncfs";

pub(crate) fn trials() -> Vec<Trial> {
    vec![crate::trial("many_partitions::fsyncs_do_not_grow_with_them", STRACE, fsyncs_do_not_grow_with_them)]
}

fn fsyncs_do_not_grow_with_them(strace: &str) {
    let mut broker = Broker::start();
    let output = broker.scratch().join("strace");
    let traced = |broker: &Broker, work: &mut dyn FnMut()| {
        let tracer = Tracer::attach(strace, broker.pid(), SYNCS, &output);
        work();
        tracer.detach();
        syncs(&output)
    };
    let mut raw = Raw::connect(&broker);
    let mut topic = None;
    let created = traced(&broker, &mut || topic = Some(Topic::create(&mut raw, "many", PARTITIONS, &[])));
    assert!((1..=SYNCS_MAX).contains(&created), "creation: {created}");
    let topic = topic.expect("it was created");
    write_to_all(&mut raw, &topic);

    let tracer = Tracer::attach(strace, broker.pid(), SYNCS, &output);
    assert!(broker.stop(Signal::TERM).success());
    tracer.ended();
    let stopped = syncs(&output);
    assert!((1..=SYNCS_MAX).contains(&stopped), "stop: {stopped}");

    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert_eq!(topic.end(&mut raw), 1);
    write_to_all(&mut raw, &topic);
    broker.kill();
    let after_kill = start_and_stop(strace, broker.folder(), &output);
    assert!((1..=2 * SYNCS_MAX).contains(&after_kill), "start after a kill, and stop: {after_kill}");

    broker.restart();
    let mut raw = Raw::connect(&broker);
    for partition in 0..PARTITIONS {
        let end = topic.offset_for(&mut raw, partition, -1);
        assert_eq!((end.error_code, end.offset), (ErrorCode::NONE, 2), "partition {partition}");
    }
}

/// Appends one record to each partition with acks=all.
fn write_to_all(raw: &mut Raw, topic: &Topic) {
    let data = |index| PartitionProduceData { index, records: Records::Bytes(batch(&["value"]).into()) };
    let partition_data = (0..PARTITIONS).map(data).collect();
    let data = TopicProduceData { name: topic.name.clone(), partition_data, ..Default::default() };
    let request = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 60_000, topic_data: vec![data] };
    let produced = raw.call(9, &request);
    let results = produced.responses.iter().flat_map(|topic| &topic.partition_responses);
    assert!(results.inspect(|result| assert_eq!(result.error_code, ErrorCode::NONE)).count() == PARTITIONS as usize);
}

/// Starts a broker under strace, stops it, and returns the number of its fsyncs.
fn start_and_stop(strace: &str, folder: &Path, output: &Path) -> usize {
    let mut command = Command::new(strace);
    command.args(["-f", "-e", SYNCS, "-o"]).arg(output).arg(millstream());
    command.arg("serve").arg("--data-dir").arg(folder).args(["--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut tracer = command.spawn().expect("strace starts");
    let mut line = String::new();
    BufReader::new(tracer.stdout.take().expect("a pipe")).read_line(&mut line).expect("the broker starts");
    assert!(line.starts_with("listening on "), "{line}");
    kill_process(child_of(&tracer), Signal::TERM).expect("the broker can be signalled");
    let status = wait_until("the broker to stop", PATIENCE, || tracer.try_wait().expect("strace can be waited for"));
    assert!(status.success(), "{status}");
    syncs(output)
}

/// Returns the process that strace has started.
fn child_of(tracer: &Child) -> Pid {
    let id = tracer.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("strace runs");
    let child = children.split_whitespace().next().and_then(|child| child.parse().ok());
    child.and_then(Pid::from_raw).expect("strace has a child")
}

/// Counts the calls in strace's output. One that another thread interrupts stands in two lines.
fn syncs(output: &Path) -> usize {
    let text = fs::read_to_string(output).expect("strace has written its output");
    text.lines().filter(|line| line.contains("sync") && !line.contains(" resumed>")).count()
}
