//! Curves as SVG, in colours that the page sets: what plotters draws in colours that nobody means becomes variables of the style sheet.
use plotters::prelude::*;

/// Width and height in the page's units: as wide as a telephone, where letters are then as large as they say.
const SIZE: (u32, u32) = (380, 190);
/// Most points of a line; of more, means of neighbours are drawn.
const POINTS: usize = 400;
/// Lines of so few points have them marked.
const MARKED: usize = 30;
/// Most lines of a chart.
pub const LINES: usize = 8;
/// Placeholders for letters and for the grid.
const INK: RGBColor = RGBColor(1, 0, 254);
const GRID: RGBColor = RGBColor(2, 0, 254);

/// Placeholder of a line's colour.
fn colour(line: usize) -> RGBColor {
    RGBColor(3, u8::try_from(line % LINES).unwrap_or(0), 254)
}

/// A chart of lines, each of at least one point; `None` where there is none or plotters fails. `label` says what it shows.
pub fn chart(label: &str, lines: &[Vec<(f64, f64)>]) -> Option<String> {
    let lines: Vec<_> = lines.iter().take(LINES).map(|points| thinned(points)).collect();
    let [x, y] =
        [range(lines.iter().flatten().map(|p| p.0), 0.0)?, range(lines.iter().flatten().map(|p| p.1), 0.06)?];
    let mut svg = String::new();
    draw(&mut svg, &lines, x, y).ok()?;
    let hex = |c: RGBColor| format!("\"#{:02X}{:02X}{:02X}\"", c.0, c.1, c.2);
    svg = svg.replace(&hex(INK), "\"currentColor\"").replace(&hex(GRID), "\"var(--grid)\"");
    for line in 0..LINES {
        svg = svg.replace(&hex(colour(line)), &format!("\"var(--line{line})\""));
    }
    let head = format!("<svg role=\"img\" aria-label=\"{}\" ", label.replace(['"', '<', '>', '&'], " "));
    Some(svg.replacen("<svg ", &head, 1))
}

type Failed = Box<dyn std::error::Error>;

fn draw(svg: &mut String, lines: &[Vec<(f64, f64)>], x: [f64; 2], y: [f64; 2]) -> Result<(), Failed> {
    let text = |e: DrawingAreaErrorKind<_>| -> Failed { format!("{e:?}").into() };
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut builder = ChartBuilder::on(&root);
    builder.margin(8).margin_right(14).x_label_area_size(20).y_label_area_size(50);
    let mut chart = builder.build_cartesian_2d(x[0]..x[1], y[0]..y[1]).map_err(text)?;
    let whole = x[1] - x[0] >= 4.0;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(6)
        .y_labels(4)
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .x_label_formatter(&|v| if whole || v.fract() == 0.0 { format!("{v:.0}") } else { String::new() })
        .y_label_formatter(&|v| tidy(*v))
        .draw()
        .map_err(text)?;
    for (i, points) in lines.iter().enumerate() {
        let style = colour(i).stroke_width(2);
        chart.draw_series(LineSeries::new(points.iter().copied(), style)).map_err(text)?;
        let marked = points.iter().filter(|_| points.len() <= MARKED);
        chart.draw_series(marked.map(|p| Circle::new(*p, 2, colour(i).filled()))).map_err(text)?;
    }
    root.present().map_err(text)
}

/// Means of neighbours, so many that the line is still to be seen.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

/// Least and largest, with a part of the difference around; never so narrow that an axis has no numbers.
fn range(values: impl Iterator<Item = f64>, around: f64) -> Option<[f64; 2]> {
    let ends = |e: Option<[f64; 2]>, v: f64| Some(e.map_or([v, v], |[a, b]| [a.min(v), b.max(v)]));
    let [low, high] = values.filter(|v| v.is_finite()).fold(None, ends)?;
    let least = if low == high { 0.2 } else { 1e-3 } * low.abs().max(high.abs());
    let wide = (high - low).max(if least > 0.0 { least } else { 1.0 });
    let more = (wide - (high - low)) / 2.0 + around * wide;
    Some([low - more, high + more])
}

/// A number as an axis or a table has it.
pub fn tidy(v: f64) -> String {
    let size = v.abs();
    let text = match size {
        _ if size < 1e-12 => return "0".into(),
        s if !(1e-3..1e5).contains(&s) => return format!("{v:.1e}"),
        s if s >= 100.0 => format!("{v:.0}"),
        s if s >= 1.0 => format!("{v:.2}"),
        _ => format!("{v:.4}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_the_pages() {
        let svg =
            chart("a \"name\" <b>", &[vec![(0.0, 1.0), (1.0, 2.0)], vec![(0.0, 3.0)]]).expect("a chart");
        assert!(svg.contains("var(--line0)") && svg.contains("var(--line1)") && svg.contains("currentColor"));
        assert!(!svg.contains("FE\"") && !svg.contains("<b>"), "{svg}");
        let second = chart("", &[vec![], vec![(0.0, 1.0)]]).expect("a chart");
        assert!(second.contains("var(--line1)") && !second.contains("var(--line0)"), "{second}");
    }

    #[test]
    fn any_numbers_make_a_chart_or_none() {
        assert!(chart("", &[]).is_none() && chart("", &[vec![]]).is_none());
        for points in [
            vec![(0.0, 0.0)],
            vec![(1e9, 1e15), (0.0, -1e15)],
            vec![(3.0, 5e-324), (4.0, 1e-300)],
            vec![(1.0, 1e15), (1.0, 1e15 + 0.125)],
            (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect(),
        ] {
            let svg = chart("x", &[points]).expect("a chart");
            assert!(svg.len() < 60_000 && !svg.contains("NaN"), "{} bytes", svg.len());
        }
        assert_eq!(
            [0.0, 0.25, 1.0, 123.4, 1e7, 2e-4].map(tidy),
            ["0", "0.25", "1", "123", "1.0e7", "2.0e-4"]
        );
    }
}
