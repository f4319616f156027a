//! Draws how many times better ours is than Kafka, a bar for each row, on a logarithmic axis.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A row of the chart.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) ratio: f64,
}

/// Sizes in pixels.
const WIDTH: u32 = 900;
const ROW: u32 = 22;
const NAMES: u32 = 330;
const EDGE: u32 = 60;

/// The colours of what is better than Kafka, of what is worse, and of text and lines.
const BETTER: RGBColor = RGBColor(46, 125, 90);
const WORSE: RGBColor = RGBColor(190, 80, 60);
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(220, 220, 220);

/// Writes the chart as SVG.
///
/// # Errors
/// The file cannot be written.
pub(super) fn draw(path: &Path, bars: &[Bar]) -> Result<()> {
    if bars.is_empty() {
        return Ok(());
    }
    let height = ROW * bars.len() as u32 + 2 * EDGE;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    draw_on(&root, bars)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("cannot draw {}", path.display()))?;
    root.present().map_err(|error| anyhow!("{error}")).with_context(|| format!("cannot write {}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failure = Box<dyn std::error::Error>;

fn draw_on(root: &Area<'_>, bars: &[Bar]) -> Result<(), Failure> {
    root.fill(&WHITE)?;
    let title = text(18.0, Pos::new(HPos::Center, VPos::Top));
    root.draw(&Text::new("Millstream beside Apache Kafka 4.2: times better", (WIDTH as i32 / 2, 14), title))?;
    let least = bars.iter().map(|bar| bar.ratio).fold(0.5, f64::min);
    let most = bars.iter().map(|bar| bar.ratio).fold(2.0, f64::max) * 1.5;
    let mut chart = ChartBuilder::on(root)
        .margin_top(EDGE - 15)
        .margin_right(EDGE / 2)
        .margin_left(NAMES)
        .x_label_area_size(30)
        .build_cartesian_2d((least..most).log_scale(), 0.0..bars.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_label_style(("sans-serif", 12).into_font().color(&INK))
        .x_label_formatter(&|ratio| format!("{ratio} x"))
        .draw()?;
    for (place, bar) in bars.iter().rev().enumerate() {
        let (bottom, top) = (place as f64 + 0.15, place as f64 + 0.85);
        let colour = if bar.ratio < 1.0 { WORSE } else { BETTER };
        chart.draw_series([Rectangle::new([(1.0, bottom), (bar.ratio, top)], colour.filled())])?;
        let middle = place as f64 + 0.5;
        let label = text(12.0, Pos::new(HPos::Left, VPos::Center));
        let end =
            EmptyElement::at((bar.ratio.max(1.0), middle)) + Text::new(format!("{:.1} x", bar.ratio), (5, 0), label);
        let name = text(12.0, Pos::new(HPos::Right, VPos::Center));
        chart.plotting_area().draw(&end)?;
        chart
            .plotting_area()
            .draw(&(EmptyElement::at((least, middle)) + Text::new(bar.name.clone(), (-8, 0), name)))?;
    }
    Ok(())
}

/// Returns the style of a text with this anchor.
fn text(size: f64, anchor: Pos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK).pos(anchor)
}
