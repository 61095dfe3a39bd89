//! The largest network within a budget.

use mbconv_nets::Summary;
use serde::Serialize;

use super::formula::{Base, Coefficients, Dimension, Factors, ScaleError, Scaled};

/// Limits of a network's cost; all given limits apply.
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
    /// φ of depth, width and resolution. They grow together until the next step exceeds the budget;
    /// then depth, whose steps are whole blocks, stops, and width, whose steps are finer, stops
    /// next.
    pub phi: [f64; 3],
    /// The scaled network.
    pub scaled: Scaled,
    /// Measured latency, if it is limited.
    pub latency_ms: Option<f64>,
    /// Factors by which multiply-accumulates grew as each dimension was scaled in turn; their
    /// product is the total growth.
    pub spent: [(Dimension, f64); 3],
}

/// Precision of φ.
const PRECISION: f64 = 1e-4;
/// Precision of φ with latency, whose measurements vary more.
const MEASURED_PRECISION: f64 = 0.02;
/// Maximum absolute φ.
const FARTHEST: f64 = 20.0;
/// First step of φ when searching for the limit; every further step is twice as long.
const FIRST_STEP: f64 = 0.5;

impl Budget {
    /// Returns whether there are no limits.
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

    /// Returns the largest network within the budget among `base` scaled along `coefficients`.
    /// Costs are monotone in φ, so φ is found by bisection. `latency` measures milliseconds for one
    /// image and is called only if the other limits are met.
    ///
    /// # Errors
    /// A budget that no network or every network satisfies; errors of `latency`.
    pub fn largest<E: From<ScaleError>>(
        &self,
        base: &Base,
        coefficients: Coefficients,
        latency: &mut dyn FnMut(&Scaled) -> Result<f64, E>,
    ) -> Result<Fit, E> {
        let known = Vec::new();
        let mut trials = Trials { budget: self, base, coefficients, latency, known };
        let start = trials.at([0.0; 3])?;
        let (mut phi, outcome) = trials.farthest([0.0; 3], [true; 3], &start)?;
        if let End::Unlimited(last) = outcome {
            let (phi, cost) = (phi[0], self.cost_of(&last));
            return Err(match start.fits {
                true => ScaleError::TooLarge { phi, largest: cost }.into(),
                false => ScaleError::TooSmall { phi, smallest: cost }.into(),
            });
        }
        let Coefficients { beta, gamma, .. } = coefficients;
        for (grows, moving) in [(beta.min(gamma) >= 1.0, [false, true, true]), (gamma >= 1.0, [false, false, true])] {
            let moves = moving.iter().zip([1.0, beta, gamma]).any(|(moves, by)| *moves && by > 1.0);
            if grows && moves {
                let now = trials.at(phi)?;
                // A dimension that does not affect the limited costs would grow without end: keep
                // it.
                if let (further, End::Found) = trials.farthest(phi, moving, &now)? {
                    phi = further;
                }
            }
        }
        let Trial { scaled, latency_ms, .. } = trials.at(phi)?;
        let spent = spent(base, &scaled)?;
        Ok(Fit { phi, scaled, latency_ms, spent })
    }

    /// Formats the limited costs of a network.
    fn cost_of(&self, Trial { scaled, latency_ms, .. }: &Trial) -> String {
        let summary = &scaled.summary;
        let counted = [
            self.macs.map(|_| format!("{} MACs", summary.macs)),
            self.parameters.map(|_| format!("{} parameters", summary.parameters)),
            self.size_bytes.map(|_| format!("{} bytes", summary.size_bytes)),
            latency_ms.map(|latency| format!("{latency:.2} ms for one image")),
        ];
        counted.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// An evaluated network.
#[derive(Clone)]
struct Trial {
    fits: bool,
    scaled: Scaled,
    /// `None` if latency is not limited or another limit is exceeded already.
    latency_ms: Option<f64>,
}

/// The end of a search for φ.
enum End {
    Found,
    /// The budget's limit was not crossed; contains the last network that could be tried.
    Unlimited(Box<Trial>),
}

/// Networks evaluated during the search.
struct Trials<'a, E> {
    budget: &'a Budget,
    base: &'a Base,
    coefficients: Coefficients,
    latency: &'a mut dyn FnMut(&Scaled) -> Result<f64, E>,
    /// Networks with measured latency.
    known: Vec<(Summary, f64)>,
}

impl<E: From<ScaleError>> Trials<'_, E> {
    /// Returns the network with these values of φ for depth, width and resolution.
    fn at(&mut self, phi: [f64; 3]) -> Result<Trial, E> {
        let scaled = self.base.scaled(self.coefficients.at_each(phi))?;
        if !self.budget.allows(&scaled, None) || self.budget.latency_ms.is_none() {
            return Ok(Trial { fits: self.budget.allows(&scaled, None), scaled, latency_ms: None });
        }
        // Rounding maps many values of φ to one network.
        let same = self.known.iter().find(|(summary, _)| *summary == scaled.summary);
        let latency = match same {
            Some((_, latency)) => *latency,
            None => {
                let latency = (self.latency)(&scaled)?;
                self.known.push((scaled.summary.clone(), latency));
                latency
            }
        };
        Ok(Trial { fits: self.budget.allows(&scaled, Some(latency)), scaled, latency_ms: Some(latency) })
    }

    /// Returns the largest φ within the budget when the dimensions in `moving` continue from
    /// `start`, whose network is `first`: upwards if that is within the budget, else downwards.
    fn farthest(&mut self, start: [f64; 3], moving: [bool; 3], first: &Trial) -> Result<([f64; 3], End), E> {
        let precision = if self.budget.latency_ms.is_some() { MEASURED_PRECISION } else { PRECISION };
        let moved = |by: f64| {
            let mut phi = start;
            phi.iter_mut().zip(moving).for_each(|(phi, moves)| *phi += if moves { by } else { 0.0 });
            phi
        };
        let direction = if first.fits { 1.0 } else { -1.0 };
        let (mut by, mut step, mut last) = (0.0, FIRST_STEP, first.clone());
        let (mut within, mut beyond) = loop {
            let next: f64 = by + direction * step;
            let here = moved(by);
            let allowed = moved(next).iter().all(|phi| phi.abs() <= FARTHEST);
            // Beyond some φ there are no valid networks.
            if !allowed || self.base.scaled(self.coefficients.at_each(moved(next))).is_err() {
                return Ok((here, End::Unlimited(last.into())));
            }
            let trial = self.at(moved(next))?;
            if trial.fits != first.fits {
                break if first.fits { (by, next) } else { (next, by) };
            }
            (by, step, last) = (next, 2.0 * step, trial);
        };
        while beyond - within > precision {
            let middle = 0.5 * (within + beyond);
            if self.at(moved(middle))?.fits { within = middle } else { beyond = middle }
        }
        Ok((moved(within), End::Found))
    }
}

/// Returns the growth of multiply-accumulates as depth, then width, then resolution are scaled.
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
    use mbconv_nets::NetworkOptions;

    use super::*;
    use crate::scale::SIDE_STEP;

    fn base(name: &str) -> Base {
        Base::new(NetworkOptions::new(name, 1000), None, SIDE_STEP).unwrap()
    }

    fn largest(budget: Budget, name: &str, coefficients: Coefficients) -> Result<Fit, ScaleError> {
        // A simulated machine: one nanosecond per MAC.
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
                let above = |moving: [f64; 3]| {
                    let phi = std::array::from_fn(|index| fit.phi[index] + moving[index] * 2.0 * PRECISION);
                    base(name).scaled(Coefficients::PUBLISHED.at_each(phi)).unwrap()
                };
                assert!(!budget.allows(&above([1.0; 3]), None), "{name} {budget:?} at {:?}", fit.phi);
                assert!(!budget.allows(&above([0.0, 1.0, 1.0]), None), "{name} {budget:?} at {:?}", fit.phi);
                // The unused budget is less than one step of the finest dimension.
                let summary = &fit.scaled.summary;
                let used = budget.macs.map(|most| summary.macs as f64 / most as f64).into_iter();
                let used = used.chain(budget.parameters.map(|most| summary.parameters as f64 / most as f64));
                let used = used.chain(budget.size_bytes.map(|most| summary.size_bytes as f64 / most as f64));
                assert!(used.fold(0.0, f64::max) > 0.9, "{name} {budget:?}: {} M MACs", summary.macs / 1_000_000);
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
        assert!(networks.len() < 20, "{}", networks.len());
    }

    #[test]
    fn impossible_budgets_are_named() {
        let tiny = Budget { parameters: Some(10), ..Budget::default() };
        let error = largest(tiny, "efficientnet_b0", Coefficients::PUBLISHED).unwrap_err();
        assert!(matches!(error, ScaleError::TooSmall { .. }), "{error}");
        // The image size does not change the number of parameters.
        let budget = Budget { parameters: Some(6_000_000), ..Budget::default() };
        let error = largest(budget, "efficientnet_b0", Coefficients::only(Dimension::Resolution)).unwrap_err();
        assert!(matches!(error, ScaleError::TooLarge { .. }) && error.to_string().contains("5288548"), "{error}");
    }
}
