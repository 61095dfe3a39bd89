//! Batch normalisation with PyTorch's statistics and three modes.

use std::mem;

use burn::backend::DispatchTensor;
use burn::module::{Flag, Module, ModuleMapper, Param, RunningState};
use burn::tensor::{Device, Tensor};
use mbconv_kernels::descent::blend;
use mbconv_kernels::{Activation, Statistics, batch_norm_activation, channel_statistics, synchronise};

/// Which statistics normalise, and whether they move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormMode {
    /// The batch's own statistics, which also update the running ones.
    Train,
    /// The running statistics, left as they are; weight and bias still learn. For fine-tuning with small batches.
    Frozen,
    /// The running statistics, for validation and prediction.
    Eval,
}

/// Batch normalisation over channels-last maps, followed by an activation.
///
/// Differs from Burn's in that it can be frozen and that the running variance is the unbiased estimate, as in PyTorch.
/// It trains on a device with autodiff and evaluates on any other; [`valid`](Module::valid) evaluates too.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// γ, shape `[C]`.
    pub weight: Param<Tensor<1>>,
    /// β, shape `[C]`.
    pub bias: Param<Tensor<1>>,
    /// Running mean, shape `[C]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// Running unbiased variance, shape `[C]`.
    pub running_var: RunningState<Tensor<1>>,
    /// Burn's switch between training and validation.
    training: Param<Flag>,
    #[module(skip)]
    frozen: bool,
    #[module(skip)]
    epsilon: f64,
    #[module(skip)]
    momentum: f64,
}

impl BatchNorm {
    /// Weight 1, bias 0, running mean 0, running variance 1.
    pub fn new(channels: usize, epsilon: f64, momentum: f64, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::ones([channels], device)),
            bias: Param::from_tensor(Tensor::zeros([channels], device)),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            training: Param::from_bool(true),
            frozen: false,
            epsilon,
            momentum,
        }
    }

    /// The mode in which an input on `device` is normalised.
    pub fn mode(&self, device: &Device) -> NormMode {
        match (device.is_autodiff() && self.training.is_enabled(), self.frozen) {
            (false, _) => NormMode::Eval,
            (true, true) => NormMode::Frozen,
            (true, false) => NormMode::Train,
        }
    }

    /// Holds the running statistics still during training, or lets them move again.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// `activation(norm(x))` for `x` of shape `[N, H, W, C]`.
    pub fn forward(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        let (mean, var, statistics) = match self.mode(&x.device()) {
            NormMode::Train => {
                let (mean, var) = channel_statistics(x.clone());
                self.update(&mean, &var, &x);
                (mean, var, Statistics::Batch)
            }
            NormMode::Frozen | NormMode::Eval => {
                (self.running_mean.value(), self.running_var.value(), Statistics::Fixed)
            }
        };
        batch_norm_activation(x, self.weight.val(), self.bias.val(), mean, var, self.epsilon, statistics, activation)
    }

    /// What the normalisation of an evaluation is, for each channel: `x * scale + shift`.
    pub(crate) fn scale_and_shift(&self) -> [Tensor<1>; 2] {
        let [mean, var] = [self.running_mean.value(), self.running_var.value()];
        let scale = self.weight.val() / var.add_scalar(self.epsilon).sqrt();
        let shift = self.bias.val() - mean * scale.clone();
        [scale, shift]
    }

    /// The same in double precision.
    pub(crate) fn exact_scale_and_shift(&self) -> (Vec<f64>, Vec<f64>) {
        let [weight, bias, mean, var] =
            [self.weight.val(), self.bias.val(), self.running_mean.value(), self.running_var.value()]
                .map(|vector| vector.into_data().iter::<f64>().collect::<Vec<_>>());
        let scale: Vec<f64> =
            weight.iter().zip(&var).map(|(weight, var)| weight / (var + self.epsilon).sqrt()).collect();
        let shift = (0..scale.len()).map(|i| bias[i] - mean[i] * scale[i]).collect();
        (scale, shift)
    }

    /// Moves the running statistics towards the batch's: `mean` and biased `var` of `x`.
    fn update(&self, mean: &Tensor<1>, var: &Tensor<1>, x: &Tensor<4>) {
        let [n, h, w, _] = x.dims();
        let count = synchronise::total(n * h * w);
        // A single value has no unbiased variance; PyTorch refuses it, we keep the biased one.
        let unbiased = count / (count - 1.0).max(1.0);
        let (keep, take) = (1.0 - self.momentum, self.momentum);
        let states = [&self.running_mean, &self.running_var];
        let values = [mean, var].map(|value| value.clone().inner().into_dispatch());
        // Taken out, so that no one else holds their memory; the batch's stand in for them.
        let mut swap = |(state, value)| exchange(state, value);
        let running = states.into_iter().zip(values.clone()).map(&mut swap).collect();
        let moved = blend(running, values.into(), [[keep, take], [keep, take * unbiased]], None);
        states.into_iter().zip(moved).for_each(|pair| drop(swap(pair)));
    }
}

/// Puts a vector in the place of a running statistic, which is returned.
fn exchange(state: &RunningState<Tensor<1>>, value: DispatchTensor) -> DispatchTensor {
    let mut exchange = Exchange(value);
    // At once, so that whoever reads the module next sees it; `RunningState::update` would wait for other threads and divide by
    // their number. A clone is the same state.
    state.clone().map(&mut exchange);
    exchange.0
}

struct Exchange(DispatchTensor);

impl ModuleMapper for Exchange {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|old| {
            let strategy = old.gradient_checkpointing_strategy();
            let new = mem::replace(&mut self.0, old.inner().into_dispatch());
            let new = Tensor::from_inner(Tensor::from_dispatch(new));
            match strategy {
                Some(strategy) => new.with_gradient_checkpointing_strategy(strategy),
                None => new,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().convert::<f32>().try_to_vec().unwrap()
    }

    #[test]
    fn training_follows_pytorchs_statistics() {
        let device = Device::default().autodiff();
        let norm = BatchNorm::new(1, 1e-5, 0.1, &device);
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 6.0], &device).reshape([1, 2, 2, 1]);
        let y = values(norm.forward(x, Activation::Identity));
        // mean 3, biased variance 3.5, unbiased 14/3
        assert!((y[3] - 3.0 / (3.5f32 + 1e-5).sqrt()).abs() < 1e-5, "{y:?}");
        assert!((values(norm.running_mean.value())[0] - 0.3).abs() < 1e-6);
        assert!((values(norm.running_var.value())[0] - (0.9 + 0.1 * 14.0 / 3.0)).abs() < 1e-5);
    }

    #[test]
    fn frozen_norms_learn_but_keep_their_statistics() {
        let device = Device::default().autodiff();
        let mut norm = BatchNorm::new(3, 1e-5, 0.1, &device);
        norm.set_frozen(true);
        assert_eq!(norm.mode(&device), NormMode::Frozen);
        let x = Tensor::<4>::random([2, 4, 4, 3], Distribution::Normal(2.0, 1.0), &device);
        let gradients = norm.forward(x, Activation::Silu).sum().backward();
        assert!(norm.weight.val().grad(&gradients).is_some());
        assert_eq!(values(norm.running_mean.value()), [0.0; 3]);
    }

    #[test]
    fn validation_uses_the_running_statistics() {
        let device = Device::default().autodiff();
        let norm = BatchNorm::new(2, 1e-5, 0.1, &device);
        assert_eq!(norm.mode(&device), NormMode::Train);
        let valid = norm.valid();
        assert_eq!(valid.mode(&device.clone().inner()), NormMode::Eval);
        let x = Tensor::<4>::full([1, 1, 1, 2], 5.0, &device.inner());
        assert!((values(valid.forward(x, Activation::Identity))[0] - 5.0).abs() < 1e-4);
    }
}
