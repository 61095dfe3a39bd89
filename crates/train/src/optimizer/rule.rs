//! SGD, RMSProp and AdamW as their authors' code has them, in one pass over the parameters.
//!
//! On the CPU a step reads and writes each parameter, gradient and moment once, in place. Other devices get the same
//! arithmetic as tensor operations, which they fuse.

use burn::optim::{Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::device::is_host;

/// How a parameter moves, one of three published rules. A [`burn::optim::Optimizer`], so it serves any Burn module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Which, with its own constants.
    pub kind: RuleKind,
    /// Weight decay: an L2 penalty added to the gradient, but for AdamW, where it is decoupled.
    pub weight_decay: f64,
    /// What the learning rate is multiplied by: 1 but for layers that learn more slowly.
    pub factor: f64,
}

/// The rules and their constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleKind {
    /// PyTorch's `SGD` with dampening 0: `b ← μb + g`, `p ← p - lr·b`, Nesterov `p ← p - lr·(g + μb)`.
    Sgd {
        /// μ; 0 keeps no buffer.
        momentum: f64,
        /// Nesterov's form.
        nesterov: bool,
    },
    /// TensorFlow's RMSProp, timm's `RMSpropTF`: `s ← s + (1-α)(g² - s)` from `s = 1`, `b ← μb + lr·g/√(s+ε)`, `p ← p - b`.
    RmsPropTf {
        /// α.
        alpha: f64,
        /// μ.
        momentum: f64,
        /// ε, inside the root.
        epsilon: f64,
    },
    /// PyTorch's `AdamW`: Loshchilov and Hutter 2019.
    AdamW {
        /// β₁, β₂.
        betas: [f64; 2],
        /// ε, outside the root.
        epsilon: f64,
    },
}

/// What a rule remembers of a parameter.
#[derive(Clone)]
pub struct RuleState<const D: usize> {
    /// Momentum, or AdamW's first moment.
    pub first: Option<Tensor<D>>,
    /// Mean square of the gradient.
    pub second: Option<Tensor<D>>,
    /// Steps taken.
    pub steps: usize,
}

impl<const D: usize> RecordState for RuleState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        for (name, moment) in [("first", &self.first), ("second", &self.second)] {
            if let Some(moment) = moment {
                out.push_tensor(prefix, name, moment.to_data());
            }
        }
        out.push_scalar(prefix, "steps", self.steps.into());
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, device: &Device) -> Option<Self> {
        let [first, second] = ["first", "second"]
            .map(|name| source.take_tensor(prefix, name).map(|data| Tensor::from_data(data, device)));
        let steps = usize::try_from(source.take_scalar(prefix, "steps")?).ok()?;
        Some(Self { first, second, steps })
    }
}

impl RuleKind {
    /// Where the two moments start; `None` where there is none.
    fn start(&self) -> [Option<f32>; 2] {
        match *self {
            RuleKind::Sgd { momentum, .. } => [(momentum > 0.0).then_some(0.0), None],
            RuleKind::RmsPropTf { .. } => [Some(0.0), Some(1.0)],
            RuleKind::AdamW { .. } => [Some(0.0), Some(0.0)],
        }
    }
}

impl Optimizer for Rule {
    type State<const D: usize> = RuleState<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<RuleState<D>>,
    ) -> (Tensor<D>, Option<RuleState<D>>) {
        let device = parameter.device();
        let mut state = state.unwrap_or_else(|| {
            let [first, second] =
                self.kind.start().map(|start| start.map(|value| Tensor::full(parameter.dims(), value, &device)));
            RuleState { first, second, steps: 0 }
        });
        state.steps += 1;
        let scalars = Scalars::new(self, lr, state.steps);
        let parameter = match is_host(&device) && parameter.dtype() == DType::F32 {
            true => on_host(scalars, parameter, gradient, &mut state),
            false => on_device(scalars, parameter, gradient, &mut state),
        };
        (parameter, Some(state))
    }

    fn to_device<const D: usize>(state: RuleState<D>, device: &Device) -> RuleState<D> {
        let [first, second] = [state.first, state.second].map(|moment| moment.map(|moment| moment.to_device(device)));
        RuleState { first, second, ..state }
    }
}

/// The numbers of one step.
#[derive(Clone, Copy)]
enum Scalars {
    /// `p ← p - lr·d`
    Sgd {
        decay: f64,
        momentum: f64,
        nesterov: bool,
        lr: f64,
    },
    RmsPropTf {
        decay: f64,
        rise: f64,
        momentum: f64,
        epsilon: f64,
        lr: f64,
    },
    /// `p ← keep·p - rate·m / (√v·root + ε)`
    AdamW {
        keep: f64,
        betas: [f64; 2],
        rises: [f64; 2],
        rate: f64,
        root: f64,
        epsilon: f64,
    },
}

impl Scalars {
    fn new(rule: &Rule, lr: f64, steps: usize) -> Self {
        let (lr, decay) = (lr * rule.factor, rule.weight_decay);
        match rule.kind {
            RuleKind::Sgd { momentum, nesterov } => Self::Sgd { decay, momentum, nesterov, lr },
            RuleKind::RmsPropTf { alpha, momentum, epsilon } => {
                Self::RmsPropTf { decay, rise: 1.0 - alpha, momentum, epsilon, lr }
            }
            RuleKind::AdamW { betas, epsilon } => {
                let [first, second] = betas.map(|beta| 1.0 - beta.powf(steps as f64));
                Self::AdamW {
                    keep: 1.0 - lr * rule.weight_decay,
                    betas,
                    rises: betas.map(|beta| 1.0 - beta),
                    rate: lr / first,
                    root: 1.0 / second.sqrt(),
                    epsilon,
                }
            }
        }
    }
}

/// One pass in place.
fn on_host<const D: usize>(
    scalars: Scalars,
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    state: &mut RuleState<D>,
) -> Tensor<D> {
    let device = parameter.device();
    let mut parameter = parameter.into_data();
    let gradient = gradient.into_data();
    let mut moments = [&mut state.first, &mut state.second].map(|moment| moment.take().map(Tensor::into_data));
    {
        let [first, second] = &mut moments;
        let [first, second] = [first, second].map(|moment| moment.as_mut().map_or(&mut [][..], values_mut));
        pass(scalars, values_mut(&mut parameter), values(&gradient), first, second);
    }
    let [first, second] = moments.map(|moment| moment.map(|data| Tensor::from_data(data, &device)));
    (state.first, state.second) = (first, second);
    Tensor::from_data(parameter, &device)
}

fn pass(scalars: Scalars, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    let single = |number: f64| number as f32;
    match scalars {
        Scalars::Sgd { decay, lr, .. } if first.is_empty() => {
            let [decay, lr] = [decay, lr].map(single);
            for (p, g) in parameter.iter_mut().zip(gradient) {
                *p -= lr * (g + decay * *p);
            }
        }
        Scalars::Sgd { decay, momentum, nesterov, lr } => {
            let [decay, momentum, lr] = [decay, momentum, lr].map(single);
            for ((p, g), b) in parameter.iter_mut().zip(gradient).zip(first) {
                let g = g + decay * *p;
                *b = momentum * *b + g;
                *p -= lr * if nesterov { g + momentum * *b } else { *b };
            }
        }
        Scalars::RmsPropTf { decay, rise, momentum, epsilon, lr } => {
            let [decay, rise, momentum, epsilon, lr] = [decay, rise, momentum, epsilon, lr].map(single);
            for (((p, g), b), s) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
                let g = g + decay * *p;
                *s += rise * (g * g - *s);
                *b = momentum * *b + lr * g / (*s + epsilon).sqrt();
                *p -= *b;
            }
        }
        Scalars::AdamW { keep, betas, rises, rate, root, epsilon } => {
            let [keep, rate, root, epsilon] = [keep, rate, root, epsilon].map(single);
            let [betas, rises] = [betas, rises].map(|pair| pair.map(single));
            for (((p, g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
                *m += rises[0] * (g - *m);
                *v = betas[1] * *v + rises[1] * g * g;
                *p = keep * *p - rate * *m / (v.sqrt() * root + epsilon);
            }
        }
    }
}

/// The same as tensor operations.
fn on_device<const D: usize>(scalars: Scalars, p: Tensor<D>, g: Tensor<D>, state: &mut RuleState<D>) -> Tensor<D> {
    let moments = (state.first.take(), state.second.take());
    let decayed = |decay: f64| if decay == 0.0 { g.clone() } else { g.clone() + p.clone().mul_scalar(decay) };
    let (p, first, second) = match (scalars, moments) {
        (Scalars::Sgd { decay, momentum, nesterov, lr }, (Some(b), _)) => {
            let g = decayed(decay);
            let b = b.mul_scalar(momentum) + g.clone();
            let d = if nesterov { g + b.clone().mul_scalar(momentum) } else { b.clone() };
            (p - d.mul_scalar(lr), Some(b), None)
        }
        (Scalars::Sgd { decay, lr, .. }, (None, _)) => {
            let g = decayed(decay);
            (p - g.mul_scalar(lr), None, None)
        }
        (Scalars::RmsPropTf { decay, rise, momentum, epsilon, lr }, (Some(b), Some(s))) => {
            let g = decayed(decay);
            let s = s.clone() + (g.clone().square() - s).mul_scalar(rise);
            let b = b.mul_scalar(momentum) + g.mul_scalar(lr) / s.clone().add_scalar(epsilon).sqrt();
            (p - b.clone(), Some(b), Some(s))
        }
        (Scalars::AdamW { keep, betas, rises, rate, root, epsilon }, (Some(m), Some(v))) => {
            let m = m.clone() + (g.clone() - m).mul_scalar(rises[0]);
            let v = v.mul_scalar(betas[1]) + g.square().mul_scalar(rises[1]);
            let d = m.clone() / v.clone().sqrt().mul_scalar(root).add_scalar(epsilon);
            (p.mul_scalar(keep) - d.mul_scalar(rate), Some(m), Some(v))
        }
        (_, (first, second)) => (p, first, second),
    };
    (state.first, state.second) = (first, second);
    p
}

/// f32 values in host memory; the callers have seen to the type.
pub(crate) fn values(data: &TensorData) -> &[f32] {
    data.as_slice().unwrap_or_default()
}

/// The same, to be changed.
pub(crate) fn values_mut(data: &mut TensorData) -> &mut [f32] {
    data.as_mut_slice().unwrap_or_default()
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
    /// `p = [1, -2, 0.5]` after steps along `[0.1, 0.2, -0.3]`, `[-0.2, 0.1, 0.4]` and `[0.05, 0, -0.1]` at rates 0.1, 0.05
    /// and 0.02 with weight decay 0.01, by PyTorch 2 and timm 1: `scripts/golden_optimizers.py`.
    const GOLDEN: [[f32; 3]; 5] = [
        [0.9973058, -2.0215864, 0.5111334],
        [0.9939968, -2.0340376, 0.5218894],
        [0.9919152, -2.0521936, 0.5307991],
        [0.9872161, -2.0592222, 0.5438696],
        [0.9194061, -2.1575427, 0.5889806],
    ];

    fn steps(kind: RuleKind, run: fn(Scalars, Tensor<1>, Tensor<1>, &mut RuleState<1>) -> Tensor<1>) -> Vec<f32> {
        let device = Device::default();
        let rule = Rule { kind, weight_decay: 0.01, factor: 1.0 };
        let mut p = Tensor::<1>::from_floats([1.0, -2.0, 0.5], &device);
        let [first, second] = kind.start().map(|start| start.map(|value| Tensor::full([3], value, &device)));
        let mut state = RuleState { first, second, steps: 0 };
        for (g, lr) in [([0.1, 0.2, -0.3], 0.1), ([-0.2, 0.1, 0.4], 0.05), ([0.05, 0.0, -0.1], 0.02)] {
            state.steps += 1;
            p = run(Scalars::new(&rule, lr, state.steps), p, Tensor::from_floats(g, &device), &mut state);
        }
        p.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn both_forms_take_the_peers_steps() {
        for (kind, golden) in RULES.into_iter().zip(GOLDEN) {
            for found in [steps(kind, on_host), steps(kind, on_device)] {
                for (a, b) in found.iter().zip(golden) {
                    assert!((a - b).abs() < 2e-6, "{kind:?}: {found:?}, not {golden:?}");
                }
            }
        }
    }

    #[test]
    fn the_factor_scales_the_learning_rate() {
        let device = Device::default();
        let rule = |factor| Rule { kind: RULES[1], weight_decay: 0.0, factor };
        let step = |rule: Rule, lr| {
            let (p, _) = rule.step::<1>(lr, Tensor::zeros([2], &device), Tensor::ones([2], &device), None);
            p.into_data().try_to_vec::<f32>().unwrap()
        };
        assert_eq!(step(rule(0.5), 0.5), step(rule(1.0), 0.25));
    }
}
