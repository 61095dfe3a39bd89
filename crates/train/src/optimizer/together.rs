//! Optimizer steps of all parameters at once. Burn calls an optimizer for one parameter after the
//! other, which would need one or more kernel launches for each on a GPU. [`Noting`] only records
//! the steps, and [`NetworkOptimizer`] then runs all of them together.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::DispatchTensor;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource};
use burn::store::RecordError;
use burn::tensor::{Bytes, Device, Tensor};
use mbconv_kernels::optimizer_step::{OptimizerTensors, SCALARS, StepScalars, optimizer_step};
use mbconv_nets::Network;

use super::rule::Rule;
use crate::device::is_host;

/// The optimizer of a network, including its state.
pub struct NetworkOptimizer {
    optimizer: ModuleOptimizer,
    notes: Notes,
    /// Parameters updated in the last step, grouped by rule and number of steps.
    moved: Vec<Moved>,
}

/// Parameters with the same rule that have taken the same number of steps.
struct Moved {
    rule: Rule,
    /// Step counter of each parameter.
    steps: Vec<Arc<AtomicUsize>>,
}

impl NetworkOptimizer {
    pub(super) fn new(optimizer: ModuleOptimizer, notes: Notes) -> Self {
        Self { optimizer, notes, moved: Vec::new() }
    }

    /// Returns the network after one optimizer step. All gradients must be on the same device.
    pub fn step(&mut self, lr: f64, network: Network, gradients: GradientsParams) -> Network {
        self.step_by(lr, network, gradients, None)
    }

    /// Runs a step like [`NetworkOptimizer::step`], but reads the constants of the rules from
    /// `numbers`, where [`NetworkOptimizer::numbers`] were stored, so that the step can be replayed
    /// with other constants. Those of Burn's own optimizers do not change on a replay.
    pub(crate) fn step_by(
        &mut self,
        lr: f64,
        network: Network,
        gradients: GradientsParams,
        numbers: Option<StepScalars>,
    ) -> Network {
        let network = self.optimizer.step(lr, network, gradients);
        let notes = mem::take(&mut *self.notes.open());
        if notes.is_empty() {
            return network;
        }
        let alike = alike(notes);
        self.moved = alike.iter().map(|notes| Moved::of(notes)).collect();
        network.map(&mut Replace(taken(lr, alike, numbers)))
    }

    /// Returns the constants of a step like the last one, with the learning rate `lr`.
    pub(crate) fn numbers(&self, lr: f64) -> Vec<f32> {
        self.moved.iter().flat_map(|moved| moved.rule.optimizer_step(lr, moved.taken() + 1).scalars()).collect()
    }

    /// Counts a replay of the last step.
    pub(crate) fn count_step(&self) {
        self.counters().for_each(|steps| _ = steps.fetch_add(1, Ordering::Relaxed));
    }

    /// Uncounts the last step, which was not run.
    pub(crate) fn uncount_step(&self) {
        self.counters().for_each(|steps| _ = steps.fetch_sub(1, Ordering::Relaxed));
    }

    fn counters(&self) -> impl Iterator<Item = &AtomicUsize> {
        self.moved.iter().flat_map(|moved| &moved.steps).map(|steps| &**steps)
    }

    /// Serializes the optimizer state in Burn's record format.
    ///
    /// # Errors
    ///
    /// Returns Burn's error if the state cannot be serialized.
    pub fn into_bytes(&self) -> Result<Bytes, RecordError> {
        self.optimizer.into_bytes()
    }

    /// Returns this optimizer with the state written by [`NetworkOptimizer::into_bytes`].
    ///
    /// # Errors
    ///
    /// Returns Burn's error if `bytes` are not a valid record.
    pub fn from_bytes(self, bytes: Bytes) -> Result<Self, RecordError> {
        Ok(Self { optimizer: self.optimizer.from_bytes(bytes)?, notes: self.notes, moved: Vec::new() })
    }
}

impl Moved {
    fn of(notes: &[Note]) -> Self {
        Self { rule: notes[0].rule, steps: notes.iter().map(|note| Arc::clone(&note.steps)).collect() }
    }

    /// Returns the number of steps taken.
    fn taken(&self) -> usize {
        self.steps.first().map_or(0, |steps| steps.load(Ordering::Relaxed))
    }
}

/// A recorded step of a parameter.
pub(super) struct Note {
    id: ParamId,
    rule: Rule,
    /// Step count of the parameter, including this step.
    steps: Arc<AtomicUsize>,
    parameter: DispatchTensor,
    gradient: DispatchTensor,
    moments: [Option<DispatchTensor>; 2],
    /// Stores the moments after the step.
    keep: Box<dyn FnOnce([Option<DispatchTensor>; 2]) + Send>,
}

/// The recorded steps, shared by all [`Noting`] optimizers of a network.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    fn open(&self) -> MutexGuard<'_, Vec<Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Implements Burn's `Optimizer` for one parameter with a [`Rule`]. On a CPU it runs the step
/// immediately; on a GPU it records the step.
#[derive(Clone)]
pub(super) struct Noting {
    pub(super) id: ParamId,
    pub(super) rule: Rule,
    pub(super) notes: Notes,
}

/// The optimizer state of a parameter. The moments are absent while a step is recorded but not run.
pub(super) struct RuleState<const D: usize> {
    /// Shared with the recorded step.
    moments: Arc<Mutex<[Option<Tensor<D>>; 2]>>,
    /// Steps taken, shared with [`NetworkOptimizer`], which counts replays.
    steps: Arc<AtomicUsize>,
}

impl<const D: usize> RuleState<D> {
    fn new(moments: [Option<Tensor<D>>; 2], steps: usize) -> Self {
        Self { moments: Arc::new(Mutex::new(moments)), steps: Arc::new(AtomicUsize::new(steps)) }
    }

    fn steps(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }

    fn moments(&self) -> MutexGuard<'_, [Option<Tensor<D>>; 2]> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const D: usize> Clone for RuleState<D> {
    /// Copies the state, so that a step of the original does not take the moments of the clone.
    fn clone(&self) -> Self {
        Self::new(self.moments().clone(), self.steps())
    }
}

/// Names of the moments in a record.
const MOMENTS: [&str; 2] = ["first", "second"];

impl<const D: usize> RecordState for RuleState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        for (name, moment) in MOMENTS.into_iter().zip(self.moments().iter()) {
            if let Some(moment) = moment {
                out.push_tensor(prefix, name, moment.to_data());
            }
        }
        out.push_scalar(prefix, "steps", self.steps().into());
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, device: &Device) -> Option<Self> {
        let moments = MOMENTS.map(|name| source.take_tensor(prefix, name).map(|data| Tensor::from_data(data, device)));
        let steps = usize::try_from(source.take_scalar(prefix, "steps")?).ok()?;
        Some(Self::new(moments, steps))
    }
}

impl Optimizer for Noting {
    type State<const D: usize> = RuleState<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<RuleState<D>>,
    ) -> (Tensor<D>, Option<RuleState<D>>) {
        let device = parameter.device();
        let state = state.unwrap_or_else(|| {
            let start = self.rule.start();
            RuleState::new(start.map(|start| start.map(|value| Tensor::full(parameter.dims(), value, &device))), 0)
        });
        state.steps.fetch_add(1, Ordering::Relaxed);
        let moments = mem::take(&mut *state.moments());
        let kept = Arc::clone(&state.moments);
        // On a GPU the gradient is a placeholder for the parameter until the step runs, because the
        // step needs the only reference to the parameter's memory.
        let stand_in = (!is_host(&device)).then(|| gradient.clone());
        let note = Note {
            id: self.id,
            rule: self.rule,
            steps: Arc::clone(&state.steps),
            parameter: parameter.into_dispatch(),
            gradient: gradient.into_dispatch(),
            moments: moments.map(|moment| moment.map(Tensor::into_dispatch)),
            keep: Box::new(move |moments| {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                *kept = moments.map(|moment| moment.map(Tensor::from_dispatch));
            }),
        };
        let parameter = match stand_in {
            Some(stand_in) => {
                self.notes.open().push(note);
                stand_in
            }
            None => Tensor::from_dispatch(taken(lr, vec![vec![note]], None)[&self.id].clone()),
        };
        (parameter, Some(state))
    }

    fn to_device<const D: usize>(state: RuleState<D>, device: &Device) -> RuleState<D> {
        let moments = mem::take(&mut *state.moments());
        RuleState::new(moments.map(|moment| moment.map(|moment| moment.to_device(device))), state.steps())
    }
}

/// Groups notes by rule and step count. The order of the groups follows from that of `notes`.
fn alike(notes: Vec<Note>) -> Vec<Vec<Note>> {
    let mut alike: Vec<Vec<Note>> = Vec::new();
    let kind = |note: &Note| (note.rule, note.steps.load(Ordering::Relaxed));
    for note in notes {
        match alike.iter_mut().find(|notes| kind(&notes[0]) == kind(&note)) {
            Some(notes) => notes.push(note),
            None => alike.push(vec![note]),
        }
    }
    alike
}

/// Runs the steps of each group and returns the updated parameters. `numbers` contains the
/// constants of the groups one after the other.
fn taken(lr: f64, alike: Vec<Vec<Note>>, numbers: Option<StepScalars>) -> HashMap<ParamId, DispatchTensor> {
    let mut parameters = HashMap::new();
    for (index, notes) in alike.into_iter().enumerate() {
        let Some(first) = notes.first() else { continue };
        let step = first.rule.optimizer_step(lr, first.steps.load(Ordering::Relaxed));
        let numbers =
            numbers.clone().map(|StepScalars { all, start }| StepScalars { all, start: start + SCALARS * index });
        let mut tensors =
            OptimizerTensors { parameters: Vec::new(), gradients: Vec::new(), moments: Default::default() };
        let mut keepers = Vec::new();
        for Note { id, parameter, gradient, moments, keep, .. } in notes {
            tensors.parameters.push(parameter);
            tensors.gradients.push(gradient);
            for (list, moment) in tensors.moments.iter_mut().zip(moments) {
                list.extend(moment);
            }
            keepers.push((id, keep));
        }
        let (moved, moments) = optimizer_step(tensors, step, numbers);
        let mut moments = moments.map(Vec::into_iter);
        for ((id, keep), parameter) in keepers.into_iter().zip(moved) {
            keep(moments.each_mut().map(Iterator::next));
            parameters.insert(id, parameter);
        }
    }
    parameters
}

/// Replaces the placeholders by the updated parameters.
struct Replace(HashMap<ParamId, DispatchTensor>);

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(parameter) = self.0.remove(&param.id) else { return param };
        let (id, stand_in, mapper) = param.consume();
        let mut parameter = Tensor::from_inner(Tensor::from_dispatch(parameter));
        if let Some(strategy) = stand_in.gradient_checkpointing_strategy() {
            parameter = parameter.with_gradient_checkpointing_strategy(strategy);
        }
        Param::from_mapped_value(id, parameter.set_require_grad(stand_in.is_require_grad()), mapper)
    }
}
