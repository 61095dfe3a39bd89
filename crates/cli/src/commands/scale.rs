//! `mbconv scale`

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mbconv_nets::{Network, Summary};
use mbconv_train::bench::{BenchConfig, Mode, bench};
use mbconv_train::data::{self, DataSet};
use mbconv_train::device::Device;
use mbconv_train::files::write_atomically;
use mbconv_train::precision::MapPrecision;
use mbconv_train::recipe::RecipeFile;
use mbconv_train::scale::budget::{Budget, Fit};
use mbconv_train::scale::search::{CHART, Candidate, GRID, Progress as Step, Search, Trial, share_of};
use mbconv_train::scale::{
    Base, Coefficients, Dimension, Factors, Scaled, default_recipe, grid, recipe_file, recipe_text, suggested_batch,
};
use mbconv_train::{Event, Recipe};
use serde_json::{Value, json};

use super::{percent, print_json, print_text, thousands};
use crate::args::{Only, Scale};
use crate::failure::Failure;
use crate::subject::Subject;
use crate::terminal::Progress;

/// For how long a network's latency is measured.
const LATENCY_TIME: Duration = Duration::from_secs(1);
/// What is scaled where nothing else is said.
const BASE: &str = "efficientnet_b0";

pub fn run(args: Scale, stop: &AtomicBool) -> Result<(), Failure> {
    let mut plan = Plan::new(&args)?;
    let budget = Budget {
        macs: args.target_macs,
        parameters: args.target_params,
        size_bytes: args.target_size,
        latency_ms: args.target_latency,
    };
    if !budget.is_empty() {
        return plan.to_budget(&args, budget);
    }
    if let Some(path) = args.run.as_ref().and(args.data.as_ref()) {
        let mut data = data::open(path, &plan.template.data.open_options(plan.template.seed))?;
        if args.share < 1.0 {
            data = share_of(&data, args.share);
        }
        // What is shown is what is trained.
        plan.base = plan.base.with_classes(data.classes.len());
        return plan.search(&args, &data, plan.candidates(&args)?, stop);
    }
    plan.show(&args, &plan.candidates(&args)?)
}

/// What is scaled, and the recipe for it.
struct Plan {
    base: Base,
    template: RecipeFile,
}

impl Plan {
    fn new(args: &Scale) -> Result<Self, Failure> {
        let given = args.run.as_ref().or(args.recipe.as_ref());
        let mut template = given.map(|path| RecipeFile::read(path, &args.overrides)).transpose()?;
        let of_template =
            |template: &RecipeFile| (template.model.with_classes(crate::subject::CLASSES), template.input.size);
        let (mut options, side) = match (&args.base, &template, &args.run) {
            // The network that the proxy recipe is for.
            (None, Some(template), Some(_)) => {
                let (options, side) = of_template(template);
                (options, Some(side))
            }
            (base, ..) => {
                let base = base.as_deref().unwrap_or(BASE);
                let Subject { options, input_size, recipe, .. } = Subject::find(base, None)?;
                if template.is_none() && recipe.is_some() {
                    template = Some(RecipeFile::read(Path::new(base), &args.overrides)?);
                }
                (options, input_size)
            }
        };
        let template = match template {
            Some(template) => template,
            None if args.overrides.is_empty() => default_recipe(),
            None => default_recipe().with(&args.overrides)?,
        };
        // What is wrong with a template should not wait for the first network.
        Recipe::try_from(template.clone())?;
        options.num_classes = args.classes.unwrap_or(options.num_classes);
        Ok(Self { base: Base::new(options, args.input_size.or(side), args.side_step)?, template })
    }

    /// The networks that were asked for.
    fn candidates(&self, args: &Scale) -> Result<Vec<Candidate>, Failure> {
        let given = Coefficients { alpha: args.alpha, beta: args.beta, gamma: args.gamma };
        let mut candidates = Vec::new();
        let mut add = |name: String, series, coefficients: Coefficients, phi: f64| -> Result<(), Failure> {
            let scaled = self.base.scaled(coefficients.at(phi))?;
            candidates.push(Candidate { name, series, coefficients, phi, scaled });
            Ok(())
        };
        if args.grid {
            for point in grid(args.step, args.tolerance)? {
                let Coefficients { alpha, beta, gamma } = point;
                add(format!("a{alpha}_b{beta}_g{gamma}"), GRID, point, 1.0)?;
            }
            return Ok(candidates);
        }
        let phis = parse_phis(args.phi.as_deref().unwrap_or("1"))?;
        let kinds = if args.only.is_empty() { &[Only::Compound][..] } else { &args.only[..] };
        for kind in kinds {
            let (series, coefficients) = match kind {
                Only::Depth => ("depth", Coefficients::only(Dimension::Depth)),
                Only::Width => ("width", Coefficients::only(Dimension::Width)),
                Only::Resolution => ("resolution", Coefficients::only(Dimension::Resolution)),
                Only::Compound => ("compound", given),
            };
            for &phi in &phis {
                add(format!("{series}_phi{phi}"), series, coefficients, phi)?;
            }
        }
        Ok(candidates)
    }

    /// Prints the networks and writes their recipes.
    fn show(&self, args: &Scale, candidates: &[Candidate]) -> Result<(), Failure> {
        let mut text = format!("{}\n", header());
        let mut rows = Vec::new();
        for candidate in candidates {
            let Candidate { name, coefficients, phi, scaled, .. } = candidate;
            let _ = writeln!(text, "{}", self.row(name, scaled, args));
            let mut json = self.json(name, scaled, args);
            json["coefficients"] = json!(coefficients);
            json["phi"] = json!(phi);
            let origin = format!(
                "{} scaled by φ = {phi}: α = {}, β = {}, γ = {} (depth ×{:.4}, width ×{:.4}, resolution ×{:.4})",
                self.base.name(),
                coefficients.alpha,
                coefficients.beta,
                coefficients.gamma,
                scaled.factors.depth,
                scaled.factors.width,
                scaled.factors.resolution
            );
            self.write(args, name, scaled, &origin, &mut json)?;
            // A name's own coefficients were rounded by hand: they stand beside the formula's.
            let is_published = *coefficients == Coefficients::PUBLISHED;
            if let Some((published, options)) = self.base.published(*phi).filter(|_| is_published) {
                let architecture = options.architecture()?;
                let side = published.resolution;
                let named = Scaled {
                    factors: Factors {
                        depth: published.depth,
                        width: published.width,
                        resolution: scaled.factors.resolution,
                    },
                    resolution: side,
                    summary: Summary::new(&architecture, side)?,
                    options,
                };
                let _ = writeln!(text, "{}", self.row(&named.options.name, &named, args));
                let _ = writeln!(text, "  {}", difference(scaled, &named)?);
                let mut own = self.json(&named.options.name, &named, args);
                own["differs"] = json!(difference(scaled, &named)?);
                let origin = format!("{} as published: its coefficients were rounded by hand", named.options.name);
                self.write(args, &named.options.name, &named, &origin, &mut own)?;
                json["published"] = own;
            }
            rows.push(json);
        }
        if args.json.json {
            return print_json(&json!(rows));
        }
        let _ = writeln!(text, "\n{}", self.notes(args));
        print_text(&text)
    }

    fn notes(&self, args: &Scale) -> String {
        let classes = self.base.scaled(Factors::NONE).map_or(0, |scaled| scaled.options.num_classes);
        let written = match &args.out {
            Some(out) => format!("recipes in {}", out.display()),
            None => "--out DIR writes recipes".into(),
        };
        format!(
            "{classes} classes; memory: estimated for the batch shown, the largest within {:.0} GB; {written}",
            args.memory as f64 / 1e9
        )
    }

    /// Prints the largest network within the budget and writes its recipe.
    fn to_budget(&self, args: &Scale, budget: Budget) -> Result<(), Failure> {
        let coefficients = match args.only[..] {
            [] | [Only::Compound] => Coefficients { alpha: args.alpha, beta: args.beta, gamma: args.gamma },
            [Only::Depth] => Coefficients::only(Dimension::Depth),
            [Only::Width] => Coefficients::only(Dimension::Width),
            [Only::Resolution] => Coefficients::only(Dimension::Resolution),
            _ => return Err(Failure::new("a budget takes one way of scaling", "give --only once".to_string())),
        };
        let device = budget.latency_ms.map(|_| args.device.open()).transpose()?;
        let mut measure = |scaled: &Scaled| -> Result<f64, Failure> {
            let Some(device) = &device else { return Ok(0.0) };
            let median = latency(scaled, device)?;
            eprintln!("{median:>8.2} ms  {:.1} M MACs at {} px", scaled.summary.macs as f64 / 1e6, scaled.resolution);
            Ok(median)
        };
        let fit = budget.largest(&self.base, coefficients, &mut measure)?;
        let Fit { phi, scaled, latency_ms, spent } = &fit;
        let name = format!("{}_to_budget", self.base.name());
        let mut json = self.json(&name, scaled, args);
        json["phi"] = json!({ "depth": phi[0], "width": phi[1], "resolution": phi[2] });
        json["coefficients"] = json!(coefficients);
        json["latency_ms"] = json!(latency_ms);
        json["budget"] = json!(budget);
        json["spent"] = spent
            .iter()
            .map(|(dimension, by)| (word(*dimension).to_string(), json!(by)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let [deep, wide, fine] = phi.map(|phi| format!("{phi:.4}"));
        let reached = match deep == wide && wide == fine {
            true => format!("φ = {deep}"),
            false => format!("φ = {deep} of depth, {wide} of width, {fine} of resolution"),
        };
        let origin = format!("{} scaled to a budget: {reached}", self.base.name());
        self.write(args, &name, scaled, &origin, &mut json)?;
        if args.json.json {
            return print_json(&json);
        }
        let mut text = format!("{}\n{}\n\n", header(), self.row(&name, scaled, args));
        let _ = writeln!(text, "{reached}; multiply-accumulates were spent on");
        for (dimension, by) in spent {
            let factor = match dimension {
                Dimension::Depth => scaled.factors.depth,
                Dimension::Width => scaled.factors.width,
                Dimension::Resolution => scaled.factors.resolution,
            };
            let _ = writeln!(text, "  {:<11} ×{factor:.3}: MACs ×{by:.3}", word(*dimension));
        }
        if let Some(latency) = latency_ms {
            let _ = writeln!(text, "  one image takes {latency:.2} ms here (median)");
        }
        let _ = writeln!(text, "\n{}", self.notes(args));
        print_text(&text)
    }

    /// Trains every network and prints them by rank.
    fn search(
        &self,
        args: &Scale,
        data: &DataSet,
        candidates: Vec<Candidate>,
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        let Some(out) = &args.out else { return Err(Failure::new("--run needs --out DIR", None)) };
        let device = args.device.open()?;
        std::fs::create_dir_all(out)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", out.display()), None))?;
        let mut progress = Progress::new();
        let search = Search { template: &self.template, data, seeds: args.seeds, out, device: &device, stop };
        let trials = search.run(candidates, &mut |step| match step {
            Step::Begin { run, runs, candidate, seed } => {
                let Candidate { name, scaled, .. } = candidate;
                progress.line(&format!("[{run}/{runs}] {name}: {} px, seed {seed}", scaled.resolution));
            }
            Step::Training(Event::Line(_)) => {}
            Step::Training(event) => progress.show(&event),
        });
        progress.finish();
        let Some(trials) = trials? else {
            eprintln!("everything is kept in {}; the same command goes on from there", out.display());
            return Err(Failure::Interrupted);
        };
        eprintln!("{}", out.join(CHART).display());
        if args.json.json { print_json(&json!(trials)) } else { print_text(&ranking(&trials)) }
    }

    /// Writes a network's recipe, if there is a folder for it, and says where.
    fn write(&self, args: &Scale, name: &str, scaled: &Scaled, origin: &str, json: &mut Value) -> Result<(), Failure> {
        let Some(out) = &args.out else { return Ok(()) };
        let file = recipe_file(scaled, &self.template, args.memory);
        Recipe::try_from(file.clone())?;
        std::fs::create_dir_all(out)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", out.display()), None))?;
        let path = out.join(format!("{name}.toml"));
        write_atomically(&path, recipe_text(scaled, &file, origin).as_bytes())
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display()), None))?;
        json["recipe"] = json!(path.display().to_string());
        Ok(())
    }

    fn row(&self, name: &str, scaled: &Scaled, args: &Scale) -> String {
        let Summary { parameters, macs, .. } = scaled.summary;
        let (batch, memory) = self.memory(scaled, args);
        let [depth, width] =
            [scaled.options.depth, scaled.options.width].map(|by| by.map_or("–".into(), |by| format!("{by:.3}")));
        let (depth, width) = match (scaled.options.architecture(), scaled.options.depth) {
            (Ok(architecture), None) => (format!("{:.3}", architecture.depth), format!("{:.3}", architecture.width)),
            _ => (depth, width),
        };
        format!(
            "{name:<28}{depth:>8}{width:>8}{:>6} px{:>11.3} M{:>10.4} G{batch:>7}{:>9.2} GB",
            scaled.resolution,
            parameters as f64 / 1e6,
            macs as f64 / 1e9,
            memory as f64 / 1e9
        )
    }

    /// The batch that is suggested, and the training memory estimated for it.
    fn memory(&self, scaled: &Scaled, args: &Scale) -> (usize, u64) {
        let (batch, _) = suggested_batch(scaled, &self.template, args.memory);
        (batch, mbconv_train::scale::training_bytes(scaled, &self.template, batch))
    }

    fn json(&self, name: &str, scaled: &Scaled, args: &Scale) -> Value {
        let (batch, accumulate) = suggested_batch(scaled, &self.template, args.memory);
        json!({
            "name": name,
            "base": self.base.name(),
            "factors": scaled.factors,
            "width": scaled.options.width,
            "depth": scaled.options.depth,
            "resolution": scaled.resolution,
            "dropout": scaled.options.dropout,
            "drop_path": scaled.options.drop_path,
            "classes": scaled.options.num_classes,
            "parameters": scaled.summary.parameters,
            "size_bytes": scaled.summary.size_bytes,
            "macs": scaled.summary.macs,
            "batch_size": batch,
            "accumulate": accumulate,
            "training_bytes": self.memory(scaled, args).1,
        })
    }
}

fn header() -> String {
    format!(
        "{:<28}{:>8}{:>8}{:>9}{:>13}{:>12}{:>7}{:>12}",
        "network", "depth", "width", "image", "parameters", "MACs", "batch", "memory"
    )
}

fn word(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Depth => "depth",
        Dimension::Width => "width",
        Dimension::Resolution => "resolution",
    }
}

/// Where the published network differs from the formula's.
fn difference(formula: &Scaled, published: &Scaled) -> Result<String, Failure> {
    let [own, named] = [&formula.options, &published.options].map(|options| options.architecture());
    let (own, named) = (own?, named?);
    let share = |of: f64, base: f64| format!("{:+.1} %", 100.0 * (of / base - 1.0));
    let mut said = vec![
        format!("depth {:.3} for {:.3}", named.depth, own.depth),
        format!("width {:.3} for {:.3}", named.width, own.width),
        format!("{} px for {}", published.resolution, formula.resolution),
    ];
    if named.blocks.len() != own.blocks.len() {
        said.push(format!("{} blocks for {}", named.blocks.len(), own.blocks.len()));
    }
    let (ours, theirs) = (&formula.summary, &published.summary);
    said.push(format!("parameters {}", share(theirs.parameters as f64, ours.parameters as f64)));
    said.push(format!("MACs {}", share(theirs.macs as f64, ours.macs as f64)));
    Ok(format!("published instead of formula: {}", said.join(", ")))
}

fn ranking(trials: &[Trial]) -> String {
    let mut order: Vec<&Trial> = trials.iter().collect();
    order.sort_by(|a, b| b.accuracy_per_macs.total_cmp(&a.accuracy_per_macs));
    let mut text = format!(
        "{:>4}  {:<24}{:>10}{:>10}{:>14}{:>13}{:>9}{:>18}{:>6}\n",
        "rank", "network", "top-1", "±", "MACs", "parameters", "image", "points a M MACs", "rank"
    );
    for (index, trial) in trials.iter().enumerate() {
        let place = order.iter().position(|other| other.name == trial.name).map_or(0, |place| place + 1);
        let _ = writeln!(
            text,
            "{:>4}  {:<24}{:>10}{:>10}{:>14}{:>13}{:>6} px{:>18.3}{place:>6}",
            index + 1,
            trial.name,
            percent(trial.top1),
            trial.top1_deviation.map_or("–".into(), percent),
            thousands(trial.macs),
            thousands(trial.parameters as u64),
            trial.resolution,
            trial.accuracy_per_macs
        );
    }
    let (seeds, images) = trials.first().map_or((0, 0), |trial| (trial.runs.len(), trial.runs[0].images));
    let half = |p: f64| 1.96 * (p * (1.0 - p) / images as f64).sqrt();
    let sampling = trials.first().map_or(0.0, |trial| half(trial.top1));
    let of_seeds = match seeds {
        0 | 1 => String::new(),
        _ => format!(", mean of {seeds} seeds; ±: standard deviation between seeds"),
    };
    let _ = writeln!(
        text,
        "\nbest validation{of_seeds}. That these are {images} images only\nmakes each accuracy uncertain by {} (95 %)",
        percent(sampling)
    );
    text
}

/// Median milliseconds for one image.
fn latency(scaled: &Scaled, device: &Device) -> Result<f64, Failure> {
    let architecture = scaled.options.architecture()?;
    let config = BenchConfig {
        mode: Mode::Infer,
        batch_size: 1,
        input_size: scaled.resolution,
        time: LATENCY_TIME,
        gradient_checkpointing: false,
        record_steps: false,
        precision: MapPrecision::F32,
        profile: false,
    };
    Ok(bench(Network::new(&architecture, device), device, &config).median_ms)
}

/// `1.5`, `0,1,2` or `1..7`, the last one included.
fn parse_phis(text: &str) -> Result<Vec<f64>, Failure> {
    const FARTHEST: f64 = 20.0;
    const MOST: usize = 1000;
    let wrong = || {
        let hint = "give a number from -20 to 20, several such as 0,0.5,1, or a range such as 1..7".to_string();
        Failure::new(format!("`--phi {text}` is no φ"), hint)
    };
    let phis: Option<Vec<f64>> = match text.split_once("..") {
        Some((first, last)) => {
            let (first, last) = (first.trim().parse::<i32>(), last.trim_start_matches('=').trim().parse::<i32>());
            let range = first.ok().zip(last.ok()).filter(|(first, last)| first <= last && *first >= -20 && *last <= 20);
            range.map(|(first, last)| (first..=last).map(f64::from).collect())
        }
        None => text.split(',').map(|phi| phi.trim().parse().ok().filter(|phi: &f64| phi.abs() <= FARTHEST)).collect(),
    };
    phis.filter(|phis| (1..=MOST).contains(&phis.len())).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phis_are_numbers_lists_and_ranges() {
        let parse = |text| parse_phis(text).ok();
        assert_eq!(parse("1.5"), Some(vec![1.5]));
        assert_eq!(parse("0, 0.5,-1"), Some(vec![0.0, 0.5, -1.0]));
        assert_eq!(parse("1..4"), Some(vec![1.0, 2.0, 3.0, 4.0]));
        for wrong in ["", "x", "1..", "4..1", "nan", "inf", "99", "1,,2", "0..99"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
