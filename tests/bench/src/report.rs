//! The page.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figure: String,
    pub(crate) goal: String,
    pub(crate) detail: String,
}

const HEAD: &str = "# Benchmarks

What a stage costs in the sandbox beside the same Rust code compiled natively. `cargo xtask bench --stages` measures it and
writes this page.
";

const NOTES: &str = "
## How to read it

- A ratio is wasm over native, and smaller is better. Both run in one thread in turns (A B B A ...) in samples of half a
  millisecond; the figure is the median of the ratios of neighbours, which a busy machine moves little. A goal in parentheses is
  the one beyond.
- Native is the plug-in's own crate, the same functions of the SDK, compiled for this machine with optimisation. Both answers are
  compared before anything is measured.
- The figure is that of the plug-in as it comes with the binary, and so without a deadline ([limits](stages.md#limits)). Behind
  \"pushed\" is what the same bytes take as a version that somebody pushes, whose code carries the checks of the deadline, and
  the ratio of that.
- A call with records includes all that the host does for it: building the columns from records, finding an instance, copying
  the columns in, the call, copying the answer out and checking it, counting. Natively the columns are built as well, by
  the same code, since a stage that sees columns needs them there too; the call alone, without them, is beside it.
- Compressing is the plug-in's part: that the host reads back what was compressed before anything is acknowledged is what the
  row for decompressing costs once more.
- A swap: versions take turns while every core calls. What a batch can wait for is taking the version that serves; a thread that
  is not on a core waits too, which is in the figure where it hits: in two of nine runs on a shared machine, with 1 and 5 ms.
- Push to serving is from bytes in memory to the first answer of a live stage: scan, compile in a child process (cold) or take
  from the cache (cached), instantiate, configure, probe, swap. The network and the topic that keeps versions are not in it.
- Through the broker's store is all of that and what docs/versions.md describes, by a client over a socket, until a batch that
  the new version has seen is acknowledged. A cached version is one that the broker has compiled before.
- The broker's row is its processor time, in a process of its own, for the same records to a topic with the filter and to one
  without, in turns: decoding the batch's keys, the call, and appending the batch as it came.

## What stands in the way

The code of a pushed plug-in looks at a clock at the head of every function and at every turn of a loop, so that one that does
not end is stopped. That is the larger part of what it takes more than native code; the plug-ins of the binary do not pay it. What
is left is the sandbox's compiler (Cranelift keeps fewer values in registers than LLVM), words of 32 bits, and the copies in and
out, which are the smallest part: 64 KiB take a microsecond.

- murmur2 works on four words a turn, contains on blocks of 128 places, because of the clock. memchr's own search, which contains
  used before, takes 14 us in the sandbox for what takes 8 now; natively it has vectors of 32 bytes, which the sandbox does not
  have, and takes 3 us.
- json-compare stops reading a record at its field. Of what is left in the sandbox, a quarter is serde_json's look at what comes
  next, a fifth reading names, a sixth making numbers of digits, and the rest many small functions: plug-ins are built with twice
  as much inlined as usual, which took a tenth off (four times takes as much again, and makes them a quarter larger). The copy of
  1.2 MB of values, of which only the first bytes are read (the contract gives a plug-in whole columns), is a tenth of the call.
- lz4, 64 KiB decompressed, by what was changed (samples of the processor over the machine code showed where to look): 26 us at
  first; 20 without the clock; 14 with the unsafe code of lz4_flex in the sandbox, where it endangers nobody, since its copies of
  16 bytes become vectors; 10 since a block is decompressed in a function of its own. Inlined into the walk over the frame, it
  had the compiler keep the ends of input and output in memory, and load and store them for every copy. Frames are walked over
  by the plug-in, straight into the output, which saves a copy; natively that helped too (10 us before, 8.6 now).
- lz4, 64 KiB compressed: 61 us at first, 41 now. Nine tenths of it are one function of lz4_flex. It compares and hashes words of
  the machine: 8 and 5 bytes natively, 4 and 4 in the sandbox, which finds more and shorter matches; and Cranelift
  keeps most of its variables on the stack. That is the floor as long as the library is used as it is.
- Natively lz4_flex is built without its unsafe code, as the broker, which reads with it what clients send, wants it. With it,
  native code compresses 64 KiB in 25 us instead of 28, and decompresses them in 6.3 instead of 7.1: against that the sandbox
  would stand at 1.6 and 1.3. No leaf of the host is used: the contract stays without one.

The broker's row: a batch of 256 KiB takes the broker about 105 us of a processor without a filter, nearly nine tenths in the
kernel, which copies it from the socket and into the page cache. The filter cost 60 to 70 us more as long as every batch
was handed to a thread that may compute: two wake-ups, and a batch that lies in another core's cache. Filters that have been quick
for long now run where the socket is served, and the one walk that checks 256 records gathers their keys as well. What is
left, by timers in place: 3 to 4 us for the call, nearly all of it in the guest, and 2 to 3 us for the keys, of which each lies in a
cache line of its own: 6 to 8 % of a batch. Twenty-six runs of this row stood between +2 and +14 %, with +9 % in the middle: most of
what is measured is the kernel finding memory for the page cache.
";

/// The page with these rows.
pub(crate) fn page(rows: &[Row]) -> String {
    let mut page = String::from(HEAD);
    let _ = writeln!(page, "\nMeasured {} on {}.\n", date(), machine());
    page.push_str("| Stage | Figure | Goal | |\n|---|---|---|---|\n");
    for Row { name, figure, goal, detail } in rows {
        let _ = writeln!(page, "| {name} | {figure} | {goal} | {detail} |");
    }
    page.push_str(NOTES);
    page
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, {} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Today, in UTC.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    civil(seconds / 86_400)
}

/// The date of a day since 1970, by Howard Hinnant's `civil_from_days`: years that begin in March, eras of 400.
fn civil(days: u64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!([0, 59, 11_016, 20_454].map(civil), ["1970-01-01", "1970-03-01", "2000-02-29", "2026-01-01"]);
    }
}
