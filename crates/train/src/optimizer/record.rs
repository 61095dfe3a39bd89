//! Optimizer states in Burn's record format: tensors and scalars named `{parameter id}.{field}`,
//! and the path of each parameter.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::ParamId;
use burn::store::RecordError;
use burn::tensor::{Bytes, TensorData};
use burn_store::burn_pack::{Reader, Scalar, Tensor, Writer};

/// Name of the scalar that contains the rank of a parameter.
const RANK: &str = "__rank";

/// The states of parameters.
#[derive(Default)]
pub(super) struct Record {
    tensors: BTreeMap<String, Tensor>,
    scalars: BTreeMap<String, Scalar>,
    paths: BTreeMap<String, String>,
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// Returns an error if `bytes` are not a record.
    pub(super) fn from_bytes(bytes: Bytes) -> Result<Self, RecordError> {
        let reader = Reader::from_bytes(bytes)?;
        let (scalars, paths) = (reader.scalars().clone(), reader.metadata().clone());
        let tensors = reader.into_tensors()?.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Ok(Self { tensors, scalars, paths })
    }

    /// Serializes the record.
    ///
    /// # Errors
    /// Returns an error if a tensor is too large.
    pub(super) fn into_bytes(self) -> Result<Bytes, RecordError> {
        let mut writer = Writer::new(self.tensors.into_values().collect());
        for (name, value) in self.scalars {
            writer = writer.with_scalar(&name, value);
        }
        for (name, path) in self.paths {
            writer = writer.with_metadata(&name, &path);
        }
        Ok(writer.into_bytes()?)
    }

    /// Adds the states of another record.
    pub(super) fn extend(&mut self, other: Self) {
        self.tensors.extend(other.tensors);
        self.scalars.extend(other.scalars);
        self.paths.extend(other.paths);
    }

    /// Splits the record into the parameters that satisfy `condition` and the others.
    pub(super) fn split(self, condition: impl Fn(ParamId) -> bool) -> (Self, Self) {
        fn parts<T>(
            all: BTreeMap<String, T>,
            condition: &dyn Fn(ParamId) -> bool,
        ) -> (BTreeMap<String, T>, BTreeMap<String, T>) {
            all.into_iter().partition(|(name, _)| id_of(name).is_some_and(condition))
        }
        let (tensors, other_tensors) = parts(self.tensors, &condition);
        let (scalars, other_scalars) = parts(self.scalars, &condition);
        let (paths, other_paths) = parts(self.paths, &condition);
        let others = Self { tensors: other_tensors, scalars: other_scalars, paths: other_paths };
        (Self { tensors, scalars, paths }, others)
    }

    /// Returns the ids of all parameters.
    pub(super) fn ids(&self) -> BTreeSet<u64> {
        self.scalars.keys().filter_map(|name| id_of(name)).map(|id| id.val()).collect()
    }

    /// Adds a parameter.
    pub(super) fn add(&mut self, id: ParamId, rank: usize, path: &str) {
        self.add_scalar(id, RANK, rank);
        self.paths.insert(id.val().to_string(), path.into());
    }

    /// Adds a tensor of a parameter's state.
    pub(super) fn add_tensor(&mut self, id: ParamId, field: &str, data: TensorData) {
        let name = name(id, field);
        let (bytes, shape, dtype) = data.into_parts();
        self.tensors.insert(name.clone(), Tensor::new(name, dtype, shape, Some(id.val()), bytes));
    }

    /// Adds a number of a parameter's state.
    pub(super) fn add_scalar(&mut self, id: ParamId, field: &str, value: usize) {
        self.scalars.insert(name(id, field), value.into());
    }

    /// Removes a tensor of a parameter's state.
    ///
    /// # Errors
    /// Returns an error if its bytes cannot be read.
    pub(super) fn take_tensor(&mut self, id: ParamId, field: &str) -> Result<Option<TensorData>, RecordError> {
        let Some(tensor) = self.tensors.remove(&name(id, field)) else { return Ok(None) };
        let (_, dtype, shape, _, bytes) = tensor.into_parts()?;
        Ok(Some(TensorData::from_bytes(bytes, shape, dtype)))
    }

    /// Returns a number of a parameter's state.
    pub(super) fn scalar(&self, id: ParamId, field: &str) -> Option<usize> {
        usize::try_from(*self.scalars.get(&name(id, field))?).ok()
    }

    /// Returns the rank of a parameter.
    pub(super) fn rank(&self, id: ParamId) -> Option<usize> {
        self.scalar(id, RANK)
    }

    /// Returns the path of a parameter.
    pub(super) fn path(&self, id: ParamId) -> Option<&str> {
        self.paths.get(&id.val().to_string()).map(String::as_str)
    }
}

fn name(id: ParamId, field: &str) -> String {
    format!("{}.{field}", id.val())
}

/// Returns the parameter of a name.
fn id_of(name: &str) -> Option<ParamId> {
    name.split('.').next()?.parse::<u64>().ok().map(ParamId::from)
}
