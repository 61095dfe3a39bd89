//! Line charts as SVG, styled by the enclosing page.

use std::fmt::Write;

use crate::html::escape;
use crate::svg_file::svg_file;

/// Width and height of a chart in SVG units.
const SIZE: (f64, f64) = (520.0, 260.0);
/// Margins for the labels: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (58.0, 34.0, 14.0, 34.0);
/// Approximate width of a title letter, and line distance.
const TITLE_LETTER: f64 = 7.8;
const LINE: f64 = 17.0;
/// Numbers of colors and dash patterns in the style.
const COLORS: usize = 8;
const DASHES: usize = 3;
/// Maximum number of points per curve; longer curves are thinned out.
const MAX_POINTS: usize = 600;

/// A curve of a [`Chart`].
pub struct Series<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// Points `(x, y)` in ascending x. Points that are not finite are gaps.
    pub points: Vec<(f64, f64)>,
}

/// Returns an upper limit of the y axis that cuts off outliers, such as the loss of a run that
/// diverges, or `None` if there are none.
///
/// Usual values are up to five times the lowest first value of a series, but at most a hundred
/// times the median of all, and at least five times their first quartile.
pub(crate) fn outlier_limit(series: &[Series]) -> Option<f64> {
    let finite = |series: &Series| -> Vec<f64> {
        series.points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect()
    };
    let values: Vec<Vec<f64>> = series.iter().map(finite).collect();
    let first = values.iter().filter_map(|values| values.first()).copied().reduce(f64::min)?;
    let mut sorted = values.concat();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let (quartile, median) = (sorted[last / 4], sorted[last / 2]);
    let most_usual = (5.0 * first).min(100.0 * median).max(5.0 * quartile);
    let usual = sorted.iter().copied().rfind(|value| *value <= most_usual)?;
    (sorted[last] > most_usual && usual > 0.0).then_some(1.1 * usual)
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Linear.
    Linear,
    /// Logarithmic, base 10.
    Log,
}

/// The unit of axis labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// Plain numbers.
    Plain,
    /// Percent; values are fractions.
    Percent,
}

/// A line chart.
pub struct Chart<'a> {
    /// Title above the chart.
    pub title: &'a str,
    /// Label of the x axis.
    pub x_label: &'a str,
    /// Curves; empty ones are omitted.
    pub series: Vec<Series<'a>>,
    /// Draws the legend.
    pub legend: bool,
    /// Scale of the x axis.
    pub x_scale: Scale,
    /// Labels the x axis at whole numbers only, for epochs.
    pub whole_x: bool,
    /// Scale of the y axis.
    pub y_scale: Scale,
    /// Unit of the y axis.
    pub unit: Unit,
    /// Upper limit of the y axis, if any.
    pub y_most: Option<f64>,
    /// A point `(x, y)` to mark, and its name.
    pub mark: Option<((f64, f64), String)>,
    /// Draws points without connecting lines.
    pub scattered: bool,
    /// Error bars `(x, low, high)`.
    pub whiskers: Vec<(f64, f64, f64)>,
    /// Text labels of points.
    pub labels: Vec<Label>,
    /// Width and height.
    pub size: (f64, f64),
}

/// A text label of a point.
pub struct Label {
    /// Position `(x, y)` of the point.
    pub at: (f64, f64),
    /// Text.
    pub text: String,
    /// Places the text to the right and below the point instead of to the left and above, which
    /// suits points on a rising curve.
    pub below: bool,
}

impl Default for Chart<'_> {
    fn default() -> Self {
        Self {
            title: "",
            x_label: "epoch",
            series: Vec::new(),
            legend: true,
            x_scale: Scale::Linear,
            whole_x: true,
            y_scale: Scale::Linear,
            unit: Unit::Plain,
            y_most: None,
            mark: None,
            scattered: false,
            whiskers: Vec::new(),
            labels: Vec::new(),
            size: SIZE,
        }
    }
}

/// Maps the values of an axis to positions.
pub(crate) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Creates an axis that contains all finite values; with `whole`, without margins.
    pub(crate) fn new(values: impl Iterator<Item = f64>, scale: Scale, (from, to): (f64, f64), whole: bool) -> Self {
        let position = |value: f64| if scale == Scale::Log { value.log10() } else { value };
        let values = values.filter(|v| v.is_finite() && (scale == Scale::Linear || *v > 0.0)).map(position);
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low < 1e-12 * high.abs().max(1e-9) {
            let pad = if whole { 0.5 } else { (0.05 * high.abs()).max(1e-9) };
            (low, high) = (low - pad, high + pad);
        } else if !whole {
            let pad = 0.04 * (high - low);
            (low, high) = (low - pad, high + pad);
        }
        Self { scale, low, high, from, to }
    }

    /// Returns the position of a value.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Log { value.log10() } else { value };
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Returns the tick values of the axis.
    pub(crate) fn ticks(&self, wanted: f64, least_step: f64) -> Vec<f64> {
        let step = nice((self.high - self.low) / wanted).max(least_step);
        if self.scale == Scale::Log {
            let step = step.max(1.0).ceil();
            let first = (self.low / step).ceil() as i32;
            let last = (self.high / step).floor() as i32;
            if first < last {
                return (first..=last).map(|exponent| 10f64.powf(f64::from(exponent) * step)).collect();
            }
            // Less than a decade: ticks at 1, 2 and 5 times a power of ten.
            let decades = (self.low.floor() as i32 - 1)..=(self.high.ceil() as i32);
            let all = decades.flat_map(|exponent| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(exponent)));
            return all.filter(|v| (self.low..=self.high).contains(&v.log10())).collect();
        }
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

/// Rounds `step` to 1, 2 or 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let digit = step / power;
    power
        * if digit < 1.5 {
            1.0
        } else if digit < 3.5 {
            2.0
        } else if digit < 7.5 {
            5.0
        } else {
            10.0
        }
}

/// Formats a number with few digits.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.1e}")
    } else {
        let decimals = (2 - size.log10().floor() as i32).clamp(0, 5) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
    }
}

impl Chart<'_> {
    /// Limits a value to the upper limit of the y axis.
    fn clipped(&self, y: f64) -> f64 {
        self.y_most.map_or(y, |most| y.min(most))
    }

    /// Formats a value of the y axis.
    fn write_y(&self, value: f64) -> String {
        match self.unit {
            Unit::Plain => number(value),
            Unit::Percent => format!("{} %", number(100.0 * value)),
        }
    }

    /// Renders the chart as an `<svg>` element, or returns `None` if there is nothing to draw.
    pub fn to_svg(&self) -> Option<String> {
        let ((width, height), title) = (self.size, escape(self.title));
        let opening = format!(r#"<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">"#);
        Some(opening + &self.content()? + "</svg>")
    }

    /// Renders the chart as an SVG file.
    pub fn to_svg_file(&self) -> Option<String> {
        Some(svg_file(self.size, self.title, &self.content()?))
    }

    /// Renders the contents of the `<svg>` element.
    fn content(&self) -> Option<String> {
        let mut plot = Plot::new(self)?;
        plot.draw_axes();
        plot.draw_legend();
        plot.draw_whiskers();
        plot.draw_series();
        plot.draw_clipped();
        plot.draw_mark();
        plot.draw_labels();
        Some(plot.svg)
    }
}

/// A chart that is being drawn: its visible series, axes and SVG code.
struct Plot<'a> {
    chart: &'a Chart<'a>,
    /// Series with points, with their position in the chart, which selects the color.
    series: Vec<(usize, &'a Series<'a>)>,
    x: Axis,
    y: Axis,
    /// Edges of the plot area.
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
    /// Baseline of the legend.
    legend_y: f64,
    svg: String,
}

impl<'a> Plot<'a> {
    /// Lays out the chart and draws its title. Returns `None` if all series are empty.
    fn new(chart: &'a Chart<'a>) -> Option<Self> {
        let is_drawn = |(_, series): &(usize, &Series)| !series.points.is_empty();
        let series: Vec<(usize, &Series)> = chart.series.iter().enumerate().filter(is_drawn).collect();
        if series.is_empty() {
            return None;
        }
        let (width, height) = chart.size;
        let (left, mut top, right_margin, bottom_margin) = MARGIN;
        let (right, bottom) = (width - right_margin, height - bottom_margin);
        let legend: f64 = series.iter().filter(|_| chart.legend).map(|(_, series)| legend_width(series.name)).sum();
        let title = TITLE_LETTER * chart.title.chars().count() as f64;
        // A legend that does not fit beside the title goes below it.
        let legend_y = if left + title + legend > right { 16.0 + LINE } else { 16.0 };
        top += legend_y - 16.0;
        let points = || series.iter().flat_map(|(_, series)| series.points.iter());
        // Points without lines need a margin on both sides.
        let x = Axis::new(points().map(|p| p.0), chart.x_scale, (left, right), !chart.scattered);
        let ends = chart.whiskers.iter().flat_map(|(_, low, high)| [*low, *high]);
        let values = points().map(|p| p.1).chain(ends).map(|y| chart.clipped(y));
        let y = Axis::new(values, chart.y_scale, (bottom, top), false);
        let svg = format!(r#"<text class="title" x="{left}" y="16">{}</text>"#, escape(chart.title));
        Some(Self { chart, series, x, y, left, top, right, bottom, legend_y, svg })
    }

    /// Returns the vertical position of a value, clipped to the upper limit.
    fn y_at(&self, value: f64) -> f64 {
        self.y.at(self.chart.clipped(value))
    }

    /// Draws the grid lines, the tick labels and the label of the x axis.
    fn draw_axes(&mut self) {
        let (left, right, bottom) = (self.left, self.right, self.bottom);
        for tick in self.y.ticks(5.0, 0.0) {
            let at = self.y.at(tick);
            let _ = write!(
                self.svg,
                r#"<line class="grid" x1="{left}" x2="{right:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                left - 7.0,
                at + 3.5,
                self.chart.write_y(tick)
            );
        }
        for tick in self.x.ticks(7.0, if self.chart.whole_x { 1.0 } else { 0.0 }) {
            let _ = write!(
                self.svg,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                self.x.at(tick),
                bottom + 15.0,
                number(tick)
            );
        }
        let _ = write!(
            self.svg,
            r#"<text class="tick" x="{right:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            self.chart.size.1 - 4.0,
            escape(self.chart.x_label)
        );
    }

    /// Draws the names of the series, right-aligned.
    fn draw_legend(&mut self) {
        let mut at = self.right;
        let legend_y = self.legend_y;
        let named = self.series.iter().filter(|(_, series)| self.chart.legend && !series.name.is_empty());
        for (index, series) in named.rev() {
            let name = series.name;
            at -= legend_width(name);
            let _ = write!(
                self.svg,
                r#"<circle class="dot {}" cx="{:.1}" cy="{}" r="4"/><text class="legend" x="{:.1}" y="{legend_y}">{}</text>"#,
                series_class(*index),
                at + 14.0,
                legend_y - 4.0,
                at + 22.0,
                escape(name)
            );
        }
    }

    /// Draws the error bars.
    fn draw_whiskers(&mut self) {
        for (at, low, high) in &self.chart.whiskers {
            let (at, low, high) = (self.x.at(*at), self.y_at(*low), self.y_at(*high));
            let _ =
                write!(self.svg, r#"<line class="whisker" x1="{at:.1}" x2="{at:.1}" y1="{low:.1}" y2="{high:.1}"/>"#);
        }
    }

    /// Returns the position of a point, or `None` for a gap.
    fn place(&self, point: (f64, f64)) -> Option<(f64, f64)> {
        let is_shown =
            point.0.is_finite() && point.1.is_finite() && (self.chart.y_scale == Scale::Linear || point.1 > 0.0);
        is_shown.then(|| (self.x.at(point.0), self.y_at(point.1)))
    }

    /// Draws each series as a line with gaps, and as points with tooltips if there are few.
    fn draw_series(&mut self) {
        for (index, series) in &self.series {
            let class = series_class(*index);
            let stride = series.points.len().div_ceil(MAX_POINTS);
            let last = series.points.len() - 1;
            let chosen = series.points.iter().enumerate().filter(|(i, _)| i % stride == 0 || *i == last);
            let places: Vec<Option<(f64, f64)>> = chosen.map(|(_, point)| self.place(*point)).collect();
            for part in places.split(Option::is_none).filter(|part| !part.is_empty() && !self.chart.scattered) {
                let path: Vec<String> = part.iter().flatten().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                let _ = write!(self.svg, r#"<polyline class="line {class}" points="{}"/>"#, path.join(" "));
            }
            if series.points.len() <= 60 {
                for (place, point) in places.iter().zip(&series.points) {
                    let Some((x, y)) = place else { continue };
                    let _ = write!(
                        self.svg,
                        r#"<circle class="point {class}" cx="{x:.1}" cy="{y:.1}" r="2.6"><title>{} {}: {} {}</title></circle>"#,
                        escape(self.chart.x_label),
                        number(point.0),
                        escape(series.name),
                        self.chart.write_y(point.1)
                    );
                }
            }
        }
    }

    /// Marks points above the upper limit of the y axis, and writes the limit.
    fn draw_clipped(&mut self) {
        /// Minimum distance between marks of a series.
        const DISTANCE: f64 = 12.0;
        let Some(limit) = self.chart.y_most else { return };
        let mut is_any = false;
        for (index, series) in &self.series {
            let class = series_class(*index);
            let mut last = f64::NEG_INFINITY;
            for point in series.points.iter().filter(|point| point.1 > limit) {
                let Some((x, y)) = self.place(*point).filter(|(x, _)| x - last >= DISTANCE) else { continue };
                let _ = write!(
                    self.svg,
                    r#"<path class="{class}" d="M{:.1} {y:.1}h8l-4 -6z"><title>{} {}: {} {}</title></path>"#,
                    x - 4.0,
                    escape(self.chart.x_label),
                    number(point.0),
                    escape(series.name),
                    self.chart.write_y(point.1)
                );
                (last, is_any) = (x, true);
            }
        }
        if is_any {
            let _ = write!(
                self.svg,
                r#"<text class="tick" x="{}" y="{}">clipped at {}</text>"#,
                self.left,
                self.top - 4.0,
                self.chart.write_y(limit)
            );
        }
    }

    /// Draws the marked point with a vertical line and its name.
    fn draw_mark(&mut self) {
        let Some(((mark_x, mark_y), name)) = &self.chart.mark else { return };
        let (x, y, top) = (self.x.at(*mark_x), self.y_at(*mark_y), self.top);
        let (anchor, offset) = if x > self.chart.size.0 / 2.0 { ("end", -8.0) } else { ("start", 8.0) };
        let _ = write!(
            self.svg,
            r#"<line class="mark" x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{:.1}"/><circle class="marked" cx="{x:.1}" cy="{y:.1}" r="4.5"/><text class="legend" x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            self.bottom,
            x + offset,
            top + 10.0,
            escape(name)
        );
    }

    /// Draws the text labels of points.
    fn draw_labels(&mut self) {
        /// Minimum width for a label beside its point.
        const ROOM: f64 = 50.0;
        for Label { at: (label_x, label_y), text, below } in &self.chart.labels {
            let (x, y) = (self.x.at(*label_x), self.y_at(*label_y));
            let to_the_right = if *below { x < self.right - ROOM } else { x < self.left + ROOM };
            let (anchor, offset) = if to_the_right { ("start", 5.0) } else { ("end", -5.0) };
            let _ = write!(
                self.svg,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
                x + offset,
                y + if *below { 14.0 } else { -5.0 },
                escape(text)
            );
        }
    }
}

/// Returns the class of a series: its color and, from the ninth series on, its dashes.
pub(crate) fn series_class(index: usize) -> String {
    let color = format!("s{}", index % COLORS);
    match index / COLORS % DASHES {
        0 => color,
        dashes => format!("{color} d{dashes}"),
    }
}

/// Returns the width of a legend entry with its dot.
fn legend_width(name: &str) -> f64 {
    6.2 * name.chars().count() as f64 + 24.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (0.05, "0.05"),
            (12.34, "12.3"),
            (1234.5, "1234"),
            (1e-5, "1.0e-5"),
            (0.001, "0.001"),
            (2e6, "2.0e6"),
            (-2.5, "-2.5"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::new([0.13, 0.98].into_iter(), Scale::Linear, (0.0, 1.0), false);
        let ticks: Vec<String> = axis.ticks(5.0, 0.0).into_iter().map(number).collect();
        assert_eq!(ticks, ["0.2", "0.4", "0.6", "0.8", "1"]);
        let epochs = Axis::new([1.0, 3.0].into_iter(), Scale::Linear, (0.0, 1.0), true);
        assert_eq!(epochs.ticks(7.0, 1.0), [1.0, 2.0, 3.0]);
        let axis = Axis::new([1e-6, 5.0].into_iter(), Scale::Log, (0.0, 1.0), true);
        assert!(axis.ticks(7.0, 0.0).len() >= 6);
        let axis = Axis::new([0.011, 0.09].into_iter(), Scale::Log, (0.0, 1.0), true);
        assert_eq!(axis.ticks(5.0, 0.0).len(), 2);
    }

    #[test]
    fn unusual_series_give_valid_svg() {
        let odd: [Vec<(f64, f64)>; 4] = [
            vec![(1.0, 2.0)],
            vec![(1.0, 0.0), (2.0, f64::NAN), (3.0, f64::INFINITY)],
            vec![(1.0, 5.0), (2.0, 5.0)],
            (0..5000).map(|i| (f64::from(i), f64::from(i))).collect(),
        ];
        for points in odd {
            for y_scale in [Scale::Linear, Scale::Log] {
                let series = vec![Series { name: "a", points: points.clone() }, Series { name: "b", points: vec![] }];
                let svg = Chart { title: "<t>", series, y_scale, ..Chart::default() }.to_svg().unwrap();
                assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("&lt;t&gt;"), "{svg}");
                assert!(svg.len() < 40_000);
            }
        }
        assert!(Chart::default().to_svg().is_none());
    }

    fn series(values: &[f64]) -> Series<'static> {
        Series { name: "a", points: (1..).map(f64::from).zip(values.iter().copied()).collect() }
    }

    #[test]
    fn outliers_do_not_flatten_curves() {
        let limit = |curves: &[&[f64]]| outlier_limit(&curves.iter().map(|curve| series(curve)).collect::<Vec<_>>());
        let overfitted = [0.7, 0.5, 0.8, 1.5, 2.0];
        for usual in [&[2.3, 0.5, 0.1, 0.05, 0.02][..], &[6.9, 4.0], &[0.5], &overfitted, &[0.0, 0.0]] {
            assert_eq!(limit(&[usual, usual]), None, "{usual:?}");
        }
        let close = |found: Option<f64>, expected: f64| assert!((found.unwrap() - expected).abs() < 1e-9, "{found:?}");
        close(limit(&[&[2.3, 1e8, 1.9], &[2.0, 9e9, 1.8]]), 2.53);
        close(limit(&[&[2.3, 2.0, 1e8, 1e9, 1e9, 1e8]]), 2.53);
        close(limit(&[&[3e5, 2.0, 1.5, 1.25]]), 2.2);
        close(limit(&[&[2.0, f64::NAN, f64::INFINITY, 80.0]]), 2.2);
        assert_eq!(limit(&[&[f64::NAN]]), None);
    }

    #[test]
    fn clipped_points_are_marked_and_missing_ones_are_gaps() {
        let values = [2.0, 1e8, 1e9, 1.8, f64::NAN, 1.6, 1.4];
        let svg = |y_most| Chart { series: vec![series(&values)], y_most, ..Chart::default() }.to_svg().unwrap();
        let clipped = svg(Some(2.2));
        assert_eq!(clipped.matches("<polyline").count(), 2, "{clipped}");
        assert_eq!(clipped.matches("<path").count(), 2, "{clipped}");
        assert!(clipped.contains("clipped at 2.2") && clipped.contains("epoch 2: a 1.0e8"), "{clipped}");
        assert!(!svg(None).contains("clipped") && !svg(Some(1e10)).contains("clipped"));
    }
}
