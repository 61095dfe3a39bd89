//! Activations and their derivatives for one element, to be compiled into loops.

use super::simd::{Machine, exp, multiply_add, sigmoid};
use crate::types::activation::{Activation, RELU6_MAX};

/// An activation as a type, so that each loop is compiled for each activation.
pub trait ActivationFn: Copy + Send + Sync {
    /// Returns the activation at `z`.
    fn value<M: Machine>(self, z: f32) -> f32;
    /// Returns the derivative at `z`.
    fn derivative<M: Machine>(self, z: f32) -> f32;
}

/// [`Activation::Identity`]
#[derive(Clone, Copy)]
pub struct Identity;
/// [`Activation::Relu`]
#[derive(Clone, Copy)]
pub struct Relu;
/// [`Activation::Relu6`]
#[derive(Clone, Copy)]
pub struct Relu6;
/// [`Activation::Silu`]
#[derive(Clone, Copy)]
pub struct Silu;

/// The sigmoid gate of squeeze-and-excitation, which is not an activation of a layer.
#[derive(Clone, Copy)]
pub struct Sigmoid;

/// A function that is generic over the activation.
pub trait WithActivation {
    /// The result.
    type Output;
    /// Runs it with an activation.
    fn with<A: ActivationFn>(self, activation: A) -> Self::Output;
}

/// Runs `body` with the type of an activation.
pub fn with<W: WithActivation>(activation: Activation, body: W) -> W::Output {
    match activation {
        Activation::Identity => body.with(Identity),
        Activation::Relu => body.with(Relu),
        Activation::Relu6 => body.with(Relu6),
        Activation::Silu => body.with(Silu),
    }
}

impl ActivationFn for Identity {
    #[inline(always)]
    fn value<M: Machine>(self, z: f32) -> f32 {
        z
    }
    #[inline(always)]
    fn derivative<M: Machine>(self, _: f32) -> f32 {
        1.0
    }
}

impl ActivationFn for Relu {
    // Uses a comparison rather than `max`, so that NaN stays NaN.
    #[inline(always)]
    fn value<M: Machine>(self, z: f32) -> f32 {
        if 0.0 > z { 0.0 } else { z }
    }
    #[inline(always)]
    fn derivative<M: Machine>(self, z: f32) -> f32 {
        if z <= 0.0 { 0.0 } else { 1.0 }
    }
}

impl ActivationFn for Relu6 {
    // Comparisons rather than `clamp`, so that NaN stays NaN. In this order each is one
    // instruction.
    #[inline(always)]
    fn value<M: Machine>(self, z: f32) -> f32 {
        let z = if 0.0 > z { 0.0 } else { z };
        if (RELU6_MAX as f32) < z { RELU6_MAX as f32 } else { z }
    }
    #[inline(always)]
    fn derivative<M: Machine>(self, z: f32) -> f32 {
        if z <= 0.0 || z >= RELU6_MAX as f32 { 0.0 } else { 1.0 }
    }
}

impl ActivationFn for Silu {
    #[inline(always)]
    fn value<M: Machine>(self, z: f32) -> f32 {
        z / (1.0 + exp::<M>(-z))
    }
    #[inline(always)]
    fn derivative<M: Machine>(self, z: f32) -> f32 {
        let s = sigmoid::<M>(z);
        s * multiply_add::<M>(z, 1.0 - s, 1.0)
    }
}

impl ActivationFn for Sigmoid {
    #[inline(always)]
    fn value<M: Machine>(self, z: f32) -> f32 {
        sigmoid::<M>(z)
    }
    #[inline(always)]
    fn derivative<M: Machine>(self, z: f32) -> f32 {
        let s = sigmoid::<M>(z);
        s * (1.0 - s)
    }
}
