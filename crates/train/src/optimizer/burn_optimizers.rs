//! Wrappers of Burn's optimizers.

use burn::optim::{Muon, MuonState, Optimizer};
use burn::tensor::{Device, Tensor};

/// Scales the learning rate of an optimizer from Burn, for a parameter group.
#[derive(Clone)]
pub(super) struct Scaled<O> {
    pub(super) optimizer: O,
    pub(super) factor: f64,
}

impl<O: Optimizer> Optimizer for Scaled<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<O::State<D>>,
    ) -> (Tensor<D>, Option<O::State<D>>) {
        self.optimizer.step(lr * self.factor, parameter, gradient, state)
    }

    fn to_device<const D: usize>(state: O::State<D>, device: &Device) -> O::State<D> {
        O::to_device(state, device)
    }
}

/// Applies Burn's Muon, which accepts only matrices, to convolutions: reshapes
/// `[C_out, C_in, k, k]` to `[C_out, C_in·k·k]`.
#[derive(Clone)]
pub(super) struct MuonOnConvolutions(pub(super) Muon);

impl Optimizer for MuonOnConvolutions {
    type State<const D: usize> = MuonState<2>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<MuonState<2>>,
    ) -> (Tensor<D>, Option<MuonState<2>>) {
        let shape = parameter.dims();
        let matrix = [shape[0] as i64, -1];
        let (parameter, state) = self.0.step(lr, parameter.reshape(matrix), gradient.reshape(matrix), state);
        (parameter.reshape(shape), state)
    }

    fn to_device<const D: usize>(state: MuonState<2>, device: &Device) -> MuonState<2> {
        Muon::to_device(state, device)
    }
}
