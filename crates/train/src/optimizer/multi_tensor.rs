//! Optimizer steps of all parameters at once. On a GPU, a step for one parameter after the other
//! would need one or more kernel launches for each.

use std::collections::HashMap;
use std::mem;

use burn::backend::DispatchTensor;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::store::RecordError;
use burn::tensor::{Bytes, Device, Tensor, TensorData};
use mbconv_kernels::optimizer_step::{OptimizerTensors, SCALARS, StepScalars, optimizer_step};
use mbconv_nets::Network;

use super::record::Record;
use super::rule::Rule;
use crate::device::is_host;
use crate::params::{replace, with_autodiff_of};

/// Names of the moments in a record.
const MOMENTS: [&str; 2] = ["first", "second"];
/// Name of the number of steps in a record.
const STEPS: &str = "steps";

/// The optimizer of a network, including its state.
pub struct NetworkOptimizer {
    /// Update rules of the parameters that Burn's optimizers do not update.
    rules: HashMap<ParamId, Rule>,
    /// States of these parameters, from their first step on.
    states: HashMap<ParamId, RuleState>,
    /// LAMB, Adan or Muon.
    burn: Option<ModuleOptimizer>,
    /// Parameters updated in the last step, grouped by rule and number of steps.
    last: Vec<(Rule, Vec<ParamId>)>,
}

/// The state of a parameter.
struct RuleState {
    /// The moments that the rule uses.
    moments: [Option<Moment>; 2],
    /// Number of steps taken.
    steps: usize,
    /// Rank of the parameter, and its path in the network, for records.
    rank: usize,
    path: String,
}

/// A moment of a parameter.
enum Moment {
    /// From a record, before the first step.
    Saved(TensorData),
    /// On the device.
    OnDevice(DispatchTensor),
}

/// A step of a parameter that is yet to be run.
struct Step {
    id: ParamId,
    rule: Rule,
    /// Step count of the parameter, including this step.
    count: usize,
    parameter: DispatchTensor,
    gradient: DispatchTensor,
    moments: [Option<DispatchTensor>; 2],
}

impl NetworkOptimizer {
    pub(super) fn new(rules: HashMap<ParamId, Rule>, burn: Option<ModuleOptimizer>) -> Self {
        Self { rules, states: HashMap::new(), burn, last: Vec::new() }
    }

    /// Returns the network after one optimizer step. All gradients must be on the same device.
    pub fn step(&mut self, lr: f64, network: Network, gradients: GradientsParams) -> Network {
        self.step_from(lr, network, gradients, None)
    }

    /// Runs a step like [`NetworkOptimizer::step`], but reads the constants of the rules from
    /// `scalars`, where [`NetworkOptimizer::scalars`] were stored, so that the step can be replayed
    /// with other constants. Those of Burn's own optimizers do not change on a replay.
    pub(crate) fn step_from(
        &mut self,
        lr: f64,
        network: Network,
        mut gradients: GradientsParams,
        scalars: Option<StepScalars>,
    ) -> Network {
        let Self { rules, states, .. } = self;
        let mut take = Take { rules, states, gradients: &mut gradients, path: Vec::new(), steps: Vec::new() };
        let network = network.map(&mut take);
        let groups = by_kind(take.steps);
        let ids = |group: &[Step]| group.iter().map(|step| step.id).collect();
        self.last = groups.iter().map(|group| (group[0].rule, ids(group))).collect();
        let network = replace(network, self.run(lr, groups, scalars));
        match &mut self.burn {
            Some(burn) => burn.step(lr, network, gradients),
            None => network,
        }
    }

    /// Runs the steps of each group and returns the updated parameters. `scalars` contains the
    /// constants of the groups one after the other.
    fn run(
        &mut self,
        lr: f64,
        groups: Vec<Vec<Step>>,
        scalars: Option<StepScalars>,
    ) -> HashMap<ParamId, DispatchTensor> {
        let mut parameters = HashMap::new();
        for (index, steps) in groups.into_iter().enumerate() {
            let step = steps[0].rule.optimizer_step(lr, steps[0].count);
            let scalars =
                scalars.clone().map(|StepScalars { all, start }| StepScalars { all, start: start + SCALARS * index });
            let mut tensors =
                OptimizerTensors { parameters: Vec::new(), gradients: Vec::new(), moments: Default::default() };
            let mut ids = Vec::new();
            for Step { id, parameter, gradient, moments, .. } in steps {
                ids.push(id);
                tensors.parameters.push(parameter);
                tensors.gradients.push(gradient);
                for (list, moment) in tensors.moments.iter_mut().zip(moments) {
                    list.extend(moment);
                }
            }
            let (updated, moments) = optimizer_step(tensors, step, scalars);
            let mut moments = moments.map(Vec::into_iter);
            for (id, parameter) in ids.into_iter().zip(updated) {
                let moments = moments.each_mut().map(|list| list.next().map(Moment::OnDevice));
                self.states.entry(id).and_modify(|state| state.moments = moments);
                parameters.insert(id, parameter);
            }
        }
        parameters
    }

    /// Returns the constants of a step like the last one, with the learning rate `lr`.
    pub(crate) fn scalars(&self, lr: f64) -> Vec<f32> {
        let steps = |ids: &[ParamId]| ids.first().and_then(|id| self.states.get(id)).map_or(0, |state| state.steps);
        self.last.iter().flat_map(|(rule, ids)| rule.optimizer_step(lr, steps(ids) + 1).scalars()).collect()
    }

    /// Counts a replay of the last step.
    pub(crate) fn count_step(&mut self) {
        self.change_counts(|count| count + 1);
    }

    /// Uncounts the last step, which was not run.
    pub(crate) fn uncount_step(&mut self) {
        self.change_counts(|count| count - 1);
    }

    fn change_counts(&mut self, change: impl Fn(usize) -> usize) {
        for id in self.last.iter().flat_map(|(_, ids)| ids) {
            self.states.entry(*id).and_modify(|state| state.steps = change(state.steps));
        }
    }

    /// Serializes the optimizer state in Burn's record format.
    ///
    /// # Errors
    ///
    /// Returns Burn's error if the state cannot be serialized.
    pub fn into_bytes(&self) -> Result<Bytes, RecordError> {
        let mut record = Record::default();
        for (&id, state) in &self.states {
            record.add(id, state.rank, &state.path);
            record.add_scalar(id, STEPS, state.steps);
            for (name, moment) in MOMENTS.into_iter().zip(&state.moments) {
                if let Some(moment) = moment {
                    record.add_tensor(id, name, moment.to_data(state.rank));
                }
            }
        }
        if let Some(burn) = &self.burn {
            record.extend(Record::from_bytes(burn.into_bytes()?)?);
        }
        record.into_bytes()
    }

    /// Returns this optimizer with the state written by [`NetworkOptimizer::into_bytes`].
    ///
    /// # Errors
    ///
    /// Returns Burn's error if `bytes` are not a valid record.
    pub fn from_bytes(self, bytes: Bytes) -> Result<Self, RecordError> {
        let (mut ours, burns) = Record::from_bytes(bytes)?.split(|id| self.rules.contains_key(&id));
        let mut states = HashMap::new();
        for id in ours.ids().into_iter().map(ParamId::from) {
            let (Some(steps), Some(rank)) = (ours.scalar(id, STEPS), ours.rank(id)) else { continue };
            let mut moment = |name| Ok::<_, RecordError>(ours.take_tensor(id, name)?.map(Moment::Saved));
            let moments = [moment(MOMENTS[0])?, moment(MOMENTS[1])?];
            let path = ours.path(id).unwrap_or_default().into();
            states.insert(id, RuleState { moments, steps, rank, path });
        }
        let burn = match self.burn {
            Some(burn) => Some(burn.from_bytes(burns.into_bytes()?)?),
            None => None,
        };
        Ok(Self { rules: self.rules, states, burn, last: Vec::new() })
    }
}

impl Moment {
    fn to_data(&self, rank: usize) -> TensorData {
        match self {
            Self::Saved(data) => data.clone(),
            Self::OnDevice(tensor) => match (rank, tensor.clone()) {
                (1, tensor) => Tensor::<1>::from_dispatch(tensor).into_data(),
                (2, tensor) => Tensor::<2>::from_dispatch(tensor).into_data(),
                (3, tensor) => Tensor::<3>::from_dispatch(tensor).into_data(),
                (_, tensor) => Tensor::<4>::from_dispatch(tensor).into_data(),
            },
        }
    }

    fn on_device<const D: usize>(self, device: &Device) -> DispatchTensor {
        match self {
            Self::Saved(data) => Tensor::<D>::from_data(data, device).into_dispatch(),
            Self::OnDevice(tensor) => tensor,
        }
    }
}

/// Takes parameters with gradients out of a network, to hold the only reference to their memory.
struct Take<'a> {
    rules: &'a HashMap<ParamId, Rule>,
    states: &'a mut HashMap<ParamId, RuleState>,
    gradients: &'a mut GradientsParams,
    path: Vec<String>,
    steps: Vec<Step>,
}

impl ModuleMapper for Take<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(&rule) = self.rules.get(&id) else { return param };
        let Some(gradient) = self.gradients.remove::<D>(id) else { return param };
        let (shape, device) = (gradient.dims(), gradient.device());
        let state = self.states.entry(id).or_insert_with(|| {
            let full = |value| Moment::OnDevice(Tensor::<D>::full(shape, value, &device).into_dispatch());
            let moments = rule.start().map(|start| start.map(full));
            RuleState { moments, steps: 0, rank: D, path: self.path.join(".") }
        });
        state.steps += 1;
        let (count, moments) = (state.steps, mem::take(&mut state.moments));
        // Replaces the parameter until the step has run. A GPU should not allocate memory for that.
        let placeholder = if is_host(&device) { Tensor::zeros([1; D], &device) } else { gradient.clone() };
        param.map(|parameter| {
            let placeholder = with_autodiff_of(&parameter, placeholder);
            self.steps.push(Step {
                id,
                rule,
                count,
                parameter: parameter.inner().into_dispatch(),
                gradient: gradient.into_dispatch(),
                moments: moments.map(|moment| moment.map(|moment| moment.on_device::<D>(&device))),
            });
            placeholder
        })
    }
}

/// Groups steps by rule and step count. The order of the groups follows from that of `steps`.
fn by_kind(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut groups: Vec<Vec<Step>> = Vec::new();
    let kind = |step: &Step| (step.rule, step.count);
    for step in steps {
        match groups.iter_mut().find(|group| kind(&group[0]) == kind(&step)) {
            Some(group) => group.push(step),
            None => groups.push(vec![step]),
        }
    }
    groups
}
