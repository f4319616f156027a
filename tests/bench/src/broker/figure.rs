//! A line of the table: what was measured on both sides, and what that means.

use crate::measure::median;

/// Which figures are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// What a line says, apart from its figures.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// The unit of both figures.
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) goal: &'static str,
}

/// The figures of a line, a pair for each turn.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) line: Line,
    /// Each turn on our side.
    ours: Vec<f64>,
    /// The same turns on Kafka's side. Empty where Kafka is missing, or has no such figure.
    kafka: Vec<f64>,
    /// How it was measured, and what else was seen.
    pub(crate) note: String,
}

impl Figure {
    /// Returns a line with the figures of its turns, and prints it.
    pub(crate) fn new(line: Line, ours: Vec<f64>, kafka: Vec<f64>, note: impl Into<String>) -> Self {
        let figure = Self { line, ours, kafka, note: note.into() };
        let kafka = figure.kafka().map_or_else(|| "-".to_owned(), number);
        let ratio = figure.ratio().map_or_else(String::new, |ratio| format!(", {ratio:.2} x"));
        let Line { name, unit, .. } = figure.line;
        eprintln!("  {name}: ours {}, Kafka {kafka} {unit}{ratio}", number(figure.ours()));
        eprintln!("    ours {:.3?}, Kafka {:.3?}", figure.ours, figure.kafka);
        figure
    }

    /// Returns the median of our turns.
    pub(crate) fn ours(&self) -> f64 {
        median(self.ours.iter().copied())
    }

    /// Returns the median of Kafka's turns, if there are any.
    pub(crate) fn kafka(&self) -> Option<f64> {
        (!self.kafka.is_empty()).then(|| median(self.kafka.iter().copied()))
    }

    /// Returns how many times better ours is: the median of the ratios of the pairs. A ratio below 1 is worse.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let ratio = |(ours, kafka): (&f64, &f64)| match self.line.better {
            Better::Less => kafka / ours,
            Better::More => ours / kafka,
        };
        (!self.kafka.is_empty()).then(|| median(self.ours.iter().zip(&self.kafka).map(ratio)))
    }
}

/// Returns a figure with three digits or more, for the table.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.01 => format!("{value:.4}"),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => thousands(value),
    }
}

/// Returns a whole number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(better: Better) -> Line {
        Line { name: "work", unit: "s", better, goal: "2 x" }
    }

    #[test]
    fn a_ratio_above_one_is_better() {
        let less = Figure::new(line(Better::Less), vec![1.0, 2.0, 1.0], vec![4.0, 4.0, 3.0], "");
        assert_eq!((less.ratio(), less.ours(), less.kafka()), (Some(3.0), 1.0, Some(4.0)));
        let more = Figure::new(line(Better::More), vec![10.0], vec![4.0], "");
        assert_eq!(more.ratio(), Some(2.5));
        assert_eq!(Figure::new(line(Better::More), vec![10.0], Vec::new(), "").ratio(), None);
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [(0.0, "0"), (0.0012, "0.0012"), (0.4567, "0.457"), (4.567, "4.57"), (45.67, "45.7")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(456.7), "457");
        assert_eq!(number(1_234_567.0), "1,234,567");
    }
}
