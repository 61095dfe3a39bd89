//! Metrics of classification.
//!
//! [`Tally`] counts top-1, top-5 and the loss; [`ClassCounts`] gives precision, recall and F1;
//! [`one_vs_rest`] AUROC and average precision; [`Reliability`] the calibration error;
//! [`fit_temperature`] the temperature that minimizes the negative log-likelihood;
//! [`MultiLabelScores`] the metrics of multi-label classification.

mod class_counts;
mod multi_label;
mod ranking;
mod reliability;
mod softmax;
mod tally;
mod temperature;

pub use class_counts::ClassCounts;
pub use mbconv_report::{Averages, Calibration, ReliabilityBin, Scores, shows_top5};
pub use multi_label::{
    ClassRanking, DEFAULT_THRESHOLD, MultiLabelScores, Outcomes, binary_cross_entropy, macro_mean,
    mean_average_precision, sigmoid,
};
pub use ranking::{Ranking, one_vs_rest};
pub use reliability::Reliability;
pub use softmax::{argmax, cross_entropy, rank, softmax};
pub use tally::{Tally, results, target_ranks, wilson_interval};
pub use temperature::{Temperature, fit_sigmoid_temperature, fit_temperature};
