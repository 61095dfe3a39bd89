//! Export to [burnpack](burn_store::BurnpackStore), Burn's own file format.
//!
//! ```no_run
//! use burn_store::{BurnpackStore, ModuleSnapshot};
//! use mbconv_nets::MobileNetV2Config;
//!
//! let mut network = MobileNetV2Config::new(10).init(&Default::default());
//! network.load_from(&mut BurnpackStore::from_file("pets.bpk")).unwrap();
//! ```
//!
//! Half-precision files are converted to f32 while loading:
//! `BurnpackStore::from_file(path).with_from_adapter(FloatCastAdapter::to(DType::F32))`.

use burn::tensor::DType;
use burn_store::burn_pack::Tensor as PackTensor;
use burn_store::{BurnpackStore, FloatCastAdapter, ModuleAdapter, ModuleContext, ModuleSnapshot};
use mbconv_nets::Network;
use mbconv_nets::weights::{Precision, WeightsError, check_precision};

use crate::model_file::{METADATA_KEY, ModelCard};

/// The reason why a model cannot be written as burnpack.
#[derive(Debug, thiserror::Error)]
pub enum BurnpackError {
    /// A weight that the precision cannot represent.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An error of burn-store.
    #[error("cannot write burnpack: {0}")]
    Store(String),
}

/// Returns a burnpack file with the network's parameters and running statistics under their module
/// paths, and the model card under `mbconv` in its metadata.
///
/// # Errors
/// A weight that is not finite in `precision`.
pub fn to_burnpack(network: &Network, card: &ModelCard, precision: Precision) -> Result<Vec<u8>, BurnpackError> {
    check_precision(network, precision)?;
    let json = serde_json::to_string(card).map_err(|error| BurnpackError::Store(error.to_string()))?;
    let mut store = BurnpackStore::from_bytes(None).metadata(METADATA_KEY, json);
    store = match precision {
        Precision::F32 => store.with_to_adapter(WithoutIds),
        Precision::F16 => store.with_to_adapter(WithoutIds.chain(FloatCastAdapter::to(DType::F16))),
        Precision::Bf16 => store.with_to_adapter(WithoutIds.chain(FloatCastAdapter::to(DType::BF16))),
    };
    let bytes = network.save_into(&mut store).and_then(|()| store.get_bytes());
    Ok(bytes.map_err(|error| BurnpackError::Store(error.to_string()))?.to_vec())
}

/// Omits the random parameter ids, so that equal models give equal files.
#[derive(Clone)]
struct WithoutIds;

impl ModuleAdapter for WithoutIds {
    fn adapt(&self, mut tensor: PackTensor, _: ModuleContext<'_>) -> PackTensor {
        tensor.param_id = None;
        tensor
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bytes, Device, Tensor};
    use mbconv_nets::NetworkOptions;

    use crate::burnpack::*;
    use mbconv_image::Preprocess;

    fn network(seed: u64) -> (Network, ModelCard) {
        let device = Device::default();
        device.seed(seed);
        let options = NetworkOptions::new("efficientnet_b0", 3);
        let preprocess = Preprocess { resize: 40.into(), crop: 32.into(), ..Preprocess::default() };
        let classes = ["a", "b", "c"].map(String::from).into();
        (options.architecture().unwrap().init(&device), ModelCard::new(options, classes, preprocess))
    }

    fn logits(network: &Network) -> Vec<f32> {
        let image: Vec<f32> = (0..3 * 32 * 32).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        let image = Tensor::<1>::from_floats(image.as_slice(), &Device::default()).reshape([1, 3, 32, 32]);
        network.forward(image).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn burnpack_loads_into_the_module_unchanged() {
        let (original, card) = network(1);
        let (mut other, _) = network(2);
        assert_ne!(logits(&original), logits(&other));
        let bytes = to_burnpack(&original, &card, Precision::F32).unwrap();
        let mut store = BurnpackStore::from_bytes(Some(Bytes::from_bytes_vec(bytes)));
        let result = other.load_from(&mut store).unwrap();
        assert!(result.missing.is_empty() && result.unused.is_empty() && result.errors.is_empty(), "{result}");
        assert_eq!(logits(&original), logits(&other));
        assert_eq!(
            to_burnpack(&other, &card, Precision::F32).unwrap(),
            to_burnpack(&original, &card, Precision::F32).unwrap()
        );
    }

    #[test]
    fn half_precision_files_load_as_f32() {
        let (original, card) = network(1);
        for precision in [Precision::F16, Precision::Bf16] {
            let (mut other, _) = network(2);
            let bytes = to_burnpack(&original, &card, precision).unwrap();
            let mut store = BurnpackStore::from_bytes(Some(Bytes::from_bytes_vec(bytes)))
                .with_from_adapter(FloatCastAdapter::to(DType::F32));
            other.load_from(&mut store).unwrap();
            for (a, b) in logits(&original).iter().zip(logits(&other)) {
                assert!((a - b).abs() < 0.05, "{precision:?}: {a} {b}");
            }
        }
    }
}
