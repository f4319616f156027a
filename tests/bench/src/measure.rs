//! Measures on a busy machine: two kinds of work run in turns, and the result is the median of the ratios of adjacent
//! samples.

use std::time::{Duration, Instant};

/// The extent of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// The number of pairs of samples.
    pub(crate) pairs: usize,
    /// The time of a sample. It is far below a time slice, so that most samples are not interrupted.
    sample: Duration,
    /// The number of swaps, starts and instances, in the rows about those.
    pub(crate) rounds: usize,
}

impl Effort {
    /// The effort for the page.
    pub(crate) const FULL: Effort = Effort { pairs: 400, sample: Duration::from_micros(500), rounds: 40 };

    /// The effort for a test.
    #[cfg(test)]
    pub(crate) const SMALL: Effort = Effort { pairs: 2, sample: Duration::ZERO, rounds: 2 };
}

/// The costs of two kinds of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paired {
    /// The median ratio of the first to the second.
    pub(crate) ratio: f64,
    /// The median time of one call of the first.
    pub(crate) first: Duration,
    /// The median time of one call of the second.
    pub(crate) second: Duration,
}

/// Measures two kinds of work in turns. Each is called once and returns how long that took.
pub(crate) fn paired(
    effort: Effort,
    mut first: impl FnMut() -> Duration,
    mut second: impl FnMut() -> Duration,
) -> Paired {
    let calls = [calls_of_sample(effort, &mut first), calls_of_sample(effort, &mut second)];
    let mut samples = Vec::with_capacity(effort.pairs);
    for pair in 0..effort.pairs {
        // The second of a pair finds warmer caches, so they change places.
        let (one, other);
        if pair % 2 == 0 {
            one = sample(calls[0], &mut first);
            other = sample(calls[1], &mut second);
        } else {
            other = sample(calls[1], &mut second);
            one = sample(calls[0], &mut first);
        }
        samples.push((one, other));
    }
    Paired {
        ratio: median(samples.iter().map(|(one, other)| one / other)),
        first: Duration::from_secs_f64(median(samples.iter().map(|(one, _)| *one))),
        second: Duration::from_secs_f64(median(samples.iter().map(|(_, other)| *other))),
    }
}

/// Returns work that is timed from beginning to end.
pub(crate) fn timed<R>(mut work: impl FnMut() -> R) -> impl FnMut() -> Duration {
    move || {
        let begun = Instant::now();
        std::hint::black_box(work());
        begun.elapsed()
    }
}

fn calls_of_sample(effort: Effort, work: &mut impl FnMut() -> Duration) -> u32 {
    // Warms up code, memory and branch predictors.
    let least = (0..5).map(|_| work()).min().unwrap_or_default();
    let calls = effort.sample.as_nanos() / least.as_nanos().max(1);
    u32::try_from(calls).unwrap_or(u32::MAX).max(1)
}

/// Returns the seconds of one call.
fn sample(calls: u32, work: &mut impl FnMut() -> Duration) -> f64 {
    let time: Duration = (0..calls).map(|_| work()).sum();
    time.as_secs_f64() / f64::from(calls)
}

/// Returns the median.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_work() {
        let effort = Effort { pairs: 9, ..Effort::SMALL };
        let paired = paired(effort, || Duration::from_micros(30), || Duration::from_micros(20));
        assert!((paired.ratio - 1.5).abs() < 1e-9);
        assert_eq!((paired.first.as_micros(), paired.second.as_micros()), (30, 20));
    }
}
