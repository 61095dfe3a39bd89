//! The update rules of the optimizers.

/// An optimizer's update rule with the scalars of one step, for a gradient `g` of a parameter `p`.
/// All arithmetic is in single precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerStep {
    /// PyTorch's `SGD`: `g ← g + decay·p`, `b ← momentum·b + g`, `p ← p - lr·b`; with Nesterov
    /// momentum `p ← p - lr·(g + momentum·b)`. Without the first moment `b`: `p ← p - lr·g`.
    Sgd {
        /// Weight decay, as an L2 penalty.
        decay: f32,
        /// Decay factor of the first moment.
        momentum: f32,
        /// Uses Nesterov momentum.
        nesterov: bool,
        /// Learning rate.
        lr: f32,
    },
    /// TensorFlow's RMSProp: `g ← g + decay·p`, `s ← s + rise·(g² - s)`,
    /// `b ← momentum·b + lr·g/√(s + epsilon)`, `p ← p - b`, with first moment `b` and second moment
    /// `s`.
    RmsPropTf {
        /// Weight decay, as an L2 penalty.
        decay: f32,
        /// Fraction of the second moment that is replaced.
        rise: f32,
        /// Decay factor of the first moment.
        momentum: f32,
        /// Added inside the square root.
        epsilon: f32,
        /// Learning rate.
        lr: f32,
    },
    /// AdamW: `m ← m + rises₁·(g - m)`, `v ← beta·v + rises₂·g²`,
    /// `p ← keep·p - rate·m / (√v·root + epsilon)`.
    AdamW {
        /// Factor of the parameter by decoupled weight decay.
        keep: f32,
        /// Decay factor of the second moment.
        beta: f32,
        /// Fractions of the first and second moment that are replaced.
        rises: [f32; 2],
        /// Learning rate divided by the bias correction of the first moment.
        rate: f32,
        /// Inverse square root of the bias correction of the second moment.
        root: f32,
        /// Added outside of the square root.
        epsilon: f32,
    },
}

/// Number of values of a step that change from one step to the next.
pub const SCALARS: usize = 6;

impl OptimizerStep {
    /// Returns the values as kernels read them: weight decay (AdamW: the factor `keep`), learning
    /// rate, decay factor of a moment, fractions of the first and second moment that are replaced,
    /// epsilon.
    pub fn scalars(&self) -> [f32; SCALARS] {
        match *self {
            Self::Sgd { decay, momentum, lr, .. } => [decay, lr, momentum, 0.0, 0.0, 0.0],
            Self::RmsPropTf { decay, rise, momentum, epsilon, lr } => [decay, lr, momentum, 0.0, rise, epsilon],
            // `rate·m / (√v·root + ε) = (rate / root)·m / (√v + ε / root)`.
            Self::AdamW { keep, beta, rises, rate, root, epsilon } => {
                [keep, rate / root, beta, rises[0], rises[1], epsilon / root]
            }
        }
    }

    /// Returns the same rule with other [`OptimizerStep::scalars`].
    pub(crate) fn with_scalars(self, [a, rate, keep, first, second, epsilon]: [f32; SCALARS]) -> Self {
        match self {
            Self::Sgd { nesterov, .. } => Self::Sgd { decay: a, momentum: keep, nesterov, lr: rate },
            Self::RmsPropTf { .. } => Self::RmsPropTf { decay: a, rise: second, momentum: keep, epsilon, lr: rate },
            Self::AdamW { .. } => Self::AdamW { keep: a, beta: keep, rises: [first, second], rate, root: 1.0, epsilon },
        }
    }

    /// Performs one step in place. A moment that this rule, or this form of it, does not use is
    /// empty.
    ///
    /// # Panics
    /// If the gradient, or a moment that the rule uses, differs from the parameter in length.
    pub fn apply(&self, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let kept = match self {
            Self::Sgd { .. } => [!first.is_empty(), false],
            Self::RmsPropTf { .. } | Self::AdamW { .. } => [true; 2],
        };
        let fits = |values: &[f32]| values.len() == parameter.len();
        assert!(
            fits(gradient) && (!kept[0] || fits(first)) && (!kept[1] || fits(second)),
            "a parameter of {} scalars, its gradient of {}, its moments of {} and {}",
            parameter.len(),
            gradient.len(),
            first.len(),
            second.len()
        );
        match *self {
            Self::Sgd { decay, lr, .. } if first.is_empty() => {
                for (p, g) in parameter.iter_mut().zip(gradient) {
                    *p -= lr * (g + decay * *p);
                }
            }
            Self::Sgd { decay, momentum, nesterov, lr } => {
                for ((p, g), b) in parameter.iter_mut().zip(gradient).zip(first) {
                    let g = g + decay * *p;
                    *b = momentum * *b + g;
                    *p -= lr * if nesterov { g + momentum * *b } else { *b };
                }
            }
            Self::RmsPropTf { decay, rise, momentum, epsilon, lr } => {
                for (((p, g), b), s) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
                    let g = g + decay * *p;
                    *s += rise * (g * g - *s);
                    *b = momentum * *b + lr * g / (*s + epsilon).sqrt();
                    *p -= *b;
                }
            }
            Self::AdamW { keep, beta, rises, rate, root, epsilon } => {
                for (((p, g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
                    *m += rises[0] * (g - *m);
                    *v = beta * *v + rises[1] * g * g;
                    *p = keep * *p - rate * *m / (v.sqrt() * root + epsilon);
                }
            }
        }
    }
}
