//! Networks and costs by the scaling formula.

use mbconv_nets::efficientnet::{PUBLISHED, Published};
use mbconv_nets::{Architecture, ArchitectureError, NetworkOptions, Summary};
use serde::{Deserialize, Serialize};

/// Dropout per doubling of the cost, and its maximum: the paper grows it linearly from B0 to B7.
const DROPOUT_PER_DOUBLING: f64 = 0.3 / 7.0;
const MOST_DROPOUT: f64 = 0.5;
/// Default step of scaled image sizes; all published sizes are multiples of it.
pub const SIDE_STEP: usize = 4;
/// Maximum number of points of a grid.
const MOST_POINTS: usize = 20_000;

/// Growth of depth, width and resolution per unit of φ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coefficients {
    /// Depth.
    pub alpha: f64,
    /// Width.
    pub beta: f64,
    /// Resolution.
    pub gamma: f64,
}

/// A scaled dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Blocks per stage.
    Depth,
    /// Channels.
    Width,
    /// Image size.
    Resolution,
}

/// Multipliers of depth, width and resolution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Factors {
    /// Factor of every stage's repeats.
    pub depth: f64,
    /// Factor of every layer's channels.
    pub width: f64,
    /// Factor of the image size.
    pub resolution: f64,
}

impl Coefficients {
    /// Published coefficients, from a grid search on B0.
    pub const PUBLISHED: Self = Self { alpha: 1.2, beta: 1.1, gamma: 1.15 };

    /// Scales a single dimension so that multiply-accumulates double per unit of φ, as in compound
    /// scaling: the paper's comparison (figure 8).
    pub fn only(dimension: Dimension) -> Self {
        let none = Self { alpha: 1.0, beta: 1.0, gamma: 1.0 };
        match dimension {
            Dimension::Depth => Self { alpha: 2.0, ..none },
            Dimension::Width => Self { beta: 2f64.sqrt(), ..none },
            Dimension::Resolution => Self { gamma: 2f64.sqrt(), ..none },
        }
    }

    /// Returns α·β²·γ², the growth of multiply-accumulates per unit of φ before rounding.
    pub fn cost(self) -> f64 {
        self.alpha * self.beta.powi(2) * self.gamma.powi(2)
    }

    /// Returns the multipliers at φ.
    pub fn at(self, phi: f64) -> Factors {
        self.at_each([phi; 3])
    }

    /// Returns the multipliers for separate φ of depth, width and resolution.
    pub fn at_each(self, [depth, width, resolution]: [f64; 3]) -> Factors {
        Factors { depth: self.alpha.powf(depth), width: self.beta.powf(width), resolution: self.gamma.powf(resolution) }
    }
}

impl Factors {
    /// No scaling.
    pub const NONE: Self = Self { depth: 1.0, width: 1.0, resolution: 1.0 };
}

/// The reason why a request cannot be satisfied.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// A coefficient, φ, step, tolerance or share outside its range.
    #[error("`{key}` is {value}, but must be {expected}")]
    OutOfRange {
        /// Option name.
        key: &'static str,
        /// Given value.
        value: f64,
        /// Allowed values.
        expected: &'static str,
    },
    /// An invalid network.
    #[error("the network scaled by depth {:.3}, width {:.3} and resolution {:.3}: {source}", .factors.depth, .factors.width, .factors.resolution)]
    Architecture {
        /// Multipliers.
        factors: Factors,
        /// Cause.
        source: ArchitectureError,
    },
    /// No coefficients satisfy the constraint.
    #[error("no α, β, γ in steps of {step} has α·β²·γ² within {tolerance} of 2")]
    EmptyGrid {
        /// Step of the grid.
        step: f64,
        /// Tolerance.
        tolerance: f64,
    },
    /// The grid has too many points.
    #[error("a grid in steps of {step} has more than {MOST_POINTS} points")]
    LargeGrid {
        /// Step of the grid.
        step: f64,
    },
    /// Even the smallest network exceeds the budget.
    #[error("no network that small: scaled down to φ = {phi:.2} it still costs {smallest}")]
    TooSmall {
        /// Smallest φ that could be tried.
        phi: f64,
        /// Cost of that network.
        smallest: String,
    },
    /// No network uses up the budget.
    #[error("the budget is never used up: at φ = {phi:.2} the network costs {largest}")]
    TooLarge {
        /// Largest φ that could be tried.
        phi: f64,
        /// Cost of that network.
        largest: String,
    },
}

impl ScaleError {
    /// Returns how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Architecture { source, .. } => source.hint(),
            Self::EmptyGrid { .. } => Some("a smaller --step, or a larger --tolerance".into()),
            Self::LargeGrid { .. } => Some("a larger --step".into()),
            Self::TooSmall { .. } => Some("a larger budget, or a smaller --base".into()),
            Self::TooLarge { .. } => Some("a smaller budget, or coefficients above 1 for what it counts".into()),
            Self::OutOfRange { .. } => None,
        }
    }
}

fn ensure(holds: bool, key: &'static str, value: f64, expected: &'static str) -> Result<(), ScaleError> {
    if holds { Ok(()) } else { Err(ScaleError::OutOfRange { key, value, expected }) }
}

/// The network to be scaled.
#[derive(Clone, Debug)]
pub struct Base {
    options: NetworkOptions,
    /// Multiplier of the base itself.
    width: f64,
    depth: f64,
    resolution: usize,
    dropout: f64,
    drop_path: f64,
    /// Scaled image sizes are multiples of this.
    side_step: usize,
}

/// A scaled network and its cost.
#[derive(Clone, Debug)]
pub struct Scaled {
    /// The network.
    pub options: NetworkOptions,
    /// Multipliers of the base, before rounding.
    pub factors: Factors,
    /// Image size.
    pub resolution: usize,
    /// Layers and totals.
    pub summary: Summary,
}

impl Base {
    /// Creates a base from `options` for images of `resolution` pixels, by default the network's
    /// own resolution. Scaled image sizes are multiples of `side_step`.
    ///
    /// # Errors
    /// An invalid network.
    pub fn new(
        options: NetworkOptions,
        resolution: Option<usize>,
        side_step: usize,
    ) -> Result<Self, ArchitectureError> {
        let architecture = options.architecture()?;
        let Architecture { width, depth, dropout, drop_path, .. } = architecture;
        let resolution = resolution.unwrap_or(architecture.resolution);
        Ok(Self { options, width, depth, resolution, dropout, drop_path, side_step: side_step.max(1) })
    }

    /// Returns the base with another number of classes.
    pub fn with_classes(mut self, classes: usize) -> Self {
        self.options.num_classes = classes;
        self
    }

    /// Returns the base's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Returns the network scaled by these multipliers.
    ///
    /// Channels and repeats round as published ([`mbconv_nets::scaling`]), multipliers to six
    /// decimals. Dropout grows linearly with the doublings of the cost, as in the paper from 0.2
    /// (B0) to 0.5 (B7), unless the base has none. Stochastic depth stays, as from B0 to B7.
    ///
    /// # Errors
    /// An invalid network.
    pub fn scaled(&self, factors: Factors) -> Result<Scaled, ScaleError> {
        let fail = |source| ScaleError::Architecture { factors, source };
        let six = |value: f64| (value * 1e6).round() / 1e6;
        let doublings = (factors.depth * factors.width.powi(2) * factors.resolution.powi(2)).log2();
        let dropout = match self.dropout {
            0.0 => 0.0,
            dropout => (dropout + DROPOUT_PER_DOUBLING * doublings).clamp(0.0, MOST_DROPOUT.max(dropout)),
        };
        let resolution = self.side(factors.resolution);
        let options = NetworkOptions {
            width: Some(six(self.width * factors.width)),
            depth: Some(six(self.depth * factors.depth)),
            resolution: Some(resolution),
            dropout: Some((dropout * 1e3).round() / 1e3),
            // Explicit, so that recipes contain it.
            drop_path: Some(self.drop_path),
            ..self.options.clone()
        };
        let architecture = options.architecture().map_err(fail)?;
        let summary = Summary::new(&architecture, [resolution; 2]).map_err(fail)?;
        Ok(Scaled { options, factors, resolution, summary })
    }

    /// Returns the scaled image size: never below the base's when growing, never above when
    /// shrinking.
    fn side(&self, factor: f64) -> usize {
        let step = self.side_step as f64;
        let rounded = ((self.resolution as f64 * factor / step).round() * step).max(step) as usize;
        if factor >= 1.0 { rounded.max(self.resolution) } else { rounded.min(self.resolution) }
    }

    /// Returns the published network for φ in the base's family, whose coefficients were rounded by
    /// hand.
    pub fn published(&self, phi: f64) -> Option<(&'static Published, NetworkOptions)> {
        // Only for an unchanged published base, and not for the base itself.
        let NetworkOptions { name, num_classes, input_channels, .. } = self.options.clone();
        let unchanged = NetworkOptions { input_channels, ..NetworkOptions::new(name, num_classes) };
        if self.options != unchanged || phi.fract() != 0.0 || phi < 1.0 {
            return None;
        }
        let published_side = self.options.architecture().is_ok_and(|base| base.resolution == self.resolution);
        if !published_side {
            return None;
        }
        let (before, number) = [("efficientnet_b0", "b"), ("efficientnet_lite0", "lite")]
            .into_iter()
            .find_map(|(name, letter)| Some((self.name().strip_suffix(name)?, letter)))?;
        let suffix = format!("{number}{phi}");
        let published = PUBLISHED.iter().find(|published| published.suffix == suffix)?;
        let name = format!("{before}efficientnet_{suffix}");
        // Keep the dropout and batch-norm constants of the published name.
        let options =
            NetworkOptions { name, dropout: None, norm_epsilon: None, norm_momentum: None, ..self.options.clone() };
        Some((published, options))
    }
}

/// Returns all α, β, γ ≥ 1 in steps of `step` with α·β²·γ² within `tolerance` of 2, by ascending α,
/// then β.
///
/// # Errors
/// No points or too many.
pub fn grid(step: f64, tolerance: f64) -> Result<Vec<Coefficients>, ScaleError> {
    ensure(step > 0.0 && step <= 1.0, "step", step, "above 0 and at most 1")?;
    ensure((0.0..1.0).contains(&tolerance), "tolerance", tolerance, "in [0, 1)")?;
    // Tolerates rounding errors of decimal steps such as 1.1 and 0.08.
    const SLACK: f64 = 1e-9;
    let most = 2.0 + tolerance + SLACK;
    let steps = |limit: f64| ((limit - 1.0) / step + SLACK) as usize;
    let value = |index: usize| ((1.0 + step * index as f64) * 1e9).round() / 1e9;
    if steps(most).saturating_mul(steps(most.sqrt()).pow(2)) > 1000 * MOST_POINTS {
        return Err(ScaleError::LargeGrid { step });
    }
    let mut points = Vec::new();
    for alpha in (0..=steps(most)).map(value) {
        for beta in (0..=steps(most.sqrt())).map(value) {
            for gamma in (0..=steps(most.sqrt())).map(value) {
                let point = Coefficients { alpha, beta, gamma };
                if (point.cost() - 2.0).abs() <= tolerance + SLACK {
                    points.push(point);
                }
            }
        }
    }
    match points.len() {
        0 => Err(ScaleError::EmptyGrid { step, tolerance }),
        count if count > MOST_POINTS => Err(ScaleError::LargeGrid { step }),
        _ => Ok(points),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base(name: &str) -> Base {
        Base::new(NetworkOptions::new(name, 1000), None, SIDE_STEP).unwrap()
    }

    #[test]
    fn at_zero_it_is_the_base_itself() {
        for (name, side) in [("efficientnet_b0", 224), ("efficientnet_lite3", 300), ("mobilenet_v2_0.35", 224)] {
            let scaled = base(name).scaled(Factors::NONE).unwrap();
            let own = NetworkOptions::new(name, 1000).architecture().unwrap();
            assert_eq!((scaled.options.architecture().unwrap(), scaled.resolution), (own, side));
        }
        let odd = Base::new(NetworkOptions::new("mobilenet_v2", 10), Some(33), 4).unwrap();
        assert_eq!([0.99, 1.0, 1.01, 1.1].map(|factor| odd.side(factor)), [32, 33, 33, 36]);
    }

    #[test]
    fn the_papers_coefficients_double_and_its_networks_are_near() {
        assert!((Coefficients::PUBLISHED.cost() - 1.92).abs() < 1e-2);
        for dimension in [Dimension::Depth, Dimension::Width, Dimension::Resolution] {
            assert!((Coefficients::only(dimension).cost() - 2.0).abs() < 1e-12);
        }
        let b0 = base("efficientnet_b0");
        for number in 1..=7 {
            let phi = f64::from(number);
            let (published, options) = b0.published(phi).unwrap();
            assert_eq!(options, NetworkOptions::new(format!("efficientnet_b{number}"), 1000));
            assert_eq!(published.suffix, format!("b{number}"));
        }
        assert!([-1.0, 0.0, 0.5, 9.0].iter().all(|&phi| b0.published(phi).is_none()));
        let changed = NetworkOptions { width: Some(0.5), ..NetworkOptions::new("efficientnet_b0", 1000) };
        assert!(Base::new(changed, None, SIDE_STEP).unwrap().published(1.0).is_none());
        let small = Base::new(NetworkOptions::new("efficientnet_b0", 1000), Some(32), SIDE_STEP).unwrap();
        assert!(small.published(1.0).is_none());
        assert!(base("mobilenet_v2").published(1.0).is_none());
        assert_eq!(base("tf_efficientnet_lite0").published(2.0).unwrap().1.name, "tf_efficientnet_lite2");
    }

    #[test]
    fn dropout_grows_as_the_papers_does() {
        let dropout = |phi: f64| {
            let doubling = Factors { depth: 2f64.powf(phi), ..Factors::NONE };
            base("efficientnet_b0").scaled(doubling).unwrap().options.dropout.unwrap()
        };
        assert_eq!([-1.0, 0.0, 3.5, 4.0].map(dropout), [0.157, 0.2, 0.35, 0.371]);
    }

    #[test]
    fn grids_hold_the_papers_point() {
        let points = grid(0.05, 0.1).unwrap();
        assert!(points.contains(&Coefficients::PUBLISHED));
        assert!(points.iter().all(|point| (point.cost() - 2.0).abs() <= 0.1 + 1e-6));
        assert!(points.iter().all(|point| point.alpha >= 1.0 && point.beta >= 1.0 && point.gamma >= 1.0));
        // All points within the bounds, by exhaustive search.
        let all = (0..=22).flat_map(|a| (0..=9).flat_map(move |b| (0..=9).map(move |c| [a, b, c])));
        let expected = all.filter(|point| {
            let [a, b, c] = point.map(|index| 1.0 + 0.05 * f64::from(index));
            (a * b * b * c * c - 2.0).abs() <= 0.1 + 1e-9
        });
        assert_eq!(points.len(), expected.count());
        assert!(matches!(grid(0.9, 0.01), Err(ScaleError::EmptyGrid { .. })));
        assert!(matches!(grid(1e-6, 0.1), Err(ScaleError::LargeGrid { .. })));
        for (step, tolerance) in [(0.0, 0.1), (f64::NAN, 0.1), (0.1, -0.1), (0.1, f64::INFINITY)] {
            assert!(matches!(grid(step, tolerance), Err(ScaleError::OutOfRange { .. })));
        }
    }

    proptest! {
        #[test]
        fn all_is_monotone_in_phi(
            name in prop::sample::select(vec!["efficientnet_b0", "efficientnet_lite0", "efficientnet_es", "mobilenet_v2_0.5"]),
            phis in (-2.0f64..4.0, -2.0f64..4.0),
            coefficients in (1.0f64..1.5, 1.0f64..1.4, 1.0f64..1.4),
        ) {
            let (alpha, beta, gamma) = coefficients;
            let at = |phi: f64| base(name).scaled(Coefficients { alpha, beta, gamma }.at(phi)).unwrap();
            let (small, large) = (at(phis.0.min(phis.1)), at(phis.0.max(phis.1)));
            prop_assert!(small.resolution <= large.resolution);
            prop_assert!(small.summary.parameters <= large.summary.parameters);
            prop_assert!(small.summary.macs <= large.summary.macs);
            prop_assert!(small.options.dropout <= large.options.dropout);
            for layer in large.summary.layers.iter().filter(|layer| layer.name.ends_with("project")) {
                prop_assert_eq!(layer.output[0] % 8, 0);
            }
        }
    }
}
