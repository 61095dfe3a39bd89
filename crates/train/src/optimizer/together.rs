//! Steps of all parameters at once: Burn hands an optimizer one parameter after the other, which on a GPU would be a launch, or
//! several, for each. [`Noting`] only notes what is to be done, and [`NetworkOptimizer`] does all of it together.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::DispatchTensor;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource};
use burn::store::RecordError;
use burn::tensor::{Bytes, Device, Tensor};
use mbconv_kernels::descent::{Descending, NUMBERS, Numbers, descend};
use mbconv_nets::Network;

use super::rule::Rule;
use crate::device::is_host;

/// The optimizer of a network, with what it remembers of every parameter.
pub struct NetworkOptimizer {
    optimizer: ModuleOptimizer,
    notes: Notes,
    /// How parameters moved in the last step, those together that moved alike.
    moved: Vec<Moved>,
}

/// Parameters of one rule that have taken as many steps.
struct Moved {
    rule: Rule,
    /// Each parameter's steps.
    steps: Vec<Arc<AtomicUsize>>,
}

impl NetworkOptimizer {
    pub(super) fn new(optimizer: ModuleOptimizer, notes: Notes) -> Self {
        Self { optimizer, notes, moved: Vec::new() }
    }

    /// The network after one update along `gradients`, which are of parameters that share a device.
    pub fn step(&mut self, lr: f64, network: Network, gradients: GradientsParams) -> Network {
        self.step_by(lr, network, gradients, None)
    }

    /// The same, reading the numbers of its rules where [`NetworkOptimizer::numbers`] were put, so that it can be repeated with others. Those of
    /// Burn's own optimizers stay as they are.
    pub(crate) fn step_by(
        &mut self,
        lr: f64,
        network: Network,
        gradients: GradientsParams,
        numbers: Option<Numbers>,
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

    /// The numbers of a step like the last one, at another rate.
    pub(crate) fn numbers(&self, lr: f64) -> Vec<f32> {
        self.moved.iter().flat_map(|moved| moved.rule.descent(lr, moved.taken() + 1).numbers()).collect()
    }

    /// Remembers that a step like the last one was repeated.
    pub(crate) fn count_step(&self) {
        self.counters().for_each(|steps| _ = steps.fetch_add(1, Ordering::Relaxed));
    }

    /// Forgets the last step, which was not run.
    pub(crate) fn uncount_step(&self) {
        self.counters().for_each(|steps| _ = steps.fetch_sub(1, Ordering::Relaxed));
    }

    fn counters(&self) -> impl Iterator<Item = &AtomicUsize> {
        self.moved.iter().flat_map(|moved| &moved.steps).map(|steps| &**steps)
    }

    /// What is remembered of every parameter, as Burn writes it.
    ///
    /// # Errors
    ///
    /// What Burn says.
    pub fn into_bytes(&self) -> Result<Bytes, RecordError> {
        self.optimizer.into_bytes()
    }

    /// This optimizer, remembering what [`NetworkOptimizer::into_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// What Burn says of bytes that are none of its own.
    pub fn from_bytes(self, bytes: Bytes) -> Result<Self, RecordError> {
        Ok(Self { optimizer: self.optimizer.from_bytes(bytes)?, notes: self.notes, moved: Vec::new() })
    }
}

impl Moved {
    fn of(notes: &[Note]) -> Self {
        Self { rule: notes[0].rule, steps: notes.iter().map(|note| Arc::clone(&note.steps)).collect() }
    }

    /// Steps taken.
    fn taken(&self) -> usize {
        self.steps.first().map_or(0, |steps| steps.load(Ordering::Relaxed))
    }
}

/// The step of a parameter that was put off.
pub(super) struct Note {
    id: ParamId,
    rule: Rule,
    /// Steps of the parameter, this one included.
    steps: Arc<AtomicUsize>,
    parameter: DispatchTensor,
    gradient: DispatchTensor,
    moments: [Option<DispatchTensor>; 2],
    /// Keeps the moments after the step.
    keep: Box<dyn FnOnce([Option<DispatchTensor>; 2]) + Send>,
}

/// What was put off, by all who share it.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    fn open(&self) -> MutexGuard<'_, Vec<Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`Rule`] for one parameter, as Burn's optimizer. Where memory is the processor's it steps at once.
#[derive(Clone)]
pub(super) struct Noting {
    pub(super) id: ParamId,
    pub(super) rule: Rule,
    pub(super) notes: Notes,
}

/// What a rule remembers of a parameter. Moments are away while a step is put off.
pub(super) struct RuleState<const D: usize> {
    /// Shared with the step that is put off.
    moments: Arc<Mutex<[Option<Tensor<D>>; 2]>>,
    /// Steps taken; shared with whoever repeats them.
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
    /// Moments of its own, which a step of the original does not take away.
    fn clone(&self) -> Self {
        Self::new(self.moments().clone(), self.steps())
    }
}

/// The names of moments in a record.
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
        // On a GPU something of the same shape stands in for the parameter, of which no one else may hold the memory.
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

/// Those of one rule and as many steps together, in an order that follows from that of `notes`.
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

/// Takes the steps of notes that are alike, and returns the parameters. The numbers of each such step follow each other in `numbers`.
fn taken(lr: f64, alike: Vec<Vec<Note>>, numbers: Option<Numbers>) -> HashMap<ParamId, DispatchTensor> {
    let mut parameters = HashMap::new();
    for (index, notes) in alike.into_iter().enumerate() {
        let Some(first) = notes.first() else { continue };
        let descent = first.rule.descent(lr, first.steps.load(Ordering::Relaxed));
        let numbers = numbers.clone().map(|Numbers { all, start }| Numbers { all, start: start + NUMBERS * index });
        let mut tensors = Descending { parameters: Vec::new(), gradients: Vec::new(), moments: Default::default() };
        let mut keepers = Vec::new();
        for Note { id, parameter, gradient, moments, keep, .. } in notes {
            tensors.parameters.push(parameter);
            tensors.gradients.push(gradient);
            for (list, moment) in tensors.moments.iter_mut().zip(moments) {
                list.extend(moment);
            }
            keepers.push((id, keep));
        }
        let (moved, moments) = descend(tensors, descent, numbers);
        let mut moments = moments.map(Vec::into_iter);
        for ((id, keep), parameter) in keepers.into_iter().zip(moved) {
            keep(moments.each_mut().map(Iterator::next));
            parameters.insert(id, parameter);
        }
    }
    parameters
}

/// Puts parameters in the place of what stood in for them.
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
