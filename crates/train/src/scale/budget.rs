//! The largest network within a budget.

use serde::Serialize;

use super::{Base, Coefficients, Dimension, Factors, ScaleError, Scaled};

/// What a network may cost; all that is given must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Budget {
    /// Multiply-accumulates for one image.
    pub macs: Option<u64>,
    /// Trainable parameters.
    pub parameters: Option<u64>,
    /// Bytes of the parameters as f32.
    pub size_bytes: Option<u64>,
    /// Milliseconds for one image.
    pub latency_ms: Option<f64>,
}

/// The largest network within a budget.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Where it is.
    pub phi: f64,
    /// The network.
    pub scaled: Scaled,
    /// Its latency, where that was asked for.
    pub latency_ms: Option<f64>,
    /// What multiply-accumulates grew by as each dimension was scaled, one after the other: their product is the whole.
    pub spent: [(Dimension, f64); 3],
}

/// φ is found to within this.
const PRECISION: f64 = 1e-4;
/// With latency, which wavers by more than that.
const MEASURED_PRECISION: f64 = 0.02;
/// Farthest φ that is looked at.
const FARTHEST: f64 = 20.0;
/// First step of φ on the way to where the budget ends; every further one is twice as long.
const FIRST_STEP: f64 = 0.5;

impl Budget {
    /// Does nothing limit the network?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn allows(&self, scaled: &Scaled, latency_ms: Option<f64>) -> bool {
        let within = |cost: u64, most: Option<u64>| most.is_none_or(|most| cost <= most);
        let summary = &scaled.summary;
        within(summary.macs, self.macs)
            && within(summary.parameters as u64, self.parameters)
            && within(summary.size_bytes as u64, self.size_bytes)
            && self.latency_ms.zip(latency_ms).is_none_or(|(most, found)| found <= most)
    }

    /// The largest network within the budget among `base` scaled along `coefficients`. Costs are monotone in φ, so φ is found by
    /// halving; `latency` measures milliseconds for one image and is asked only where the rest is within the budget.
    ///
    /// # Errors
    /// A budget that no network, or every one, is within; whatever `latency` fails with.
    pub fn largest<E: From<ScaleError>>(
        &self,
        base: &Base,
        coefficients: Coefficients,
        latency: &mut dyn FnMut(&Scaled) -> Result<f64, E>,
    ) -> Result<Fit, E> {
        let precision = if self.latency_ms.is_some() { MEASURED_PRECISION } else { PRECISION };
        let mut known: Vec<(Scaled, Option<f64>)> = Vec::new();
        let mut attempt = |phi: f64| -> Result<(bool, Scaled, Option<f64>), E> {
            let scaled = base.scaled(coefficients.at(phi))?;
            if !self.allows(&scaled, None) || self.latency_ms.is_none() {
                return Ok((self.allows(&scaled, None), scaled, None));
            }
            // Rounding makes many φ one network.
            let same = |other: &&(Scaled, Option<f64>)| other.0.summary == scaled.summary;
            let measured = match known.iter().find(same) {
                Some((_, measured)) => *measured,
                None => Some(latency(&scaled)?),
            };
            known.push((scaled.clone(), measured));
            Ok((self.allows(&scaled, measured), scaled, measured))
        };
        let (fits, mut last, _) = attempt(0.0)?;
        let direction = if fits { 1.0 } else { -1.0 };
        // `within` fits, or is yet to be found; `beyond` does not.
        let (mut phi, mut step) = (0.0, FIRST_STEP);
        let (mut within, mut beyond) = loop {
            let next: f64 = phi + direction * step;
            let tried = if next.abs() > FARTHEST { None } else { attempt(next).ok() };
            let Some((now, scaled, _)) = tried else {
                let cost = self.cost_of(&last);
                return Err(match fits {
                    true => ScaleError::TooLarge { phi, largest: cost }.into(),
                    false => ScaleError::TooSmall { phi, smallest: cost }.into(),
                });
            };
            if now != fits {
                break if fits { (phi, next) } else { (next, phi) };
            }
            (phi, step, last) = (next, 2.0 * step, scaled);
        };
        while beyond - within > precision {
            let middle = 0.5 * (within + beyond);
            if attempt(middle)?.0 { within = middle } else { beyond = middle }
        }
        let (_, scaled, latency_ms) = attempt(within)?;
        let spent = spent(base, &scaled)?;
        Ok(Fit { phi: within, scaled, latency_ms, spent })
    }

    /// What the budget counts, of a network.
    fn cost_of(&self, scaled: &Scaled) -> String {
        let summary = &scaled.summary;
        let counted = [
            (self.macs.is_some(), format!("{} MACs", summary.macs)),
            (self.parameters.is_some(), format!("{} parameters", summary.parameters)),
            (self.size_bytes.is_some(), format!("{} bytes", summary.size_bytes)),
            (self.latency_ms.is_some(), format!("{} MACs, each of which takes time", summary.macs)),
        ];
        counted.into_iter().filter_map(|(asked, text)| asked.then_some(text)).collect::<Vec<_>>().join(", ")
    }
}

/// What multiply-accumulates grew by as depth, then width, then resolution were scaled.
fn spent(base: &Base, scaled: &Scaled) -> Result<[(Dimension, f64); 3], ScaleError> {
    let Factors { depth, width, .. } = scaled.factors;
    let macs = |factors: Factors| base.scaled(factors).map(|scaled| scaled.summary.macs as f64);
    let none = macs(Factors::NONE)?;
    let deep = macs(Factors { depth, ..Factors::NONE })?;
    let wide = macs(Factors { depth, width, ..Factors::NONE })?;
    Ok([
        (Dimension::Depth, deep / none),
        (Dimension::Width, wide / deep),
        (Dimension::Resolution, scaled.summary.macs as f64 / wide),
    ])
}

#[cfg(test)]
mod tests {
    use mbconv_nets::ArchitectureOptions;

    use super::*;
    use crate::scale::SIDE_STEP;

    fn base(name: &str) -> Base {
        Base::new(ArchitectureOptions::new(name, 1000), None, SIDE_STEP).unwrap()
    }

    fn largest(budget: Budget, name: &str, coefficients: Coefficients) -> Result<Fit, ScaleError> {
        // Of a made-up machine: a nanosecond a MAC.
        budget.largest(&base(name), coefficients, &mut |scaled| Ok(scaled.summary.macs as f64 / 1e6))
    }

    #[test]
    fn no_larger_network_is_within_the_budget() {
        let budgets = [
            Budget { macs: Some(1_000_000_000), ..Budget::default() },
            Budget { macs: Some(100_000_000), ..Budget::default() },
            Budget { parameters: Some(5_000_000), ..Budget::default() },
            Budget { size_bytes: Some(10_000_000), ..Budget::default() },
            Budget { macs: Some(2_000_000_000), parameters: Some(8_000_000), ..Budget::default() },
        ];
        for name in ["efficientnet_b0", "efficientnet_lite0", "mobilenet_v2"] {
            for budget in budgets {
                let fit = largest(budget, name, Coefficients::PUBLISHED).unwrap();
                assert!(budget.allows(&fit.scaled, None));
                let above = base(name).scaled(Coefficients::PUBLISHED.at(fit.phi + 2.0 * PRECISION)).unwrap();
                assert!(!budget.allows(&above, None), "{name} {budget:?} at {}", fit.phi);
                let all: f64 = fit.spent.iter().map(|(_, by)| by).product();
                let whole =
                    fit.scaled.summary.macs as f64 / base(name).scaled(Factors::NONE).unwrap().summary.macs as f64;
                assert!((all / whole - 1.0).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn latency_is_measured_once_a_network() {
        let budget = Budget { latency_ms: Some(800.0), ..Budget::default() };
        let mut networks = Vec::new();
        let fit = budget
            .largest::<ScaleError>(&base("efficientnet_b0"), Coefficients::PUBLISHED, &mut |scaled| {
                assert!(!networks.contains(&scaled.summary), "measured twice");
                networks.push(scaled.summary.clone());
                Ok(scaled.summary.macs as f64 / 1e6)
            })
            .unwrap();
        let found = fit.latency_ms.unwrap();
        assert!(found <= 800.0 && found > 700.0, "{found}");
        assert!(networks.len() < 12);
    }

    #[test]
    fn impossible_budgets_are_named() {
        let tiny = Budget { parameters: Some(10), ..Budget::default() };
        let error = largest(tiny, "efficientnet_b0", Coefficients::PUBLISHED).unwrap_err();
        assert!(matches!(error, ScaleError::TooSmall { .. }), "{error}");
        // The image's size does not change what there is to train.
        let budget = Budget { parameters: Some(6_000_000), ..Budget::default() };
        let error = largest(budget, "efficientnet_b0", Coefficients::only(Dimension::Resolution)).unwrap_err();
        assert!(matches!(error, ScaleError::TooLarge { .. }) && error.to_string().contains("5288548"), "{error}");
    }
}
