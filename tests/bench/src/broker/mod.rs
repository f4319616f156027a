//! `cargo xtask bench --broker`: one broker of ours beside one combined node of Apache Kafka, on the same work.
//!
//! | File | Subject |
//! |---|---|
//! | `mod.rs` | the list of rows |
//! | `bench.rs` | brokers that are warm, and work on both in turns |
//! | `figure.rs` | a row of the table: both medians and their ratio |
//! | `page.rs` | the tables of docs/benchmarks.md |
//! | `chart.rs` | the chart of the ratios |
//! | `produce.rs`, `fetch.rs`, `tools.rs` | replayed requests, and Kafka's own tools |
//! | `end_to_end.rs` | latency from producer to consumer |
//! | `partitions.rs` | many partitions |
//! | `compaction.rs` | the log cleaner |
//! | `start.rs` | the start of a process, and its memory |
//! | `transactions/` | transactions |

mod bench;
mod chart;
mod compaction;
mod end_to_end;
mod fetch;
mod figure;
mod page;
mod partitions;
mod produce;
mod start;
mod tools;
mod transactions;

use std::pin::Pin;

use anyhow::Result;

use bench::Bench;
use figure::Figure;

pub(crate) use bench::Options;
pub(crate) use page::Run;

/// Measures one or more lines of a table.
type Measure = for<'a> fn(&'a mut Bench) -> Pin<Box<dyn Future<Output = Result<Vec<Figure>>> + 'a>>;

/// The rows of the section "A broker", by the names that `--only` takes.
const BROKER: [(&str, Measure); 13] = [
    ("replayed-produce", |bench| Box::pin(produce::replayed(bench))),
    ("producer-performance-1k", |bench| Box::pin(tools::produce_large(bench))),
    ("producer-performance-100", |bench| Box::pin(tools::produce_small(bench))),
    ("small-requests", |bench| Box::pin(produce::small(bench))),
    ("raw-fetch", |bench| Box::pin(fetch::raw(bench))),
    ("consumer-performance", |bench| Box::pin(tools::consume(bench))),
    ("long-poll", |bench| Box::pin(fetch::long_poll(bench))),
    ("durable", |bench| Box::pin(produce::durable(bench))),
    ("end-to-end", |bench| Box::pin(end_to_end::measure(bench))),
    ("spread", |bench| Box::pin(partitions::spread(bench))),
    ("start", |bench| Box::pin(start::measure(bench))),
    ("many-partitions", |bench| Box::pin(partitions::many(bench))),
    ("compaction", |bench| Box::pin(compaction::measure(bench))),
];

/// The rows of the section "Transactions".
const TRANSACTIONS: [(&str, Measure); 4] = [
    ("transactions-1", |bench| Box::pin(transactions::one(bench))),
    ("transactions-64", |bench| Box::pin(transactions::many(bench))),
    ("read-committed", |bench| Box::pin(transactions::read_committed(bench))),
    ("transaction-memory", |bench| Box::pin(transactions::memory(bench))),
];

/// The figures of a section of the page.
pub(crate) struct Section {
    /// Its name in the marks of the page.
    pub(crate) name: &'static str,
    /// The head of the first column.
    pub(crate) subject: &'static str,
    pub(crate) figures: Vec<Figure>,
}

/// What a run has measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) sections: Vec<Section>,
    /// The rows that failed.
    pub(crate) failed: Vec<&'static str>,
}

/// Measures the rows whose name contains `only`, and prints each figure at once. A row that fails is reported, and the
/// others are measured.
///
/// # Errors
/// Linux does not tell what memory is free.
pub(crate) fn measure(options: Options, only: &str) -> Result<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut bench = Bench::new(options)?;
        let mut measured = Measured::default();
        for (section, subject, rows) in
            [("broker", "One broker", &BROKER[..]), ("transactions", "Transactions", &TRANSACTIONS[..])]
        {
            let mut figures = Vec::new();
            for (name, measure) in rows.iter().filter(|(name, _)| name.contains(only)) {
                eprintln!("{name}");
                match measure(&mut bench).await {
                    Ok(measured) => figures.extend(measured),
                    Err(error) => {
                        bench.print_logs();
                        eprintln!("error: {name}: {error:#}");
                        measured.failed.push(name);
                    }
                }
            }
            measured.sections.push(Section { name: section, subject, figures });
        }
        Ok(measured)
    })
}
