//! A list of tensors as one operand of a backend operation.

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use burn::backend::fusion::{
    ExecutionError, Fusion, FusionBackend, FusionRuntime, FusionTensor,
    custom::{
        ExtensionMetadata, Float, FusionValueAdapter, HandleContainer, OutputTensor, TensorId, TensorIr, TensorSpec,
    },
};
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, ExtensionType,
    tensor::FloatTensor,
};

/// Tensors of any shapes as one operand of an operation.
#[derive(Clone, Debug)]
pub struct Tensors<B: Backend>(pub Vec<FloatTensor<B>>);

impl<B: Backend> ExtensionType<B> for Tensors<B> {
    type Target = Tensors<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Tensors<Dispatch>
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor| DispatchTensor { kind: map_kind(BackendTensor::Float(tensor)), autodiff };
        Tensors(self.0.into_iter().map(wrap).collect())
    }

    fn map_from_dispatch<F>(target: Tensors<Dispatch>, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Self(target.0.into_iter().map(|tensor| unwrap_kind(tensor).float()).collect())
    }

    fn routing_tensor(target: &Tensors<Dispatch>) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Tensors<Dispatch>) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn autodiff_context(target: &Tensors<Dispatch>) -> DispatchAutodiffContext {
        target.0.iter().fold(DispatchAutodiffContext::Disabled, |context, tensor| context.merge(tensor.autodiff))
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl<B: Backend> ExtensionMetadata for Tensors<B> {
    type Metadata = Vec<TensorSpec>;
    type Input = Vec<TensorIr>;
    type Output = Vec<OutputTensor>;
}

/// Burn's fusion handles of the backend `B`.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
type Handles<B> = HandleContainer<<<B as FusionBackend>::FusionRuntime as FusionRuntime>::FusionHandle>;

/// Implements for a list what Burn derives for structs of tensors.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl<B: FusionBackend> FusionValueAdapter<B> for Tensors<B> {
    type Metadata = Vec<TensorSpec>;
    type Input = Vec<TensorIr>;
    type Output = Vec<OutputTensor>;
    type Inner = Self;
    type Fused = Tensors<Fusion<B>>;

    fn to_metadata(value: &Self::Fused) -> Vec<TensorSpec> {
        value.0.iter().map(<Float as FusionValueAdapter<B>>::to_metadata).collect()
    }

    fn visit_fused_tensors(value: &Self::Fused, visit: &mut impl FnMut(&FusionTensor<B::FusionRuntime>)) {
        value.0.iter().for_each(visit);
    }

    fn tensor_count(specs: &Vec<TensorSpec>) -> usize {
        specs.len()
    }

    fn append_input_ir(value: Self::Fused, inputs: &mut Vec<TensorIr>) -> Vec<TensorIr> {
        value.0.into_iter().map(|tensor| <Float as FusionValueAdapter<B>>::append_input_ir(tensor, inputs)).collect()
    }

    fn resolve_inputs(inputs: &Vec<TensorIr>, handles: &mut Handles<B>) -> Self {
        Self(inputs.iter().map(|input| <Float as FusionValueAdapter<B>>::resolve_inputs(input, handles)).collect())
    }

    fn append_output_ir(
        specs: &Vec<TensorSpec>,
        out: &mut Vec<TensorIr>,
        create: &mut impl FnMut() -> TensorId,
    ) -> Vec<OutputTensor> {
        specs.iter().map(|spec| <Float as FusionValueAdapter<B>>::append_output_ir(spec, out, create)).collect()
    }

    fn validate_outputs(
        value: &Self,
        outputs: &Vec<OutputTensor>,
        device: Option<&B::Device>,
    ) -> Result<(), ExecutionError> {
        let mut each = value.0.iter().zip(outputs);
        each.try_for_each(|(tensor, output)| <Float as FusionValueAdapter<B>>::validate_outputs(tensor, output, device))
    }

    fn register_output_handles(value: Self, outputs: &Vec<OutputTensor>, handles: &mut Handles<B>) {
        for (tensor, output) in value.0.into_iter().zip(outputs) {
            <Float as FusionValueAdapter<B>>::register_output_handles(tensor, output, handles);
        }
    }

    fn build_fused_output(
        specs: &Vec<TensorSpec>,
        tensors: &mut std::vec::IntoIter<FusionTensor<B::FusionRuntime>>,
    ) -> Self::Fused {
        let each = specs.iter();
        Tensors(each.map(|spec| <Float as FusionValueAdapter<B>>::build_fused_output(spec, tensors)).collect())
    }
}
