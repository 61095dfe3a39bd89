//! Gradient clipping.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use mbconv_nets::Network;

use crate::device::is_host;

/// Lower bound of the weight norm in adaptive clipping, so that zero weights can grow (timm's
/// value).
const SHORTEST: f64 = 1e-3;

/// Gradient-clipping settings, applied before an optimizer step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clipping {
    /// Largest global norm.
    pub norm: Option<f64>,
    /// Largest norm of a unit's gradient, relative to the norm of its weights.
    pub adaptive: Option<f64>,
}

impl Clipping {
    /// Clips the gradients of `network`: first adaptively, then by global norm.
    pub fn apply(&self, network: &Network, gradients: &mut GradientsParams) {
        if let Some(share) = self.adaptive {
            network.visit(&mut Adaptive { gradients, share, in_classifier: false });
        }
        if let Some(longest) = self.norm {
            // As in torch.nn.utils.clip_grad_norm_.
            let device = network.classifier.bias.val().device().inner();
            if is_host(&device) {
                let factor = longest / (global_norm(network, gradients) + 1e-6);
                if factor < 1.0 {
                    scale(network, gradients, factor);
                }
            } else if let Some(sum) = sum_of_squares(network, gradients) {
                // Computes the factor on the device, to avoid a synchronization.
                let factor = sum.sqrt().add_scalar(1e-6).recip().mul_scalar(longest).clamp_max(1.0);
                network.visit(&mut ScaleBy { gradients, factor });
            }
        }
    }
}

/// Returns the Euclidean norm of all gradients together.
pub fn global_norm(network: &Network, gradients: &GradientsParams) -> f64 {
    sum_of_squares(network, gradients).map_or(0.0, |sum| f64::from(sum.into_scalar::<f32>())).sqrt()
}

fn sum_of_squares(network: &Network, gradients: &GradientsParams) -> Option<Tensor<1>> {
    let mut norm = SquaredNorm { gradients, sum: None };
    network.visit(&mut norm);
    norm.sum
}

/// Multiplies all gradients by `factor`.
pub fn scale(network: &Network, gradients: &mut GradientsParams, factor: f64) {
    network.visit(&mut Scale { gradients, factor });
}

struct SquaredNorm<'a> {
    gradients: &'a GradientsParams,
    /// Accumulated on the device.
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let squared = gradient.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + squared,
                None => squared,
            });
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient.mul_scalar(self.factor));
        }
    }
}

struct ScaleBy<'a> {
    gradients: &'a mut GradientsParams,
    /// Shape `[1]`, on the device.
    factor: Tensor<1>,
}

impl ModuleVisitor for ScaleBy<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor.clone().reshape([1; D]));
        }
    }
}

struct Adaptive<'a> {
    gradients: &'a mut GradientsParams,
    share: f64,
    in_classifier: bool,
}

impl ModuleVisitor for Adaptive<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.in_classifier |= name == "classifier";
    }
    fn exit_module(&mut self, name: &str, _: &str) {
        self.in_classifier &= name != "classifier";
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.in_classifier {
            return;
        }
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let clipped = clip_units(param.val().inner(), gradient, self.share);
            self.gradients.register(param.id, clipped);
        }
    }
}

/// Limits the norm of each unit's gradient to `share` times the norm of its weights. A unit is an
/// output channel, or a whole vector.
fn clip_units<const D: usize>(weights: Tensor<D>, gradient: Tensor<D>, share: f64) -> Tensor<D> {
    let shape = gradient.dims();
    let units = if D > 1 { shape[0] as i64 } else { 1 };
    let norm = |tensor: Tensor<D>| tensor.reshape([units, -1]).square().sum_dim(1).sqrt();
    let longest = norm(weights).clamp_min(SHORTEST).mul_scalar(share);
    let factor = (longest / norm(gradient.clone()).clamp_min(1e-6)).clamp_max(1.0);
    (gradient.reshape([units, -1]) * factor).reshape(shape)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};
    use mbconv_nets::MobileNetV2Config;

    use super::*;

    #[test]
    fn adaptive_clipping_limits_each_unit_separately() {
        let device = Device::default();
        let weights = Tensor::<2>::from_floats([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]], &device);
        let gradient = Tensor::from_floats([[0.6, 0.8], [0.3, 0.4], [0.006, 0.008]], &device);
        let clipped: Vec<f32> = clip_units(weights, gradient, 0.01).into_data().try_to_vec().unwrap();
        // The limits are 0.05, 0.00001 and 0.05.
        for (found, expected) in clipped.iter().zip([0.03, 0.04, 6e-6, 8e-6, 0.006, 0.008]) {
            assert!((found - expected).abs() < 1e-7, "{clipped:?}");
        }
        // A vector is one unit.
        let clipped =
            clip_units(Tensor::<1>::from_floats([3.0, 4.0], &device), Tensor::from_floats([6.0, 8.0], &device), 0.1);
        assert_eq!(clipped.into_data().try_to_vec::<f32>().unwrap(), [0.3, 0.4]);
    }

    #[test]
    fn norm_clipping_bounds_the_global_norm_and_keeps_small_gradients() {
        let device = Device::default().autodiff();
        let network = MobileNetV2Config::new(2).with_width(0.1).with_dropout(0.0).init(&device);
        let images = Tensor::<4>::random([4, 3, 64, 64], Distribution::Default, &device);
        let gradients = || {
            let loss = network.forward(images.clone()).square().sum().mul_scalar(100.0);
            GradientsParams::from_grads(loss.backward(), &network)
        };
        let mut clipped = gradients();
        let norm = global_norm(&network, &clipped);
        assert!(norm > 0.0);
        Clipping { norm: Some(norm / 3.0), adaptive: None }.apply(&network, &mut clipped);
        assert!((global_norm(&network, &clipped) / norm - 1.0 / 3.0).abs() < 1e-4);
        let mut kept = gradients();
        Clipping { norm: Some(norm * 3.0), adaptive: None }.apply(&network, &mut kept);
        assert!((global_norm(&network, &kept) / norm - 1.0).abs() < 1e-6);
    }
}
