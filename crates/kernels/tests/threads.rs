//! Results are bit-identical for any number of threads.

mod common;

use burn::tensor::{DType, Device};
use common::{Layout, Place, differentiate};
use mbconv_kernels::{
    Activation, Statistics, batch_norm_activation, channel_statistics, conv2d, depthwise_conv2d, global_average,
    pointwise_conv2d, scale_channels,
};

#[test]
fn results_are_bit_identical_for_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| {
            let place = Place::new(Device::flex().autodiff(), DType::F32);
            let maps = [
                place.tensor([4, 48, 48, 3], Layout::Plain, 1),
                place.tensor([40, 3, 3, 3], Layout::Plain, 2),
                place.tensor([40, 1, 5, 5], Layout::Plain, 3),
                place.tensor([100, 40, 1, 1], Layout::Plain, 4),
            ];
            let vectors = [place.tensor([100], Layout::Plain, 5), place.tensor([100], Layout::Plain, 6)];
            differentiate(&maps, &vectors, |m, v| {
                let x = conv2d(m[0].clone(), m[1].clone(), 1, 1);
                let x = depthwise_conv2d(x, m[2].clone(), 1, 2);
                let x = pointwise_conv2d(x, m[3].clone(), None);
                let (mean, variance) = channel_statistics(x.clone());
                let (gamma, beta) = (v[0].clone(), v[1].clone());
                let (batch, silu) = (Statistics::Batch, Activation::Silu);
                let x = batch_norm_activation(x, gamma, beta, mean, variance, 1e-5, batch, silu);
                scale_channels(x.clone(), global_average(x))
            })
        })
    };
    let one = run(1);
    for threads in [2, 3, 7] {
        // All results except the gradient of the image, which Burn's own transposed convolution
        // computes.
        for (which, (a, b)) in one.iter().zip(run(threads)).enumerate().filter(|(which, _)| *which != 1) {
            assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "result {which} with {threads} threads");
        }
    }
}
