//! Precisions of feature maps and parameters.

use burn::tensor::DType;

/// Returns the precision of weights, statistics, gamma and beta for a feature map's precision.
pub(crate) fn parameter_dtype(map: DType) -> DType {
    if matches!(map, DType::F16 | DType::BF16) { DType::F32 } else { map }
}
