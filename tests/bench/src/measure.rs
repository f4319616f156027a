//! Measuring on a machine that is busy with other things: two kinds of work in turns, the median of the ratios of
//! neighbours.

use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Pairs of samples.
    pub(crate) pairs: usize,
    /// How long a sample takes: far less than a time slice, so that most are not interrupted.
    sample: Duration,
    /// Swaps, starts and instances of the rows about those.
    pub(crate) rounds: usize,
}

impl Effort {
    /// For the page.
    pub(crate) const FULL: Effort = Effort { pairs: 400, sample: Duration::from_micros(500), rounds: 40 };

    /// For a test.
    #[cfg(test)]
    pub(crate) const SMALL: Effort = Effort { pairs: 2, sample: Duration::ZERO, rounds: 2 };
}

/// What two kinds of work cost beside each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paired {
    /// The first over the second: the median of the pairs.
    pub(crate) ratio: f64,
    /// One call of the first, the median.
    pub(crate) first: Duration,
    /// One call of the second, the median.
    pub(crate) second: Duration,
}

/// Measures two kinds of work in turns. Each is called once and says how long that took.
pub(crate) fn paired(
    effort: Effort,
    mut first: impl FnMut() -> Duration,
    mut second: impl FnMut() -> Duration,
) -> Paired {
    let calls = [calls_of_sample(effort, &mut first), calls_of_sample(effort, &mut second)];
    let mut samples = Vec::with_capacity(effort.pairs);
    for pair in 0..effort.pairs {
        // Whoever comes second finds other caches.
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

/// Work that is timed from beginning to end.
pub(crate) fn timed<R>(mut work: impl FnMut() -> R) -> impl FnMut() -> Duration {
    move || {
        let begun = Instant::now();
        std::hint::black_box(work());
        begun.elapsed()
    }
}

fn calls_of_sample(effort: Effort, work: &mut impl FnMut() -> Duration) -> u32 {
    // Warm: code, memory, predictors.
    let least = (0..5).map(|_| work()).min().unwrap_or_default();
    let calls = effort.sample.as_nanos() / least.as_nanos().max(1);
    u32::try_from(calls).unwrap_or(u32::MAX).max(1)
}

/// Seconds of one call.
fn sample(calls: u32, work: &mut impl FnMut() -> Duration) -> f64 {
    let time: Duration = (0..calls).map(|_| work()).sum();
    time.as_secs_f64() / f64::from(calls)
}

/// The middle one.
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
