//! Batch normalization with PyTorch's statistics and three modes.

use std::mem;

use burn::backend::DispatchTensor;
use burn::config::Config;
use burn::module::{Flag, Module, ModuleMapper, Param, RunningState};
use burn::tensor::{Device, Tensor};
use mbconv_kernels::optimizer_step::lerp;
use mbconv_kernels::{Activation, Statistics, batch_norm_activation, channel_statistics, synchronize};

/// The statistics that a batch-norm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormMode {
    /// The statistics of the batch, which also update the running statistics.
    Train,
    /// The running statistics, which stay as they are, while γ and β are trained. For fine-tuning
    /// with small batches.
    Frozen,
    /// The running statistics, for validation and prediction.
    Eval,
}

/// Batch normalization of channels-last feature maps, followed by an activation.
///
/// Unlike Burn's, it can be frozen, and its running variance is the unbiased estimate, as in
/// PyTorch. It uses batch statistics on a device with autodiff and running statistics on any other
/// device, and after [`valid`](Module::valid).
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// γ, shape `[C]`.
    pub gamma: Param<Tensor<1>>,
    /// β, shape `[C]`.
    pub beta: Param<Tensor<1>>,
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

/// Constants of a [`BatchNorm`]. The defaults are PyTorch's.
#[derive(Config, Debug, PartialEq)]
pub struct BatchNormConfig {
    /// Channels.
    pub channels: usize,
    /// Added to the variance.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Weight of the new value in the running statistics.
    #[config(default = 0.1)]
    pub momentum: f64,
}

impl BatchNormConfig {
    /// Builds the layer with γ 1, β 0, running mean 0 and running variance 1.
    pub fn init(&self, device: &Device) -> BatchNorm {
        let Self { channels, epsilon, momentum } = *self;
        BatchNorm {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            training: Param::from_bool(true),
            frozen: false,
            epsilon,
            momentum,
        }
    }
}

impl BatchNorm {
    /// Returns the mode for an input on `device`.
    pub fn mode(&self, device: &Device) -> NormMode {
        match (device.is_autodiff() && self.training.is_enabled(), self.frozen) {
            (false, _) => NormMode::Eval,
            (true, true) => NormMode::Frozen,
            (true, false) => NormMode::Train,
        }
    }

    /// Sets whether training keeps the running statistics as they are.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// Returns `activation(norm(x))` for `x` of shape `[N, H, W, C]`.
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
        batch_norm_activation(x, self.gamma.val(), self.beta.val(), mean, var, self.epsilon, statistics, activation)
    }

    /// Returns the scale and shift of each channel in evaluation: `norm(x) = x * scale + shift`.
    pub(crate) fn scale_and_shift(&self) -> [Tensor<1>; 2] {
        let [mean, var] = [self.running_mean.value(), self.running_var.value()];
        let scale = self.gamma.val() / var.add_scalar(self.epsilon).sqrt();
        let shift = self.beta.val() - mean * scale.clone();
        [scale, shift]
    }

    /// Returns [`scale_and_shift`](Self::scale_and_shift) in double precision.
    pub(crate) fn exact_scale_and_shift(&self) -> (Vec<f64>, Vec<f64>) {
        let [gamma, beta, mean, var] =
            [self.gamma.val(), self.beta.val(), self.running_mean.value(), self.running_var.value()]
                .map(|vector| vector.into_data().iter::<f64>().collect::<Vec<_>>());
        let scale: Vec<f64> = gamma.iter().zip(&var).map(|(gamma, var)| gamma / (var + self.epsilon).sqrt()).collect();
        let shift = (0..scale.len()).map(|i| beta[i] - mean[i] * scale[i]).collect();
        (scale, shift)
    }

    /// Updates the running statistics with the `mean` and the biased `var` of `x`.
    fn update(&self, mean: &Tensor<1>, var: &Tensor<1>, x: &Tensor<4>) {
        let [n, h, w, _] = x.dims();
        let count = synchronize::total(n * h * w);
        // A single value has no unbiased variance. PyTorch refuses it; this keeps the biased one.
        let unbiased = count / (count - 1.0).max(1.0);
        let (keep, take) = (1.0 - self.momentum, self.momentum);
        let states = [&self.running_mean, &self.running_var];
        let values = [mean, var].map(|value| value.clone().inner().into_dispatch());
        // Swapped with the batch's, so that their memory has one owner and is updated in place.
        let mut swap = |(state, value)| exchange(state, value);
        let running = states.into_iter().zip(values.clone()).map(&mut swap).collect();
        let moved = lerp(running, values.into(), [[keep, take], [keep, take * unbiased]], None);
        states.into_iter().zip(moved).for_each(|pair| drop(swap(pair)));
    }
}

/// Replaces a running statistic by `value` and returns the old one.
fn exchange(state: &RunningState<Tensor<1>>, value: DispatchTensor) -> DispatchTensor {
    let mut exchange = Exchange(value);
    // `RunningState::update` would defer this and average over threads. A clone shares its state.
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
    fn training_updates_statistics_as_pytorch_does() {
        let device = Device::default().autodiff();
        let norm = BatchNormConfig::new(1).init(&device);
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 6.0], &device).reshape([1, 2, 2, 1]);
        let y = values(norm.forward(x, Activation::Identity));
        // mean 3, biased variance 3.5, unbiased 14/3
        assert!((y[3] - 3.0 / (3.5f32 + 1e-5).sqrt()).abs() < 1e-5, "{y:?}");
        assert!((values(norm.running_mean.value())[0] - 0.3).abs() < 1e-6);
        assert!((values(norm.running_var.value())[0] - (0.9 + 0.1 * 14.0 / 3.0)).abs() < 1e-5);
    }

    #[test]
    fn frozen_norms_train_but_keep_their_statistics() {
        let device = Device::default().autodiff();
        let mut norm = BatchNormConfig::new(3).init(&device);
        norm.set_frozen(true);
        assert_eq!(norm.mode(&device), NormMode::Frozen);
        let x = Tensor::<4>::random([2, 4, 4, 3], Distribution::Normal(2.0, 1.0), &device);
        let gradients = norm.forward(x, Activation::Silu).sum().backward();
        assert!(norm.gamma.val().grad(&gradients).is_some());
        assert_eq!(values(norm.running_mean.value()), [0.0; 3]);
    }

    #[test]
    fn validation_uses_the_running_statistics() {
        let device = Device::default().autodiff();
        let norm = BatchNormConfig::new(2).init(&device);
        assert_eq!(norm.mode(&device), NormMode::Train);
        let valid = norm.valid();
        assert_eq!(valid.mode(&device.clone().inner()), NormMode::Eval);
        let x = Tensor::<4>::full([1, 1, 1, 2], 5.0, &device.inner());
        assert!((values(valid.forward(x, Activation::Identity))[0] - 5.0).abs() < 1e-4);
    }
}
