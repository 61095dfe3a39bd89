//! `mbconv scale budget`

use std::fmt::Write;
use std::time::Duration;

use mbconv_nets::Network;
use mbconv_train::bench::{BenchConfig, Mode, Subject, bench};
use mbconv_train::device::Device;
use mbconv_train::precision::MapPrecision;
use mbconv_train::scale::budget::{Budget, Fit};
use mbconv_train::scale::{Dimension, Scaled};
use serde_json::json;

use super::plan::{Plan, header};
use super::series::coefficients;
use crate::args::{BudgetArgs, Only};
use crate::error::CliError;
use crate::output::{print_json, print_text};

/// Duration of a latency measurement.
const LATENCY_TIME: Duration = Duration::from_secs(1);

/// Prints the largest network within the budget and writes its recipe.
pub fn run(args: BudgetArgs) -> Result<(), CliError> {
    let only = match args.only[..] {
        [] => Only::Compound,
        [only] => only,
        _ => return Err(CliError::new("a budget accepts --only once", "use a single --only".to_string())),
    };
    let (_, coefficients) = coefficients(only, &args.coefficients);
    let plan = Plan::new(args.network, args.proxy.as_deref())?;
    let budget = Budget {
        macs: args.targets.target_macs,
        parameters: args.targets.target_params,
        size_bytes: args.targets.target_size,
        latency_ms: args.targets.target_latency,
    };
    let device = budget.latency_ms.map(|_| args.device.open()).transpose()?;
    let mut measure = |scaled: &Scaled| -> Result<f64, CliError> {
        let Some(device) = &device else { return Ok(0.0) };
        let median = latency(scaled, device)?;
        eprintln!("{median:>8.2} ms  {:.1} M MACs at {} px", scaled.summary.macs as f64 / 1e6, scaled.resolution);
        Ok(median)
    };
    let fit = budget.largest(&plan.base, coefficients, &mut measure)?;
    let Fit { phi, scaled, latency_ms, spent } = &fit;
    let name = format!("{}_to_budget", plan.base.name());
    let reached = describe_phi(phi);
    let mut json = plan.json(&name, scaled);
    json["phi"] = json!({ "depth": phi[0], "width": phi[1], "resolution": phi[2] });
    json["coefficients"] = json!(coefficients);
    json["latency_ms"] = json!(latency_ms);
    json["budget"] = json!(budget);
    json["spent"] = spent
        .iter()
        .map(|(dimension, factor)| (dimension_name(*dimension).to_string(), json!(factor)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let origin = format!("{} scaled to a budget: {reached}", plan.base.name());
    plan.write_recipe(&name, scaled, &origin, &mut json)?;
    if plan.args.json.json {
        return print_json(&json);
    }
    let mut text = format!("{}\n{}\n\n", header(), plan.row(&name, scaled));
    let _ = writeln!(text, "{reached}; growth of the multiply-accumulates by dimension:");
    for (dimension, factor) in spent {
        let scale = match dimension {
            Dimension::Depth => scaled.factors.depth,
            Dimension::Width => scaled.factors.width,
            Dimension::Resolution => scaled.factors.resolution,
        };
        let _ = writeln!(text, "  {:<11} ×{scale:.3}: MACs ×{factor:.3}", dimension_name(*dimension));
    }
    if let Some(latency) = latency_ms {
        let _ = writeln!(text, "  one image takes {latency:.2} ms here (median)");
    }
    let _ = writeln!(text, "\n{}", plan.notes());
    print_text(&text)
}

/// Formats the φ of depth, width and resolution.
fn describe_phi(phi: &[f64; 3]) -> String {
    let [depth, width, resolution] = phi.map(|phi| format!("{phi:.4}"));
    match depth == width && width == resolution {
        true => format!("φ = {depth}"),
        false => format!("φ = {depth} of depth, {width} of width, {resolution} of resolution"),
    }
}

fn dimension_name(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Depth => "depth",
        Dimension::Width => "width",
        Dimension::Resolution => "resolution",
    }
}

/// Measures the median time for one image in milliseconds.
fn latency(scaled: &Scaled, device: &Device) -> Result<f64, CliError> {
    let architecture = scaled.options.architecture()?;
    let config = BenchConfig {
        mode: Mode::Infer,
        batch_size: 1,
        input_size: scaled.resolution.into(),
        time: LATENCY_TIME,
        gradient_checkpointing: false,
        record_steps: false,
        precision: MapPrecision::F32,
        profile: false,
    };
    Ok(bench(Subject::Network(&Network::new(&architecture, device)), device, &config).median_ms)
}
