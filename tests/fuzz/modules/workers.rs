//! Child processes that try the modules, so that one that dies or hangs is named by its seed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::counts::Counts;
use crate::examine::Sandbox;
use crate::families::{self, Family};

/// The argument with which this program tries modules: the first seed and the number of modules follow.
pub(crate) const ARGUMENT: &str = "try-modules";

/// How long one module may take by the wall clock. The compiler alone has 200 s on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// The modules that one child tries.
const MODULES_A_CHILD: u64 = 2_000;

/// The failures after which the test ends.
const FAILURES_MAX: usize = 8;

/// One module in this many is compiled by a child process, as a broker does it; the others in the process.
const BY_CHILD: u64 = 4;

/// The modules between two checks that good plug-ins still work.
const CHECK_AFTER: u64 = 100;

/// The modules after which the memory has its usual size.
const WARM_UP: u64 = 50;

/// How much the memory of a process may grow after that, in bytes.
const GROWTH_MAX: u64 = 96 << 20;

/// What the modules did.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) counts: Counts,
    pub(crate) failures: Vec<String>,
}

/// Tries modules in as many processes as there are processors.
pub(crate) fn run(first: u64, modules: u64) -> Found {
    let (next, found) = (Mutex::new(first), Mutex::new(Found::default()));
    let share = modules.div_ceil(processors() as u64).clamp(1, MODULES_A_CHILD);
    let take = || {
        let mut next = next.lock().expect("no other thread panics");
        let begin = *next;
        *next = (begin + share).min(first + modules);
        (begin < *next).then_some(begin..*next)
    };
    thread::scope(|scope| {
        for _ in 0..processors() {
            scope.spawn(|| {
                while let Some(seeds) = take() {
                    let (mut begin, end) = (seeds.start, seeds.end);
                    while begin < end && found.lock().expect("no other thread panics").failures.len() < FAILURES_MAX {
                        begin = watch(begin, end, &found);
                    }
                }
            });
        }
    });
    found.into_inner().expect("no thread panics")
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs a child for these seeds. Returns the seed to go on with: after the last, or after one that ended the child.
fn watch(begin: u64, end: u64, found: &Mutex<Found>) -> u64 {
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new(this)
        .args([ARGUMENT, &begin.to_string(), &(end - begin).to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let output = child.stdout.take().expect("it is a pipe");
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut seed = begin;
    let problem = loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => match line.split_once('\t') {
                Some(("begin", number)) => seed = number.parse().expect("a seed"),
                _ => found.lock().expect("no other thread panics").counts.add(&line),
            },
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                break Some(format!("it took longer than {} s", PATIENCE.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    let problem = problem.or_else(|| died(&mut child));
    let _ = child.wait();
    reader.join().expect("it does not panic");
    let Some(problem) = problem else { return end };
    let family = Family::of(seed).name();
    found.lock().expect("no other thread panics").failures.push(format!(
        "module {seed} ({family}): {problem}; to repeat it: \
         MILLSTREAM_MODULE={seed} cargo test -p millstream-fuzz --test modules -- --nocapture"
    ));
    seed + 1
}

fn died(child: &mut Child) -> Option<String> {
    let status = child.wait().expect("it is a child");
    (!status.success()).then(|| format!("its process ended with {status}"))
}

/// Tries modules in this process, and prints a line for each.
pub(crate) fn child(arguments: &[String]) -> ExitCode {
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (first, modules) = (number(0), number(1));
    let mut sandbox = Sandbox::new();
    let mut usual = None;
    for seed in first..first + modules {
        println!("begin\t{seed}");
        let made = families::make(seed);
        let by_child = (seed / BY_CHILD).is_multiple_of(BY_CHILD);
        let end = sandbox.examine(&made, by_child);
        println!("end\t{}\t{}\t{}", Family::of(seed) as usize, end.step as usize, end.outcome);
        if (seed - first) % CHECK_AFTER == CHECK_AFTER - 1 {
            sandbox.check();
        }
        if seed - first == WARM_UP {
            usual = Some(memory());
        }
    }
    sandbox.check();
    if let Some(usual) = usual {
        let now = memory();
        println!("memory\t{usual}\t{now}");
        let growth = now.saturating_sub(usual);
        assert!(growth <= GROWTH_MAX, "the memory grew from {usual} to {now} bytes");
    }
    println!("longest\t{}", sandbox.clock.longest.as_millis());
    ExitCode::SUCCESS
}

/// Returns the resident memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a system with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the resident memory");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes << 10
}
