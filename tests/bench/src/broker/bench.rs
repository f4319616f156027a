//! Brokers that are warm, and work on both in turns.

use std::time::{Duration, Instant};

use anyhow::Result;
use millstream_record::Codec;

use super::figure::{Figure, Line};
use crate::frames::{Batch, Range, connections, fetch_frame, produce_frame};
use crate::nodes::{Nodes, Programs, System};
use crate::process::touch_memory;
use crate::replay::{Kind, replay_all};

/// About 256 KiB: 256 records of 1 KiB.
pub(super) const LARGE: Batch = Batch { records: 256, value_bytes: 1024, codec: Codec::None };

/// One record of 100 B.
pub(super) const SMALL: Batch = Batch { records: 1, value_bytes: 100, codec: Codec::None };

/// What is measured, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) programs: Programs,
    /// The turns of each side.
    pub(crate) turns: usize,
    /// How long each broker is warmed up.
    pub(crate) warm_up: Duration,
    /// Divides the work of a turn, to try the rows.
    pub(crate) divisor: usize,
}

/// The brokers of a run.
pub(crate) struct Bench {
    options: Options,
    /// Brokers that are warm: ours, and Kafka's if it is here. They start with the first row that needs them.
    warm: Vec<Nodes>,
}

impl Bench {
    /// Returns a run without brokers. Touches memory.
    ///
    /// # Errors
    /// Linux does not tell what memory is free.
    pub(super) fn new(options: Options) -> Result<Self> {
        if options.divisor == 1 {
            touch_memory()?;
        }
        Ok(Self { options, warm: Vec::new() })
    }

    /// Returns a part of the work of a turn: all of it, unless rows are only tried.
    pub(super) fn part(&self, of: usize) -> usize {
        (of / self.options.divisor).max(1)
    }

    /// Returns the systems of a run, ours first.
    fn systems(&self) -> &'static [System] {
        if self.options.programs.classpath.is_some() { &[System::Fsync, System::Kafka] } else { &[System::Fsync] }
    }

    /// Starts new brokers with these configs, which are not warm.
    ///
    /// # Errors
    /// A broker does not start.
    pub(super) async fn start(&self, configs: &[(&str, &str)]) -> Result<Turns> {
        let mut sides = Vec::new();
        for system in self.systems() {
            sides.push(Nodes::start(*system, &self.options.programs, 1, configs).await?);
        }
        Ok(Turns { sides, count: self.options.turns })
    }

    /// Starts a broker of ours, which is not warm.
    ///
    /// # Errors
    /// The broker does not start.
    pub(super) async fn start_ours(&self, configs: &[(&str, &str)]) -> Result<Nodes> {
        Nodes::start(System::Fsync, &self.options.programs, 1, configs).await
    }

    /// Runs work on the brokers that are warm, in turns.
    ///
    /// # Errors
    /// A broker does not start, or the work fails.
    pub(super) async fn turns<const N: usize>(
        &mut self,
        work: impl AsyncFnMut(&mut Nodes, usize) -> Result<[f64; N]>,
    ) -> Result<Measured<N>> {
        let count = self.options.turns;
        turns(self.warm().await?, count, work).await
    }

    /// Returns the brokers that are warm.
    ///
    /// # Errors
    /// A broker does not start, or rejects the load.
    pub(super) async fn warm(&mut self) -> Result<&mut [Nodes]> {
        if self.warm.is_empty() {
            let brokers = self.start(&[]).await?;
            for nodes in &brokers.sides {
                self.warm_up(nodes).await?;
            }
            self.warm = brokers.sides;
        }
        Ok(&mut self.warm)
    }

    /// Sends big and small requests, and reads them, until the time is over: a JVM compiles what runs often.
    async fn warm_up(&self, nodes: &Nodes) -> Result<()> {
        let begun = Instant::now();
        let address = nodes.address(1);
        let mut round = 0;
        while round == 0 || begun.elapsed() < self.options.warm_up {
            let topic = format!("warm-up-{round}");
            nodes.create(&topic, 2).await?;
            let large = connections(2, |partition| produce_frame(LARGE, 1, &topic, partition))?;
            let small = connections(2, |partition| produce_frame(SMALL, 1, &topic, partition))?;
            let fetch = connections(2, |partition| fetch_frame(&topic, partition, Range::at(0)))?;
            replay_all(address, &large, self.part(2048), 8, Kind::Produce)?;
            replay_all(address, &small, self.part(25_000), 64, Kind::Produce)?;
            replay_all(address, &fetch, self.part(1000), 1, Kind::Fetch)?;
            nodes.delete(&topic).await?;
            round += 1;
        }
        eprintln!("  {}: warm after {round} GB and {} s", nodes.system().name(), begun.elapsed().as_secs());
        Ok(())
    }

    /// Prints the end of the logs of the brokers that are warm.
    pub(super) fn print_logs(&self) {
        self.warm.iter().for_each(Nodes::print_logs);
    }
}

/// Brokers of a row of its own.
pub(super) struct Turns {
    pub(super) sides: Vec<Nodes>,
    count: usize,
}

impl Turns {
    /// Limits each side to one turn, for work that takes minutes.
    pub(super) fn once(mut self) -> Self {
        self.count = 1;
        self
    }

    /// Runs work on the brokers in turns.
    ///
    /// # Errors
    /// The work fails.
    pub(super) async fn run<const N: usize>(
        &mut self,
        work: impl AsyncFnMut(&mut Nodes, usize) -> Result<[f64; N]>,
    ) -> Result<Measured<N>> {
        turns(&mut self.sides, self.count, work).await.inspect_err(|_| self.sides.iter().for_each(Nodes::print_logs))
    }
}

/// Runs work in turns: A B, B A, A B and so on. The side that waits is idle.
async fn turns<const N: usize>(
    sides: &mut [Nodes],
    count: usize,
    mut work: impl AsyncFnMut(&mut Nodes, usize) -> Result<[f64; N]>,
) -> Result<Measured<N>> {
    let mut measured = Measured { sides: vec![Vec::new(); sides.len()] };
    for turn in 0..count {
        for place in 0..sides.len() {
            let side = (turn + place) % sides.len();
            measured.sides[side].push(work(&mut sides[side], turn).await?);
        }
    }
    Ok(measured)
}

/// The figures of all turns, ours first.
pub(super) struct Measured<const N: usize> {
    sides: Vec<Vec<[f64; N]>>,
}

impl<const N: usize> Measured<N> {
    /// Returns the turns of a figure on our side.
    pub(super) fn ours(&self, place: usize) -> Vec<f64> {
        self.sides[0].iter().map(|turn| turn[place]).collect()
    }

    /// Returns the turns of a figure on Kafka's side; none where it is missing.
    pub(super) fn kafka(&self, place: usize) -> Vec<f64> {
        self.sides.get(1).into_iter().flatten().map(|turn| turn[place]).collect()
    }

    /// Returns one of the figures as a line of the table.
    pub(super) fn figure(&self, place: usize, line: Line, note: impl Into<String>) -> Figure {
        Figure::new(line, self.ours(place), self.kafka(place), note)
    }
}
