//! From the integer sums of a layer to its output.

use super::{
    description::{Layer, Quantizer, Weights},
    machine::{Machine, Vector, round},
    reference::bounds,
};
use crate::{
    cpu::{
        activation::{ActivationFn, Sigmoid, Silu},
        buffer::Aligned,
    },
    types::Activation,
};

/// Most lanes of a vector.
pub const LANES: usize = 16;

/// A function that is not piecewise linear.
#[derive(Clone, Copy, Debug)]
enum Smooth {
    Silu,
    Sigmoid,
}

/// Rounds the sums of each output channel to 8 bits.
#[derive(Debug)]
pub struct Rounding {
    /// By channel, padded to whole vectors: output steps per unit of the sum, or its real value for
    /// a smooth function.
    multipliers: Aligned,
    smooth: Option<Smooth>,
    /// Limits in steps from the zero point.
    limits: [f32; 2],
    output: Quantizer,
}

impl Rounding {
    /// Returns the rounding of an 8-bit layer, or with the sigmoid as its activation.
    pub fn new(layer: &Layer, sigmoid: bool) -> Self {
        let Layer { activation, input, output, .. } = *layer;
        let smooth = match activation {
            _ if sigmoid => Some(Smooth::Sigmoid),
            Activation::Silu => Some(Smooth::Silu),
            _ => None,
        };
        let limits = bounds(activation, output).filter(|_| smooth.is_none());
        let limits = limits.unwrap_or([-f32::from(output.zero_point), 255.0 - f32::from(output.zero_point)]);
        let mut multipliers = Aligned::zeros(layer.outputs.next_multiple_of(2 * LANES));
        let Weights::Int8 { scales, .. } = &layer.weights else { panic!("a layer in single precision") };
        for (to, scale) in multipliers.iter_mut().zip(scales) {
            let real = input.scale * scale;
            *to = if smooth.is_some() { real } else { real / output.scale };
        }
        Self { multipliers, smooth, limits, output }
    }

    /// Returns whether there are multipliers for `channels` rounded up to whole vectors.
    pub fn covers(&self, channels: usize) -> bool {
        channels.next_multiple_of(LANES) <= self.multipliers.len()
    }

    /// Rounds the sums of several pixels, each of the channels from `channel` on.
    ///
    /// # Safety
    /// [`Self::covers`] must hold for the last of the channels.
    #[inline(always)]
    pub unsafe fn apply<const N: usize, const VECTORS: usize, M: Machine>(
        &self,
        sums: &mut [[M::Vector; VECTORS]; N],
        channel: usize,
    ) {
        let (zero, [low, high]) = (i32::from(self.output.zero_point), self.limits);
        let width = M::Vector::WIDTH;
        // SAFETY: the caller's promise.
        let multipliers = unsafe { self.multipliers.as_ptr().add(channel) };
        let Some(smooth) = self.smooth else {
            for sums in sums {
                for (vector, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *sums = unsafe { sums.requantize(multipliers.add(vector * width), self.limits, zero) };
                }
            }
            return;
        };
        // SAFETY: as above.
        let real = |lane: usize, sum: i32| sum as f32 * unsafe { *multipliers.add(lane) };
        let steps = |value: f32| round((value / self.output.scale).clamp(low, high)) + zero;
        // The array of this loop stays in memory: a copy, not the caller's.
        let mut copy = *sums;
        for sums in &mut copy {
            for (vector, sums) in sums.iter_mut().enumerate() {
                let first = vector * width;
                *sums = match smooth {
                    Smooth::Silu => sums.map(|lane, sum| steps(Silu.value::<M::Real>(real(first + lane, sum)))),
                    Smooth::Sigmoid => sums.map(|lane, sum| steps(Sigmoid.value::<M::Real>(real(first + lane, sum)))),
                };
            }
        }
        *sums = copy;
    }
}

/// Adds two 8-bit numbers of different scales.
#[derive(Clone, Copy, Debug)]
pub struct Addition {
    zeros: [i32; 2],
    /// Steps of the sum per step of each number.
    multipliers: [f32; 2],
    zero: i32,
    limits: [f32; 2],
}

impl Addition {
    /// Returns the addition of numbers of two quantizers to a sum of a third.
    pub fn new(a: Quantizer, b: Quantizer, sum: Quantizer) -> Self {
        let zero = i32::from(sum.zero_point);
        Self {
            zeros: [i32::from(a.zero_point), i32::from(b.zero_point)],
            multipliers: [a.scale / sum.scale, b.scale / sum.scale],
            zero,
            limits: [-zero as f32, (255 - zero) as f32],
        }
    }

    /// Returns the sum.
    #[inline(always)]
    pub fn sum(self, a: i32, b: i32) -> i32 {
        let [a, b] = [a - self.zeros[0], b - self.zeros[1]].map(|steps| steps as f32);
        let steps = a * self.multipliers[0] + b * self.multipliers[1];
        round(steps.clamp(self.limits[0], self.limits[1])) + self.zero
    }
}
