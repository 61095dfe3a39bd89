//! Kernels panic if the sizes of their operands do not match, rather than access memory out of
//! bounds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::{
    activation::Identity,
    batch_norm::{self, Place, Vectors},
    dense, depthwise,
    depthwise_rows::DepthwiseRows,
    pixels, pointwise, simd,
    weight_gradient::outer_products,
};
use crate::types::{Activation, Conv2dGeometry, Normalization, Statistics};

/// Generates mostly small numbers including zero, and some whose products overflow or that are too
/// large to allocate.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 0usize..5, 1 => (61..64u32).prop_map(|bit| 1 << bit), 1 => 1 << 61..=usize::MAX]
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i % 5) as f32 - 2.0).collect()
}

/// Returns the result of `body`, or `None` if it panics.
fn attempt<R>(body: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(body)).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matrix_products([x, weight] in [0usize..40, 0usize..30], [rows, columns] in [size(), size()]) {
        let (x, weight) = (numbers(x), numbers(weight));
        if let Some(y) = attempt(|| pointwise::forward(&x, &weight, rows, columns)) {
            prop_assert_eq!(y.len(), x.len().checked_div(rows).unwrap_or(0) * columns);
            prop_assert_eq!(Some(weight.len()), rows.checked_mul(columns));
        }
        if let Some(x) = attempt(|| pointwise::input_gradient(&x, &weight, rows, columns)) {
            prop_assert!(x.is_empty() || x.len().is_multiple_of(rows));
        }
        if let Some(sums) = attempt(|| outer_products(&x, &weight, rows, columns)) {
            prop_assert_eq!(Some(sums.len()), rows.checked_mul(columns));
            prop_assert!(x.len().checked_mul(columns) == weight.len().checked_mul(rows));
        }
    }

    #[test]
    fn windows(
        [x, weight, gradient] in [0usize..60, 0usize..40, 0usize..60],
        [kernel, stride, padding] in [size(), size(), size()],
        input in [size(), size(), size(), size()],
        output in [size(), size(), size(), size()],
        fitting in any::<bool>(),
    ) {
        let geometry = Conv2dGeometry { kernel, stride, padding };
        let (x, weight, gradient) = (numbers(x), numbers(weight), numbers(gradient));
        let output = if fitting {
            let sides = attempt(|| [geometry.output(input[1]), geometry.output(input[2])]);
            sides.map_or(output, |[height, width]| [input[0], height, width, input[3]])
        } else {
            output
        };
        let exact = |map: &[f32], size: [usize; 4]| {
            let product = size.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
            size.contains(&0) && map.is_empty() || product == Some(map.len())
        };
        if attempt(|| depthwise::forward(&x, &weight, geometry, input, output)).is_some() {
            prop_assert!(exact(&x, input) && exact(&weight, [1, kernel, kernel, input[3]]));
        }
        if attempt(|| depthwise::input_gradient(&gradient, &weight, geometry, input, output)).is_some() {
            prop_assert!(exact(&gradient, output) && exact(&weight, [1, kernel, kernel, input[3]]));
        }
        if attempt(|| depthwise::weight_gradient(&x, &gradient, geometry, input, output)).is_some() {
            prop_assert!(exact(&x, input) && exact(&gradient, output));
        }
        if attempt(|| dense::forward(&x, &weight, geometry, input, output)).is_some() {
            prop_assert!(exact(&x, input));
        }
        if attempt(|| dense::weight_gradient(&x, &gradient, geometry, input, output)).is_some() {
            prop_assert!(exact(&x, input) && exact(&gradient, output));
        }
    }

    #[test]
    fn rows_with_borders(
        [out, weight, bias, line] in [0usize..60, 0usize..80, 0usize..20, 0usize..60],
        lines in 0usize..8,
        [kernel, stride, width] in [size(), size(), size()],
    ) {
        let (source, weight, bias) = (numbers(line), numbers(weight), numbers(bias));
        let (mut out, sources) = (numbers(out), vec![&source[..]; lines]);
        let length = out.len();
        let rows = DepthwiseRows {
            out: &mut out,
            sources: &sources,
            weight: &weight,
            bias: &bias,
            kernel,
            stride,
            width,
            activation: Identity,
        };
        if attempt(|| simd::run(rows)).is_some() {
            prop_assert!(length == 0 || width.checked_mul(bias.len()).is_some_and(|line| length.is_multiple_of(line)));
        }
    }

    #[test]
    fn passes_over_maps(
        [x, gradient, gate] in [0usize..40, 0usize..40, 0usize..20],
        [images, channels, line] in [size(), size(), size()],
    ) {
        let (x, mut gradient, gate) = (numbers(x), numbers(gradient), numbers(gate));
        if let Some(y) = attempt(|| pixels::scaled_channels(&x, &gate, images)) {
            let channels = gate.len().checked_div(images).unwrap_or(0);
            let size = x.len().checked_div(images).unwrap_or(0);
            let expected = (0..x.len()).map(|i| x[i] * gate[i / size * channels + i % size % channels]);
            prop_assert_eq!(y, expected.collect::<Vec<_>>());
        }
        if let Some(means) = attempt(|| pixels::average(&x, images, line, channels)) {
            prop_assert_eq!(Some(means.len()), images.checked_mul(channels));
        }
        if attempt(|| pixels::scale_channels_gradients(&x, &gate, &mut gradient, images, line)).is_some() {
            prop_assert_eq!(x.len(), gradient.len());
        }
        let vectors = Vectors { gamma: &gate, beta: &gate, mean: &gate, variance: &gate };
        let normalization =
            Normalization { epsilon: 1e-5, statistics: Statistics::Batch, activation: Activation::Identity };
        if attempt(|| batch_norm::forward(Place::New(&x), vectors, normalization)).is_some() {
            prop_assert!(x.len().is_multiple_of(gate.len()));
        }
        if attempt(|| batch_norm::gradients(&x, Place::New(&gradient), vectors, normalization)).is_some() {
            prop_assert_eq!(x.len(), gradient.len());
        }
    }
}

#[test]
fn products_without_outputs_are_empty_and_oversized_ones_panic() {
    assert!(pointwise::forward(&numbers(32), &[], 16, 0).is_empty());
    assert!(pointwise::weight_gradient(&numbers(32), &[], 16, 0).is_empty());
    assert_eq!(outer_products(&[], &[], 3, 2), [0.0; 6]);
    assert!(attempt(|| outer_products(&[], &[], 1 << 32, 1 << 32)).is_none());
    assert!(attempt(|| pointwise::forward(&[], &[], 1 << 32, 1 << 32)).is_none());
}
