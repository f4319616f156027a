//! Counts how far the modules got, and how they ended.

use std::collections::BTreeMap;
use std::fmt;

use crate::examine::Step;
use crate::families::Family;

/// The results of all modules.
#[derive(Default)]
pub(crate) struct Counts {
    /// The modules of each family that reached each step.
    reached: [[u64; Step::ALL.len()]; Family::ALL.len()],
    outcomes: BTreeMap<String, u64>,
    /// The resident memory of each process, before and after, in MiB.
    memory: Vec<(u64, u64)>,
    /// The longest call, in milliseconds of processor time.
    longest: u64,
}

impl Counts {
    /// Adds what a line of a child says.
    pub(crate) fn add(&mut self, line: &str) {
        let parts: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| parts[at].parse::<u64>().unwrap_or_else(|_| panic!("not a line of a child: {line}"));
        match parts[..] {
            ["end", _, _, outcome] => {
                self.reached[number(1) as usize].iter_mut().take(number(2) as usize + 1).for_each(|count| *count += 1);
                *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
            }
            ["memory", ..] => self.memory.push((number(1) >> 20, number(2) >> 20)),
            ["longest", _] => self.longest = self.longest.max(number(1)),
            _ => panic!("not a line of a child: {line}"),
        }
    }

    fn sum(&self, step: Step) -> u64 {
        self.reached.iter().map(|steps| steps[step as usize]).sum()
    }

    /// Checks that the modules got deep enough to mean something.
    pub(crate) fn check(&self, modules: u64) {
        assert_eq!(self.sum(Step::Made), modules, "every module has a result");
        // What is seen is about one and a half times as much.
        for (step, share) in [(Step::Scanned, 55), (Step::Started, 45), (Step::Called, 35), (Step::Answered, 15)] {
            let reached = self.sum(step);
            assert!(reached * 100 >= modules * share, "{reached} of {modules} were {step:?}, not {share} in 100");
        }
        for outcome in ["rejected by the scan", "trap", "deadline", "bad response", "right result"] {
            assert!(self.outcomes.contains_key(outcome), "no module ended so: {outcome}");
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:32}", "")?;
        Step::ALL.iter().try_for_each(|step| write!(formatter, "{:>11}", format!("{step:?}")))?;
        for family in Family::ALL {
            write!(formatter, "\n{:32}", family.name())?;
            self.reached[family as usize].iter().try_for_each(|count| write!(formatter, "{count:>11}"))?;
        }
        write!(formatter, "\n{:32}", "all")?;
        Step::ALL.iter().try_for_each(|step| write!(formatter, "{:>11}", self.sum(*step)))?;
        let outcomes: Vec<String> = self.outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        write!(formatter, "\nends: {}", outcomes.join(", "))?;
        let memory: Vec<String> = self.memory.iter().map(|(before, after)| format!("{before} to {after}")).collect();
        write!(formatter, "\nmemory in MiB: {}; longest call: {} ms", memory.join(", "), self.longest)
    }
}
