//! Parallel coordinates: a line per trial across one axis per setting.

use std::fmt::Write;

use crate::chart::{Axis, Scale, Unit, number};
use crate::html::escape;
use crate::svg_file::svg_file;

/// Distance of the axes, and height of the picture, in SVG units.
const DISTANCE: f64 = 190.0;
const HEIGHT: f64 = 340.0;
/// Margins: sides, top, bottom.
const SIDE: f64 = 90.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 22.0;
/// Opacities of the best and the worst line.
const OPACITY: (f64, f64) = (0.9, 0.18);
/// Maximum number of characters of a choice.
const LABEL: usize = 22;

/// The scale of an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum ParallelScale {
    /// Linear.
    Linear,
    /// Linear, labeled at whole numbers only.
    Whole,
    /// Logarithmic.
    Log,
    /// Named choices at 0, 1, 2, ….
    Choices(Vec<String>),
}

/// An axis.
#[derive(Clone, Debug)]
pub struct ParallelAxis {
    /// Name.
    pub name: String,
    /// Scale.
    pub scale: ParallelScale,
    /// Unit of the labels.
    pub unit: Unit,
}

/// A line: one value per axis.
#[derive(Clone, Debug)]
pub struct ParallelLine {
    /// Name in the tooltip.
    pub name: String,
    /// Values, in the order of the axes.
    pub values: Vec<f64>,
}

/// A picture of parallel coordinates.
pub struct ParallelCoordinates<'a> {
    /// Title above the picture.
    pub title: &'a str,
    /// Axes, from left to right.
    pub axes: Vec<ParallelAxis>,
    /// Lines, the best first. The best is highlighted, and worse ones are fainter.
    pub lines: Vec<ParallelLine>,
}

impl ParallelCoordinates<'_> {
    /// Renders the picture as an SVG file, or returns `None` if there are no lines.
    pub fn to_svg_file(&self) -> Option<String> {
        if self.lines.is_empty() {
            return None;
        }
        let width = 2.0 * SIDE + DISTANCE * self.axes.len().saturating_sub(1) as f64;
        let axes: Vec<Axis> = (0..self.axes.len()).map(|index| self.axis(index)).collect();
        let mut svg = format!(r#"<text class="title" x="14" y="20">{}</text>"#, escape(self.title));
        for (index, axis) in axes.iter().enumerate() {
            self.draw_axis(&mut svg, index, axis);
        }
        // The best is on top.
        for (rank, line) in self.lines.iter().enumerate().rev() {
            self.draw_line(&mut svg, rank, line, &axes);
        }
        Some(svg_file((width, HEIGHT), self.title, &svg))
    }

    fn axis(&self, index: usize) -> Axis {
        let ends = (HEIGHT - BOTTOM, TOP);
        let scale = if self.axes[index].scale == ParallelScale::Log { Scale::Log } else { Scale::Linear };
        match &self.axes[index].scale {
            ParallelScale::Choices(choices) => {
                Axis::new([0.0, choices.len().saturating_sub(1) as f64].into_iter(), scale, ends, false)
            }
            _ => Axis::new(self.lines.iter().filter_map(|line| line.values.get(index).copied()), scale, ends, false),
        }
    }

    fn draw_axis(&self, svg: &mut String, index: usize, axis: &Axis) {
        let ParallelAxis { name, scale, unit } = &self.axes[index];
        let x = SIDE + DISTANCE * index as f64;
        let bottom = HEIGHT - BOTTOM;
        let _ = write!(
            svg,
            r#"<line class="whisker" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/><text class="name" x="{x}" y="{:.1}" text-anchor="middle">{}</text>"#,
            TOP - 16.0,
            escape(name)
        );
        let ticks: Vec<(f64, String)> = match scale {
            ParallelScale::Choices(choices) => {
                choices.iter().enumerate().map(|(index, choice)| (index as f64, shortened(choice))).collect()
            }
            scale => {
                let least = if *scale == ParallelScale::Whole { 1.0 } else { 0.0 };
                let shown = |value: f64| match unit {
                    Unit::Plain => number(value),
                    Unit::Percent => format!("{} %", number(100.0 * value)),
                };
                axis.ticks(5.0, least).into_iter().map(|value| (value, shown(value))).collect()
            }
        };
        for (value, label) in ticks {
            let y = axis.at(value);
            let _ = write!(
                svg,
                r#"<line class="whisker" x1="{:.1}" x2="{x}" y1="{y:.1}" y2="{y:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                x - 4.0,
                x - 7.0,
                y + 3.5,
                escape(&label)
            );
        }
    }

    fn draw_line(&self, svg: &mut String, rank: usize, line: &ParallelLine, axes: &[Axis]) {
        let place = |(index, (axis, value)): (usize, (&Axis, &f64))| {
            format!("{:.1},{:.1}", SIDE + DISTANCE * index as f64, axis.at(*value))
        };
        let points: Vec<String> = axes.iter().zip(&line.values).enumerate().map(place).collect();
        let share = rank as f64 / (self.lines.len() - 1).max(1) as f64;
        let opacity = OPACITY.0 + share * (OPACITY.1 - OPACITY.0);
        let color = if rank == 0 { "s1" } else { "s0" };
        let _ = write!(
            svg,
            r#"<polyline class="line {color}" opacity="{opacity:.2}" points="{}"><title>{}</title></polyline>"#,
            points.join(" "),
            escape(&line.name)
        );
    }
}

/// Shortens a long choice in the middle.
fn shortened(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= LABEL {
        return text.into();
    }
    let half = LABEL / 2;
    letters[..half].iter().chain(&['…']).chain(&letters[letters.len() - half + 1..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(values: &[Vec<f64>]) -> Option<String> {
        let axis = |name: &str, scale, unit| ParallelAxis { name: name.into(), scale, unit };
        let choices = ParallelScale::Choices(vec!["<sgd>".into(), "a_very_long_name_of_a_choice".into()]);
        ParallelCoordinates {
            title: "Trials",
            axes: vec![
                axis("rate", ParallelScale::Log, Unit::Plain),
                axis("optimizer", choices, Unit::Plain),
                axis("epochs", ParallelScale::Whole, Unit::Plain),
                axis("top1", ParallelScale::Linear, Unit::Percent),
            ],
            lines: values.iter().map(|values| ParallelLine { name: "t&".into(), values: values.clone() }).collect(),
        }
        .to_svg_file()
    }

    #[test]
    fn every_trial_is_a_line_and_the_best_is_highlighted() {
        let svg = picture(&[vec![1e-3, 0.0, 3.0, 0.9], vec![0.1, 1.0, 5.0, 0.5], vec![1e-2, 1.0, 4.0, 0.1]]).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches("line s1").count(), 1);
        assert!(svg.rfind("line s1") > svg.rfind("line s0"), "the best line is on top");
        for words in ["&lt;sgd&gt;", "a_very_long…f_a_choice", "t&amp;", ">0.01<", ">4<", "40 %"] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert!(!svg.contains(">4.5<") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn equal_values_and_single_trials_are_drawn() {
        assert!(picture(&[]).is_none());
        let svg = picture(&[vec![0.01, 0.0, 1.0, 0.5]]).unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
