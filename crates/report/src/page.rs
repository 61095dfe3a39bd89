//! The HTML page.

use std::fmt::Write;
use std::io;
use std::path::Path;

use mbconv_files::write_atomically;
use mbconv_image::{ImageSize, RgbPixels};

use crate::chart::{Chart, Series, Unit, number, outlier_limit};
use crate::confusion;
use crate::evaluation::{Calibration, ClassScores, Evaluation, Predicted, ReliabilityBin, shows_top5};
use crate::history::{Best, History};
use crate::html::{document, escape, percent, section};
use crate::multi_label::{self, MultiLabelEvaluated};
use crate::pictures::picture;

/// Number of mistakes shown.
const MISTAKES: usize = 24;
/// Number of classes shown before the rest is collapsed.
const CLASSES: usize = 20;

/// The contents of a report.
#[derive(Default)]
pub struct Report<'a> {
    /// Title: the name of a run or model.
    pub title: String,
    /// Epochs of the run.
    pub history: History,
    /// Recipe as TOML.
    pub recipe: Option<String>,
    /// The model.
    pub model: Option<ModelFacts>,
    /// Evaluation results and their data.
    pub evaluated: Option<Evaluated<'a>>,
    /// Evaluation results of a multi-label model.
    pub multi_label: Option<MultiLabelEvaluated<'a>>,
}

/// An evaluation and its images.
#[derive(Clone, Copy)]
pub struct Evaluated<'a> {
    /// Results.
    pub evaluation: &'a Evaluation,
    /// Returns the image of a prediction.
    pub image: &'a dyn Fn(&Predicted) -> Picture,
    /// Name of the data, such as `split val of photos`.
    pub name: &'a str,
}

/// An image of an evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Name, such as the path.
    pub name: String,
    /// The pixels, if the image can be read.
    pub pixels: Option<RgbPixels>,
    /// The image with a heatmap of the predicted class, if there is one.
    pub heatmap: Option<RgbPixels>,
}

/// Properties of a model.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    /// Name of the architecture.
    pub architecture: String,
    /// Number of classes.
    pub classes: usize,
    /// Size of the input.
    pub input_size: ImageSize,
    /// Description of the preprocessing.
    pub preprocessing: String,
    /// The program that wrote the model.
    pub program: String,
}

impl Report<'_> {
    /// Renders the page.
    pub fn to_html(&self) -> String {
        html(self)
    }

    /// Writes the page.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_atomically(path, self.to_html().as_bytes())
    }
}

fn html(report: &Report) -> String {
    let mut body = String::new();
    let _ = write!(body, "<header><h1>{}</h1>", escape(&report.title));
    let mut facts = Vec::new();
    if let Some(model) = &report.model {
        facts.push(model.architecture.clone());
        facts.push(format!("{} classes", model.classes));
        facts.push(format!("input {:#} px", model.input_size));
    }
    facts.extend(report.evaluated.iter().map(|evaluated| evaluated.name.into()));
    facts.extend(report.multi_label.iter().map(|evaluated| evaluated.name.into()));
    let _ = write!(body, "<p>{}</p></header>", escape(&facts.join(" · ")));
    body += &tiles(report);
    if !report.history.is_empty() {
        section(&mut body, "Training", &curves(&report.history));
    }
    if let Some(Evaluated { evaluation, image, .. }) = &report.evaluated {
        let matrix = confusion::svg(evaluation).unwrap_or_default();
        let pairs = confusion::pairs(evaluation)
            .map_or(String::new(), |table| format!("<h3>Most frequent confusions</h3>{table}"));
        section(&mut body, "Confusion", &format!("<div class=pair><div>{matrix}</div><div>{pairs}</div></div>"));
        section(&mut body, "Classes", &classes(evaluation));
        section(&mut body, "Worst mistakes", &mistakes(evaluation, *image));
        section(&mut body, "Calibration", &calibration(evaluation));
    }
    if let Some(MultiLabelEvaluated { evaluation, .. }) = &report.multi_label {
        section(&mut body, "Classes", &multi_label::classes(evaluation));
    }
    if let Some(recipe) = &report.recipe {
        section(&mut body, "Recipe", &format!("<pre>{}</pre>", escape(recipe)));
    }
    if let Some(facts) = &report.model {
        section(&mut body, "Model", &model(facts));
    }
    document(&report.title, &body)
}

/// Renders the main figures.
fn tiles(report: &Report) -> String {
    let mut tiles: Vec<(String, &str, String)> = Vec::new();
    let history = &report.history;
    let best = history.best();
    if let Some(Evaluated { evaluation, .. }) = &report.evaluated {
        let interval = |[low, high]: [f64; 2]| format!("95 % interval {:.2}–{:.2}", 100.0 * low, 100.0 * high);
        tiles.push((percent(evaluation.scores.top1), "top-1", interval(evaluation.top1_interval)));
        if shows_top5(evaluation.classes.len()) {
            tiles.push((percent(evaluation.scores.top5), "top-5", interval(evaluation.top5_interval)));
        }
        let averages = &evaluation.averages;
        tiles.push((percent(averages.macro_f1), "macro F1", format!("weighted {}", percent(averages.weighted_f1))));
        tiles.push((percent(averages.balanced_accuracy), "balanced accuracy", "mean recall of the classes".into()));
        tiles.push((number(evaluation.scores.loss), "loss", format!("{} images", evaluation.images)));
    } else if let Some(MultiLabelEvaluated { evaluation, .. }) = &report.multi_label {
        tiles.extend(multi_label::tiles(evaluation));
    } else if let Some(Best { epoch, top1, map, .. }) = best {
        let (value, name) = map.map_or((top1, "best top-1"), |map| (map, "best mAP"));
        tiles.push((percent(value), name, format!("validation, epoch {epoch}")));
    }
    if !history.is_empty() {
        let time: f64 = history.column("seconds").iter().map(|point| point.1).sum();
        let note = best.map_or(String::new(), |best| format!("best: {}", best.epoch));
        tiles.push((history.len().to_string(), "epochs", note));
        tiles.push((duration(time), "training time", "validation excluded".into()));
        let mut speeds: Vec<f64> = history.column("images_per_second").into_iter().map(|point| point.1).collect();
        speeds.sort_by(f64::total_cmp);
        if let Some(median) = speeds.get(speeds.len() / 2) {
            tiles.push((number(*median), "images per second", "median of the epochs".into()));
        }
    }
    let tile = |(value, name, note): (String, &str, String)| {
        format!("<div class=tile><b>{value}</b><span>{name}</span><small>{note}</small></div>")
    };
    format!("<div class=tiles>{}</div>", tiles.into_iter().map(tile).collect::<String>())
}

fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).floor();
    if seconds < 60.0 {
        format!("{seconds:.0} s")
    } else if minutes < 60.0 {
        format!("{minutes:.0} min {:.0} s", (seconds - 60.0 * minutes).floor())
    } else {
        format!("{:.0} h {:.0} min", (minutes / 60.0).floor(), minutes % 60.0)
    }
}

/// Renders the curves of a run.
fn curves(history: &History) -> String {
    let series = |rows: &[(&'static str, &str)]| -> Vec<Series> {
        rows.iter().map(|&(name, column)| Series { name, points: history.curve(column) }).collect()
    };
    let losses = series(&[("training", "train_loss"), ("validation", "val_loss"), ("average", "ema_loss")]);
    let accuracy = match history.column("val_map").is_empty() {
        true => Chart {
            title: "Top-1",
            series: series(&[("training", "train_top1"), ("validation", "val_top1"), ("average", "ema_top1")]),
            unit: Unit::Percent,
            ..Chart::default()
        },
        false => Chart {
            title: "Mean average precision",
            series: series(&[("validation", "val_map"), ("average", "ema_map")]),
            unit: Unit::Percent,
            ..Chart::default()
        },
    };
    let charts = [
        Chart { title: "Loss", y_most: outlier_limit(&losses), series: losses, ..Chart::default() },
        accuracy,
        Chart { title: "Learning rate", series: series(&[("", "learning_rate")]), ..Chart::default() },
        Chart { title: "Images per second", series: series(&[("", "images_per_second")]), ..Chart::default() },
    ];
    let charts: String = charts.iter().filter_map(Chart::to_svg).collect();
    format!("<div class=charts>{charts}</div>")
}

/// Renders the metrics of each class, worst F1 first.
fn classes(evaluation: &Evaluation) -> String {
    let mut present: Vec<_> = evaluation.classes.iter().filter(|class| class.images > 0).collect();
    present.sort_by(|a, b| a.f1.total_cmp(&b.f1).then(a.label.cmp(&b.label)));
    let row = |class: &&ClassScores| {
        let ClassScores { label, images, precision, recall, f1, auroc, average_precision, .. } = class;
        let bar = format!("<td class=bar><i style=\"width:{:.1}%\"></i></td>", 100.0 * f1);
        let mut cells = vec![images.to_string()];
        cells.extend([precision, recall, f1].map(|value| percent(*value)));
        cells.extend([auroc, average_precision].map(|value| value.map_or("–".into(), |value| format!("{value:.4}"))));
        let cells: String = cells.into_iter().map(|cell| format!("<td class=n>{cell}</td>")).collect();
        format!("<tr><td>{}</td>{bar}{cells}</tr>", escape(label))
    };
    let names = ["images", "precision", "recall", "F1", "AUROC", "average precision"];
    let names: String = names.iter().map(|name| format!("<th class=n>{name}</th>")).collect();
    let head = format!("<thead><tr><th>class</th><th></th>{names}</tr></thead>");
    let table = |rows: &[&ClassScores]| {
        format!("<table class=classes>{head}<tbody>{}</tbody></table>", rows.iter().map(row).collect::<String>())
    };
    let shown = present.len().min(CLASSES);
    let rest = match present.len() - shown {
        0 => String::new(),
        count => format!("<details><summary>{count} better classes</summary>{}</details>", table(&present[shown..])),
    };
    table(&present[..shown]) + &rest
}

/// Renders the mistakes with the highest confidence.
fn mistakes(evaluation: &Evaluation, image: &dyn Fn(&Predicted) -> Picture) -> String {
    let mut wrong: Vec<&Predicted> = evaluation.predictions.iter().filter(|p| p.chosen != p.label).collect();
    if wrong.is_empty() {
        return "<p>No mistakes.</p>".into();
    }
    wrong.sort_by(|a, b| b.loss.total_cmp(&a.loss).then(a.index.cmp(&b.index)));
    let name = |class: usize| escape(&evaluation.classes[class].label);
    let card = |p: &&Predicted| {
        let Picture { name: file, pixels, heatmap } = image(p);
        let image = pixels.and_then(|pixels| picture(pixels, &file));
        let image = image.unwrap_or_else(|| "<div class=missing>?</div>".into());
        let heatmap = heatmap.and_then(|heatmap| picture(heatmap, &format!("heatmap of {}", name(p.chosen))));
        let views = heatmap.map_or(image.clone(), |heatmap| format!("<div class=views>{image}{heatmap}</div>"));
        format!(
            "<figure title=\"{}\">{views}<figcaption><b>{}</b> {:.0} %<br><span>is {} {:.1} %</span></figcaption></figure>",
            escape(&file),
            name(p.chosen),
            100.0 * p.probability,
            name(p.label),
            100.0 * p.target_probability
        )
    };
    let figures: String = wrong.iter().take(MISTAKES).map(card).collect();
    let (with_heatmaps, wide) = match figures.contains("<div class=views>") {
        true => (", with heatmaps of the predicted class (Grad-CAM)", " wide"),
        false => ("", ""),
    };
    let (wrong, images) = (wrong.len(), evaluation.images);
    let lead = format!("{wrong} of {images} images are misclassified. The worst mistakes by loss{with_heatmaps}:");
    format!("<p>{lead}</p><div class=\"mistakes{wide}\">{figures}</div>")
}

/// Renders the calibration metrics and the reliability diagram.
fn calibration(evaluation: &Evaluation) -> String {
    let Calibration { ece, brier, reliability } = &evaluation.calibration;
    let points: Vec<_> = reliability.iter().filter_map(|bin| Some((bin.confidence?, bin.accuracy?))).collect();
    if points.is_empty() {
        return String::new();
    }
    let shares = |bin: &ReliabilityBin| (0.5 * (bin.low + bin.high), bin.images as f64 / evaluation.images as f64);
    let x_label = "probability of the predicted class";
    let charts = [
        Chart {
            title: "Reliability diagram: accuracy by probability",
            x_label,
            whole_x: false,
            series: vec![
                Series { name: "network", points },
                Series { name: "ideal", points: vec![(0.0, 0.0), (1.0, 1.0)] },
            ],
            unit: Unit::Percent,
            ..Chart::default()
        },
        Chart {
            title: "Images by probability",
            x_label,
            whole_x: false,
            series: vec![Series { name: "", points: reliability.iter().map(shares).collect() }],
            unit: Unit::Percent,
            ..Chart::default()
        },
    ];
    let lead = format!(
        "Expected calibration error {} ({} bins of equal width), Brier score {brier:.4}, negative log-likelihood {:.4}.",
        percent(*ece),
        reliability.len(),
        evaluation.scores.loss
    );
    let charts: String = charts.iter().filter_map(Chart::to_svg).collect();
    format!("<p>{lead}</p><div class=charts>{charts}</div>")
}

/// Renders the model's properties as a table.
fn model(facts: &ModelFacts) -> String {
    let rows = [
        ("architecture", facts.architecture.clone()),
        ("classes", facts.classes.to_string()),
        ("preprocessing", facts.preprocessing.clone()),
        ("written by", facts.program.clone()),
    ];
    let row = |(name, value): &(&str, String)| format!("<tr><td>{name}</td><td>{}</td></tr>", escape(value));
    format!("<table><tbody>{}</tbody></table>", rows.iter().map(row).collect::<String>())
}
