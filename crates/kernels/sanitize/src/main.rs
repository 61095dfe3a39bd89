//! Runs every loop over odd shapes, in memory that is exactly as long as it must be.
#![allow(dead_code, unused_imports)]

/// Types of the crate, without those that need Burn.
#[path = "../../src"]
mod types {
    pub use activation::Activation;
    pub use conv2d_geometry::Conv2dGeometry;
    pub use normalization::{Normalization, Statistics};

    pub mod activation {
        pub const RELU6_MAX: f64 = 6.0;

        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Activation {
            Identity,
            Relu,
            Relu6,
            Silu,
        }
    }
    #[path = "types/conv2d_geometry.rs"]
    pub mod conv2d_geometry;
    #[path = "types/normalization.rs"]
    pub mod normalization;
}
#[path = "../../src/synchronize.rs"]
mod synchronize;
#[path = "../../src"]
mod cpu {
    #[path = "cpu/activation.rs"]
    pub mod activation;
    #[path = "cpu/batch_norm.rs"]
    pub mod batch_norm;
    #[path = "cpu/buffer.rs"]
    pub mod buffer;
    #[path = "cpu/dense.rs"]
    pub mod dense;
    #[path = "cpu/depthwise.rs"]
    pub mod depthwise;
    #[path = "cpu/depthwise_rows.rs"]
    pub mod depthwise_rows;
    #[path = "cpu/gemm.rs"]
    pub mod gemm;
    #[path = "cpu/pixels.rs"]
    pub mod pixels;
    #[path = "cpu/pointwise.rs"]
    pub mod pointwise;
    #[path = "cpu/simd.rs"]
    pub mod simd;
    #[cfg(test)]
    #[path = "cpu/tests.rs"]
    mod tests;
    #[path = "cpu/thread_pool.rs"]
    pub mod thread_pool;
    #[path = "cpu/weight_gradient.rs"]
    pub mod weight_gradient;
}
#[path = "../../src/inference/mod.rs"]
mod inference;

use cpu::{
    activation::Silu,
    batch_norm::{self, Place, Vectors},
    dense, depthwise,
    depthwise_rows::DepthwiseRows,
    pixels, pointwise, simd, weight_gradient,
};
use inference::{Block, Chain, Gate, Kind, Layer, Padding, Precision, Stage};
use types::{Activation, Conv2dGeometry, Normalization, Statistics};

/// Numbers in (-1, 1), in a block of exactly their size.
fn numbers(count: usize) -> Box<[f32]> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn layer(kind: Kind, inputs: usize, outputs: usize, kernel: usize, stride: usize, activation: Activation) -> Layer {
    let depth = if kind == Kind::Depthwise { 1 } else { inputs } * kernel * kernel;
    let (weight, bias) = (numbers(outputs * depth).into(), numbers(outputs).into());
    Layer { kind, inputs, outputs, kernel, stride, padding: Padding::Even(kernel / 2), weight, bias, activation }
}

fn rows_of_depthwise_convolutions() {
    for (channels, kernel, stride, width) in [
        (1, 3, 1, 1),
        (3, 3, 2, 5),
        (8, 3, 1, 7),
        (16, 3, 2, 13),
        (17, 5, 1, 4),
        (24, 5, 2, 8),
        (31, 3, 1, 11),
        (40, 5, 1, 7),
        (5, 7, 1, 3),
        (33, 1, 1, 6),
    ] {
        let rows = 3;
        let lines = (rows - 1) * stride + kernel;
        let sources: Vec<_> = (0..lines).map(|_| numbers(((width - 1) * stride + kernel) * channels)).collect();
        let sources: Vec<_> = sources.iter().map(|row| &row[..]).collect();
        let (weight, bias, mut out) =
            (numbers(kernel * kernel * channels), numbers(channels), numbers(rows * width * channels));
        let (weight, bias, activation) = (&weight, &bias, Silu);
        simd::run(DepthwiseRows { out: &mut out, sources: &sources, weight, bias, kernel, stride, width, activation });
        assert!(out.iter().all(|value| value.is_finite()));
    }
}

fn products() {
    for rows in [0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 25] {
        for inputs in [0, 1, 2, 3, 4, 5, 7, 16, 33] {
            for outputs in [0, 1, 3, 8, 9, 15, 16, 17, 24, 31, 33, 40] {
                let (x, gradient) = (numbers(rows * inputs), numbers(rows * outputs));
                let weight = numbers(outputs * inputs);
                let known = |size: usize| if size == 0 { 0 } else { rows };
                assert_eq!(pointwise::forward(&x, &weight, inputs, outputs).len(), known(inputs) * outputs);
                assert_eq!(
                    pointwise::input_gradient(&gradient, &weight, inputs, outputs).len(),
                    known(outputs) * inputs
                );
                assert_eq!(weight_gradient::outer_products(&gradient, &x, outputs, inputs).len(), outputs * inputs);
            }
        }
    }
}

fn windows() {
    let sides = |geometry: Conv2dGeometry, size: [usize; 4]| [geometry.output(size[1]), geometry.output(size[2])];
    for (kernel, stride, padding) in
        [(1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (7, 3, 3), (3, 1, 5), (2, 4, 1)]
    {
        let geometry = Conv2dGeometry { kernel, stride, padding };
        for input in
            [[1, 2, 2, 3], [0, 4, 4, 3], [2, 7, 5, 8], [1, 13, 9, 16], [3, 4, 6, 17], [1, 5, 11, 41], [2, 3, 3, 0]]
        {
            if input[1] + 2 * padding < kernel {
                continue;
            }
            let [height, width] = sides(geometry, input);
            let x = numbers(input.iter().product());
            let output = [input[0], height, width, input[3]];
            let (weight, gradient) = (numbers(kernel * kernel * input[3]), numbers(output.iter().product()));
            assert_eq!(depthwise::forward(&x, &weight, geometry, input, output).len(), gradient.len());
            assert_eq!(depthwise::input_gradient(&gradient, &weight, geometry, input, output).len(), x.len());
            assert_eq!(depthwise::weight_gradient(&x, &gradient, geometry, input, output).len(), weight.len());
            for outputs in [0, 1, 5, 24] {
                let output = [input[0], height, width, outputs];
                let weight = numbers(kernel * kernel * input[3] * outputs);
                let gradient = numbers(output.iter().product());
                assert_eq!(dense::forward(&x, &weight, geometry, input, output).len(), gradient.len());
                assert_eq!(dense::weight_gradient(&x, &gradient, geometry, input, output).len(), weight.len());
            }
        }
    }
}

fn passes_over_maps() {
    for (images, height, width, channels) in
        [(1, 1, 1, 1), (2, 3, 5, 7), (3, 17, 9, 16), (2, 40, 33, 17), (0, 3, 3, 4), (2, 0, 3, 4), (2, 3, 3, 0)]
    {
        let length = images * height * width * channels;
        let (x, gate) = (numbers(length), numbers(images * channels));
        assert_eq!(pixels::average(&x, images, width * channels, channels).len(), images * channels);
        let mut out = x.clone();
        pixels::scale_channels(&mut out, &gate, images);
        assert_eq!(pixels::scaled_channels(&x, &gate, images), *out);
        assert_eq!(pixels::scale_channels_gradients(&x, &gate, &mut out, images, width * channels).len(), gate.len());

        let (mean, variance) = batch_norm::statistics(&x, channels);
        let (gamma, beta) = (&numbers(channels), &numbers(channels));
        let vectors = Vectors { gamma, beta, mean: &mean, variance: &variance };
        for statistics in [Statistics::Batch, Statistics::Fixed] {
            let normalization = Normalization { epsilon: 1e-5, statistics, activation: Activation::Silu };
            let made = batch_norm::forward(Place::New(&x), vectors, normalization).unwrap();
            let mut over = x.clone();
            assert!(batch_norm::forward(Place::Over(&mut over), vectors, normalization).is_none());
            assert_eq!(made, *over);
            assert!(made.iter().all(|value| value.is_finite()));
            let gradients = batch_norm::gradients(&x, Place::Over(&mut over), vectors, normalization);
            assert_eq!((gradients.gamma.len(), gradients.beta.len()), (channels, channels));
        }
    }
}

fn networks() {
    use Activation::{Identity, Relu, Relu6, Silu};
    for activation in [Identity, Relu, Relu6, Silu] {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)] {
            for [inputs, hidden, outputs] in [[3, 7, 5], [8, 16, 8], [5, 33, 17]] {
                for gated in [false, true] {
                    let gate = gated.then(|| Gate {
                        reduce: layer(Kind::Pointwise, hidden, 3, 1, 1, activation),
                        expand: layer(Kind::Pointwise, 3, hidden, 1, 1, Identity),
                    });
                    let stages = [
                        Stage::Layer(layer(Kind::Dense, 3, inputs, 3, 2, activation)),
                        Stage::Block(Box::new(Block {
                            expand: Some(layer(Kind::Pointwise, inputs, hidden, 1, 1, activation)),
                            depthwise: Some(layer(Kind::Depthwise, hidden, hidden, kernel, stride, activation)),
                            gate,
                            project: layer(Kind::Pointwise, hidden, outputs, 1, 1, Identity),
                            residual: stride == 1 && inputs == outputs,
                        })),
                        Stage::Pool,
                        Stage::Layer(layer(Kind::Pointwise, outputs, 11, 1, 1, Identity)),
                    ];
                    let chains = [Precision::F32, Precision::Bf16].map(|precision| Chain::new(&stages, precision));
                    for [count, height, width] in [[1, 1, 1], [1, 7, 5], [2, 9, 16], [3, 33, 20], [5, 2, 40]] {
                        for chain in &chains {
                            let size = [count, height, width, 3];
                            let (logits, _) = chain.run(&numbers(count * height * width * 3), size);
                            assert_eq!(logits.len(), count * 11);
                            assert!(logits.iter().all(|logit| logit.is_finite()));
                        }
                    }
                }
            }
        }
    }
}

fn main() {
    rows_of_depthwise_convolutions();
    products();
    windows();
    passes_over_maps();
    networks();
    println!("{}: no error", inference::instructions());
}
