//! Networks for several φ and dimensions.

use mbconv_train::scale::search::Candidate;
use mbconv_train::scale::{Coefficients, Dimension};

use super::plan::Plan;
use crate::args::{CoefficientArgs, DEFAULT_PHI, Only, SeriesArgs};
use crate::error::CliError;

/// Limit of |φ|.
const MAX_PHI: i32 = 20;
/// Maximum number of φ.
const MAX_PHIS: usize = 1000;

impl From<&CoefficientArgs> for Coefficients {
    fn from(args: &CoefficientArgs) -> Self {
        Self { alpha: args.alpha, beta: args.beta, gamma: args.gamma }
    }
}

/// Returns the name and the coefficients for scaling by `only`; `compound` applies to all three
/// dimensions.
pub fn coefficients(only: Only, compound: &CoefficientArgs) -> (&'static str, Coefficients) {
    match only {
        Only::Depth => ("depth", Coefficients::only(Dimension::Depth)),
        Only::Width => ("width", Coefficients::only(Dimension::Width)),
        Only::Resolution => ("resolution", Coefficients::only(Dimension::Resolution)),
        Only::Compound => ("compound", compound.into()),
    }
}

/// Returns a network for every dimension and φ.
pub fn candidates(plan: &Plan, args: &SeriesArgs) -> Result<Vec<Candidate>, CliError> {
    let phis = parse_phis(args.phi.as_deref().unwrap_or(DEFAULT_PHI))?;
    let dimensions = if args.only.is_empty() { &[Only::Compound][..] } else { &args.only[..] };
    let mut candidates = Vec::new();
    for only in dimensions {
        let (series, coefficients) = coefficients(*only, &args.coefficients);
        for &phi in &phis {
            candidates.push(candidate(plan, format!("{series}_phi{phi}"), series, coefficients, phi)?);
        }
    }
    Ok(candidates)
}

/// Returns the network for `coefficients` at `phi`.
pub fn candidate(
    plan: &Plan,
    name: String,
    series: &'static str,
    coefficients: Coefficients,
    phi: f64,
) -> Result<Candidate, CliError> {
    let scaled = plan.base.scaled(coefficients.at(phi))?;
    Ok(Candidate { name, series, coefficients, phi, scaled })
}

/// Parses `1.5`, `0,1,2` or `1..7`, including 7.
fn parse_phis(text: &str) -> Result<Vec<f64>, CliError> {
    let invalid = || {
        let hint = "use a number from -20 to 20, a list such as 0,0.5,1, or a range such as 1..7".to_string();
        CliError::new(format!("invalid φ in `--phi {text}`"), hint)
    };
    let phis: Option<Vec<f64>> = match text.split_once("..") {
        Some((first, last)) => {
            let (first, last) = (first.trim().parse::<i32>(), last.trim_start_matches('=').trim().parse::<i32>());
            let range = first.ok().zip(last.ok());
            let range = range.filter(|(first, last)| first <= last && *first >= -MAX_PHI && *last <= MAX_PHI);
            range.map(|(first, last)| (first..=last).map(f64::from).collect())
        }
        None => {
            let parse = |phi: &str| phi.trim().parse().ok().filter(|phi: &f64| phi.abs() <= f64::from(MAX_PHI));
            text.split(',').map(parse).collect()
        }
    };
    phis.filter(|phis| (1..=MAX_PHIS).contains(&phis.len())).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phi_is_a_number_a_list_or_a_range() {
        let parse = |text| parse_phis(text).ok();
        assert_eq!(parse("1.5"), Some(vec![1.5]));
        assert_eq!(parse("0, 0.5,-1"), Some(vec![0.0, 0.5, -1.0]));
        assert_eq!(parse("1..4"), Some(vec![1.0, 2.0, 3.0, 4.0]));
        for invalid in ["", "x", "1..", "4..1", "nan", "inf", "99", "1,,2", "0..99"] {
            assert_eq!(parse(invalid), None, "{invalid}");
        }
    }
}
