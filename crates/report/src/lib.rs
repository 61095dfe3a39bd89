//! Charts, HTML reports and TensorBoard events from plain data.
//!
//! A [`Report`] shows a run, an evaluation or both as a single HTML file: curves, confusion matrix,
//! worst mistakes, recipe. A [`Chart`] is also available as an SVG file.

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod chart;
mod comparison;
mod confusion;
mod diagram;
mod evaluation;
mod history;
mod html;
mod multi_label;
mod page;
mod parallel;
mod pictures;
mod svg_file;
pub mod tensorboard;

pub use chart::{Chart, Label, Scale, Series, Unit};
pub use comparison::Comparison;
pub use diagram::stage_diagram;
pub use evaluation::{
    Averages, Calibration, ClassScores, Evaluation, MAX_MATRIX, Predicted, ReliabilityBin, Scores, shows_top5,
};
pub use history::{Best, History};
pub use multi_label::{MultiLabelClass, MultiLabelEvaluated, MultiLabelEvaluation};
pub use page::{Evaluated, ModelFacts, Picture, Report};
pub use parallel::{ParallelAxis, ParallelCoordinates, ParallelLine, ParallelScale};
