//! `mbconv scale formula`

use std::fmt::Write;

use mbconv_nets::Summary;
use mbconv_train::scale::search::Candidate;
use mbconv_train::scale::{Coefficients, Factors, Scaled};
use serde_json::{Value, json};

use super::plan::{Plan, header};
use super::series;
use crate::args::FormulaArgs;
use crate::error::CliError;
use crate::output::{print_json, print_text};
use crate::table::wrapped;

pub fn run(args: FormulaArgs) -> Result<(), CliError> {
    let plan = Plan::new(args.network, None)?;
    show(&plan, &series::candidates(&plan, &args.series)?)
}

/// Prints the networks and writes their recipes.
pub fn show(plan: &Plan, candidates: &[Candidate]) -> Result<(), CliError> {
    let mut text = format!("{}\n", header());
    let mut rows = Vec::new();
    for candidate in candidates {
        let Candidate { name, coefficients, phi, scaled, .. } = candidate;
        let Coefficients { alpha, beta, gamma } = coefficients;
        let Factors { depth, width, resolution } = scaled.factors;
        let _ = writeln!(text, "{}", plan.row(name, scaled));
        let mut json = plan.json(name, scaled);
        json["coefficients"] = json!(coefficients);
        json["phi"] = json!(phi);
        let origin = format!(
            "{} scaled by φ = {phi}: α = {alpha}, β = {beta}, γ = {gamma} (depth ×{depth:.4}, width ×{width:.4}, \
             resolution ×{resolution:.4})",
            plan.base.name()
        );
        plan.write_recipe(name, scaled, &origin, &mut json)?;
        if let Some(published) = published(plan, candidate)? {
            json["published"] = show_published(plan, scaled, &published, &mut text)?;
        }
        rows.push(json);
    }
    if plan.args.json.json {
        return print_json(&json!(rows));
    }
    let _ = writeln!(text, "\n{}", plan.notes());
    print_text(&text)
}

/// Returns the published network of the same φ, if the coefficients are the published ones.
fn published(plan: &Plan, candidate: &Candidate) -> Result<Option<Scaled>, CliError> {
    if candidate.coefficients != Coefficients::PUBLISHED {
        return Ok(None);
    }
    let Some((published, options)) = plan.base.published(candidate.phi) else { return Ok(None) };
    let resolution = published.resolution;
    let factors =
        Factors { depth: published.depth, width: published.width, resolution: candidate.scaled.factors.resolution };
    let summary = Summary::new(&options.architecture()?, [resolution; 2])?;
    Ok(Some(Scaled { factors, resolution, summary, options }))
}

/// Adds the published network and its differences to `text`, writes its recipe, and returns its
/// JSON object.
fn show_published(plan: &Plan, formula: &Scaled, published: &Scaled, text: &mut String) -> Result<Value, CliError> {
    let name = &published.options.name;
    let differences = differences(formula, published)?;
    let _ = writeln!(text, "{}", plan.row(name, published));
    let _ = writeln!(text, "  {}", wrapped(&differences, 2));
    let mut json = plan.json(name, published);
    json["differs"] = json!(differences);
    let origin = format!("{name} as published: its coefficients were rounded by hand");
    plan.write_recipe(name, published, &origin, &mut json)?;
    Ok(json)
}

/// Describes the differences between the published network and the formula's.
fn differences(formula: &Scaled, published: &Scaled) -> Result<String, CliError> {
    let [own, named] = [&formula.options, &published.options].map(|options| options.architecture());
    let (own, named) = (own?, named?);
    let relative = |value: f64, base: f64| format!("{:+.1} %", 100.0 * (value / base - 1.0));
    let mut differences = vec![
        format!("depth {:.3} for {:.3}", named.depth, own.depth),
        format!("width {:.3} for {:.3}", named.width, own.width),
        format!("{} px for {}", published.resolution, formula.resolution),
    ];
    if named.blocks.len() != own.blocks.len() {
        differences.push(format!("{} blocks for {}", named.blocks.len(), own.blocks.len()));
    }
    let (ours, theirs) = (&formula.summary, &published.summary);
    differences.push(format!("parameters {}", relative(theirs.parameters as f64, ours.parameters as f64)));
    differences.push(format!("MACs {}", relative(theirs.macs as f64, ours.macs as f64)));
    Ok(format!("published instead of formula: {}", differences.join(", ")))
}
