//! Checks with strace that no response to acks=all is sent before the batch is on disk.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_tests::{Broker, Tool, wait_until};
use millstream_wire::messages::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millstream_wire::{ErrorCode, Records};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Raw, Topic};

/// Set by `cargo xtask test`.
pub(crate) const STRACE: &str = "MILLSTREAM_STRACE";

const PATIENCE: Duration = Duration::from_secs(60);

const REQUESTS: usize = 20;

const SYSCALLS: &str = "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        crate::trial("durability::acks_all_waits_for_the_fsync", STRACE, acks_all_waits_for_the_fsync),
        crate::trial("durability::the_check_sees_a_response_that_does_not_wait", STRACE, page_cache_does_not_wait),
    ]
}

fn acks_all_waits_for_the_fsync(strace: &str) {
    let steps = trace(strace, "fsync");
    assert_eq!(early_responses(&steps), 0, "{steps:?}");
}

/// Checks that with `flush.mode=page-cache` the broker responds without an fsync.
fn page_cache_does_not_wait(strace: &str) {
    let steps = trace(strace, "page-cache");
    assert_ne!(early_responses(&steps), 0, "{steps:?}");
}

/// The broker's system calls, in the order in which strace saw them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Append,
    SyncBegins,
    SyncEnds,
    Response,
}

/// Counts the responses that were sent without a complete fsync after the append.
fn early_responses(steps: &[Step]) -> usize {
    let (mut early, mut synced, mut begun) = (0, true, false);
    for step in steps {
        match step {
            Step::Append => (synced, begun) = (false, false),
            Step::SyncBegins => begun = true,
            Step::SyncEnds => synced |= begun,
            Step::Response => early += usize::from(!synced),
        }
    }
    early
}

/// Produces with acks=all, one request after the other, and returns what strace saw.
fn trace(strace: &str, flush_mode: &str) -> Vec<Step> {
    let broker = Broker::builder().set("flush.mode", flush_mode).start();
    let mut raw = Raw::to(broker.address());
    Topic::create(&mut raw, "traced", 1, &[]);
    let output = broker.scratch().join("strace");
    let tracer = Tracer::attach(strace, broker.pid(), SYSCALLS, &output);
    for _ in 0..REQUESTS {
        produce(&mut raw);
    }
    tracer.detach();
    let text = fs::read_to_string(&output).expect("strace has written its output");
    let local = raw.local().to_string();
    let steps = steps(&text, &local);
    let count = |wanted| steps.iter().filter(|&&step| step == wanted).count();
    assert_eq!((count(Step::Append), count(Step::Response)), (REQUESTS, REQUESTS), "{text}");
    steps
}

fn produce(raw: &mut Raw) {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.append(1_700_000_000_000, None, Some(b"value"), []).expect("room for a record");
    let records = Records::Bytes(builder.build().expect("a batch").into());
    let data = PartitionProduceData { index: 0, records };
    let topic = TopicProduceData { name: "traced".into(), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topic_data: vec![topic] };
    let produced = raw.call(9, &request).responses.remove(0).partition_responses.remove(0);
    assert_eq!(produced.error_code, ErrorCode::NONE, "{:?}", produced.error_message);
}

/// Parses strace's output. A call that another thread interrupts takes two lines there.
fn steps(text: &str, client: &str) -> Vec<Step> {
    let mut syncing = HashMap::new();
    let mut steps = Vec::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let (begins, ends) = (!call.starts_with("<..."), !call.ends_with("<unfinished ...>"));
        let name = call.trim_start_matches("<... ").split(['(', ' ']).next().unwrap_or_default();
        let is_log = call.contains("/traced-0/") && call.contains(".log>");
        match name {
            "fsync" | "fdatasync" => {
                if begins && is_log {
                    steps.push(Step::SyncBegins);
                    syncing.insert(thread, ());
                }
                if ends && syncing.remove(thread).is_some() {
                    steps.push(Step::SyncEnds);
                }
            }
            _ if begins && is_log => steps.push(Step::Append),
            _ if begins && call.contains(client) => steps.push(Step::Response),
            _ => {}
        }
    }
    steps
}

/// A strace that follows a process.
pub(crate) struct Tracer(Child);

impl Tracer {
    /// Starts to write the calls that `calls` selects to a file.
    pub(crate) fn attach(strace: &str, pid: Pid, calls: &str, output: &Path) -> Self {
        let pid = pid.as_raw_nonzero().to_string();
        let threads = || fs::read_dir(format!("/proc/{pid}/task")).expect("the broker runs").map_while(Result::ok);
        let child = Tool::new(strace).args(["-f", "-yy", "-e", calls, "-p", &pid, "-o"]).arg(output).spawn();
        let mut tracer = Self(child);
        wait_until("strace to follow every thread", PATIENCE, || {
            let ended = tracer.0.try_wait().expect("the child can be waited for");
            assert!(ended.is_none(), "strace ended: {ended:?}");
            threads()
                .all(|thread| {
                    let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
                    !status.contains("TracerPid:\t0\n")
                })
                .then_some(())
        });
        tracer
    }

    /// Detaches from the process, and waits until the output is complete.
    pub(crate) fn detach(self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).expect("strace can be signalled");
        self.ended();
    }

    /// Waits until the process has ended and the output is complete.
    pub(crate) fn ended(mut self) {
        wait_until("strace to end", PATIENCE, || self.0.try_wait().expect("the child can be waited for"));
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // If strace is killed, the broker stays stopped.
        if matches!(self.0.try_wait(), Ok(None)) {
            kill_process(Pid::from_child(&self.0), Signal::TERM).ok();
            self.0.wait().ok();
        }
    }
}
