//! Update rules of SGD, RMSProp and AdamW, equal to the reference implementations.

use mbconv_kernels::optimizer_step::OptimizerStep;

/// The update rule of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Kind of rule, with its constants.
    pub kind: RuleKind,
    /// Weight decay: decoupled for AdamW, an L2 penalty added to the gradient for the others.
    pub weight_decay: f64,
    /// Factor of the learning rate: below 1 for layers that are trained more slowly.
    pub factor: f64,
}

/// Kinds of rules and their constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleKind {
    /// PyTorch's `SGD` with dampening 0: `b ← μb + g`, `p ← p - lr·b`; with Nesterov momentum `p ←
    /// p - lr·(g + μb)`.
    Sgd {
        /// μ. If 0, no momentum buffer is kept.
        momentum: f64,
        /// Use Nesterov momentum.
        nesterov: bool,
    },
    /// TensorFlow's RMSProp and timm's `RMSpropTF`: `s ← s + (1-α)(g² - s)` with `s = 1` initially,
    /// `b ← μb + lr·g/√(s+ε)`, `p ← p - b`.
    RmsPropTf {
        /// α.
        alpha: f64,
        /// μ.
        momentum: f64,
        /// ε, inside the square root.
        epsilon: f64,
    },
    /// PyTorch's `AdamW` (Loshchilov and Hutter 2019).
    AdamW {
        /// β₁, β₂.
        betas: [f64; 2],
        /// ε, outside the square root.
        epsilon: f64,
    },
}

impl Rule {
    /// Returns the initial values of the first and second moment, or `None` for a moment that the
    /// rule does not use.
    pub fn start(&self) -> [Option<f32>; 2] {
        match self.kind {
            RuleKind::Sgd { momentum, .. } => [(momentum > 0.0).then_some(0.0), None],
            RuleKind::RmsPropTf { .. } => [Some(0.0), Some(1.0)],
            RuleKind::AdamW { .. } => [Some(0.0), Some(0.0)],
        }
    }

    /// Returns the constants of step number `steps` of a parameter, counted from 1.
    pub fn optimizer_step(&self, lr: f64, steps: usize) -> OptimizerStep {
        let (lr, decay) = (lr * self.factor, self.weight_decay as f32);
        match self.kind {
            RuleKind::Sgd { momentum, nesterov } => {
                OptimizerStep::Sgd { decay, momentum: momentum as f32, nesterov, lr: lr as f32 }
            }
            RuleKind::RmsPropTf { alpha, momentum, epsilon } => OptimizerStep::RmsPropTf {
                decay,
                rise: (1.0 - alpha) as f32,
                momentum: momentum as f32,
                epsilon: epsilon as f32,
                lr: lr as f32,
            },
            RuleKind::AdamW { betas, epsilon } => {
                let [first, second] = betas.map(|beta| 1.0 - beta.powf(steps as f64));
                OptimizerStep::AdamW {
                    keep: (1.0 - lr * self.weight_decay) as f32,
                    beta: betas[1] as f32,
                    rises: betas.map(|beta| (1.0 - beta) as f32),
                    rate: (lr / first) as f32,
                    root: (1.0 / second.sqrt()) as f32,
                    epsilon: epsilon as f32,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [RuleKind; 5] = [
        RuleKind::Sgd { momentum: 0.0, nesterov: false },
        RuleKind::Sgd { momentum: 0.9, nesterov: false },
        RuleKind::Sgd { momentum: 0.9, nesterov: true },
        RuleKind::RmsPropTf { alpha: 0.9, momentum: 0.9, epsilon: 1e-3 },
        RuleKind::AdamW { betas: [0.9, 0.999], epsilon: 1e-8 },
    ];
    /// Results of PyTorch 2 and timm 1 for `p = [1, -2, 0.5]` after steps with the gradients `[0.1,
    /// 0.2, -0.3]`, `[-0.2, 0.1, 0.4]` and `[0.05, 0, -0.1]` at the learning rates 0.1, 0.05 and
    /// 0.02 with weight decay 0.01, from `scripts/golden_optimizers.py`.
    const GOLDEN: [[f32; 3]; 5] = [
        [0.9973058, -2.0215864, 0.5111334],
        [0.9939968, -2.0340376, 0.5218894],
        [0.9919152, -2.0521936, 0.5307991],
        [0.9872161, -2.0592222, 0.5438696],
        [0.9194061, -2.1575427, 0.5889806],
    ];

    #[test]
    fn rules_match_pytorch_and_timm() {
        for (kind, golden) in RULES.into_iter().zip(GOLDEN) {
            let rule = Rule { kind, weight_decay: 0.01, factor: 1.0 };
            let mut p = [1.0, -2.0, 0.5];
            let [mut first, mut second] = rule.start().map(|start| start.map_or(Vec::new(), |value| vec![value; 3]));
            let steps = [([0.1, 0.2, -0.3], 0.1), ([-0.2, 0.1, 0.4], 0.05), ([0.05, 0.0, -0.1], 0.02)];
            for (step, (g, lr)) in (1..).zip(steps) {
                rule.optimizer_step(lr, step).apply(&mut p, &g, &mut first, &mut second);
            }
            for (a, b) in p.iter().zip(golden) {
                assert!((a - b).abs() < 2e-6, "{kind:?}: {p:?}, not {golden:?}");
            }
        }
    }

    #[test]
    fn factor_scales_the_learning_rate() {
        let rule = |factor| Rule { kind: RULES[1], weight_decay: 0.0, factor };
        assert_eq!(rule(0.5).optimizer_step(0.5, 1), rule(1.0).optimizer_step(0.25, 1));
    }
}
