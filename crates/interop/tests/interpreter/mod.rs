//! A slow reference implementation of the exported ONNX operators, following their definitions
//! (<https://onnx.ai/onnx/operators/>).

use std::collections::HashMap;

use half::f16;
use mbconv_interop::onnx::proto::{FLOAT, FLOAT16, INT8, INT32, Model, Node, Tensor, UINT8};

/// A tensor. All element types are stored as f32.
#[derive(Clone, Debug)]
pub struct Value {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Value {
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, data }
    }

    fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        Self { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }
}

/// Runs the graph with one input and returns all values by name.
pub fn run(model: &Model, input: &str, value: Value) -> HashMap<String, Value> {
    let graph = model.graph.as_ref().unwrap();
    let mut values: HashMap<String, Value> =
        graph.initializer.iter().map(|constant| (constant.name().to_string(), read(constant))).collect();
    values.insert(input.into(), value);
    for node in &graph.node {
        let inputs: Vec<&Value> = node.input.iter().map(|name| &values[name]).collect();
        let output = evaluate(node, &inputs);
        values.insert(node.output[0].clone(), output);
    }
    values
}

fn read(constant: &Tensor) -> Value {
    let bytes = constant.raw_data();
    let four = bytes.as_chunks::<4>().0.iter();
    let data = match constant.data_type() {
        FLOAT => four.map(|&b| f32::from_le_bytes(b)).collect(),
        INT32 => four.map(|&b| i32::from_le_bytes(b) as f32).collect(),
        FLOAT16 => bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        INT8 => bytes.iter().map(|b| f32::from(b.cast_signed())).collect(),
        UINT8 => bytes.iter().map(|&b| f32::from(b)).collect(),
        other => panic!("element type {other}"),
    };
    Value::new(constant.dims.iter().map(|&size| size as usize).collect::<Vec<_>>(), data)
}

fn ints(node: &Node, name: &str) -> Vec<usize> {
    let attribute = node.attribute.iter().find(|attribute| attribute.name() == name).unwrap();
    attribute.ints.iter().map(|&value| value as usize).collect()
}

fn int(node: &Node, name: &str) -> i64 {
    node.attribute.iter().find(|attribute| attribute.name() == name).unwrap().i()
}

fn evaluate(node: &Node, inputs: &[&Value]) -> Value {
    let x = inputs[0];
    match node.op_type() {
        "Conv" => convolution(node, x, inputs[1], inputs[2]),
        "Clip" => x.map(|value| value.max(inputs[1].data[0]).min(inputs[2].data[0])),
        "Relu" => x.map(|value| value.max(0.0)),
        "Sigmoid" => x.map(|value| 1.0 / (1.0 + (-value).exp())),
        "Add" => broadcast(x, inputs[1], |a, b| a + b),
        "Sub" => broadcast(x, inputs[1], |a, b| a - b),
        "Mul" => broadcast(x, inputs[1], |a, b| a * b),
        "Div" => broadcast(x, inputs[1], |a, b| a / b),
        "Cast" if int(node, "to") == i64::from(FLOAT16) => x.map(|value| f16::from_f32(value).to_f32()),
        "Cast" => x.clone(),
        "QuantizeLinear" => {
            let (scale, zero_point) = (inputs[1].data[0], inputs[2].data[0]);
            x.map(|value| ((value / scale).round_ties_even() + zero_point).clamp(0.0, 255.0))
        }
        "DequantizeLinear" => {
            let (scales, zero_points) = (&inputs[1].data, &inputs[2].data);
            let length = if inputs[1].shape.is_empty() { x.data.len() } else { x.data.len() / x.shape[0] };
            let parts = x.data.chunks(length).zip(scales.iter().zip(zero_points));
            let real = parts.flat_map(|(part, (scale, zero))| part.iter().map(move |value| (value - zero) * scale));
            Value::new(x.shape.clone(), real.collect())
        }
        "Transpose" => transpose(x, &ints(node, "perm")),
        "ReduceMean" => {
            assert_eq!(ints(node, "axes"), [2, 3]);
            let area = x.shape[2] * x.shape[3];
            let means = x.data.chunks(area).map(|map| map.iter().sum::<f32>() / area as f32);
            let mut shape = x.shape[..2].to_vec();
            shape.extend(if int(node, "keepdims") == 1 { &[1, 1][..] } else { &[] });
            Value::new(shape, means.collect())
        }
        "Gemm" => {
            assert_eq!(int(node, "transB"), 1);
            let [weight, bias] = [inputs[1], inputs[2]];
            let rows = x.data.chunks(x.shape[1]).flat_map(|row| {
                let dot = |w: &[f32]| row.iter().zip(w).map(|(a, b)| a * b).sum::<f32>();
                weight.data.chunks(row.len()).zip(&bias.data).map(move |(w, b)| dot(w) + b)
            });
            Value::new([x.shape[0], weight.shape[0]], rows.collect())
        }
        "Softmax" => {
            let rows = x.data.chunks(x.shape[1]).flat_map(|row| {
                let sum: f32 = row.iter().map(|value| value.exp()).sum();
                row.iter().map(move |value| value.exp() / sum)
            });
            Value::new(x.shape.clone(), rows.collect())
        }
        other => panic!("operator `{other}` is not implemented"),
    }
}

/// Applies `f` to tensors of the same rank; `b` has the size of `a` or 1 in each dimension.
fn broadcast(a: &Value, b: &Value, f: impl Fn(f32, f32) -> f32) -> Value {
    assert_eq!(a.shape.len(), b.shape.len());
    let mut data = Vec::with_capacity(a.data.len());
    for (flat, &value) in a.data.iter().enumerate() {
        let (mut rest, mut stride, mut index) = (flat, 1, 0);
        for (&size, &other) in a.shape.iter().zip(&b.shape).rev() {
            assert!(other == size || other == 1);
            index += if other == 1 { 0 } else { rest % size * stride };
            rest /= size;
            stride *= other;
        }
        data.push(f(value, b.data[index]));
    }
    Value::new(a.shape.clone(), data)
}

fn transpose(x: &Value, order: &[usize]) -> Value {
    let shape: Vec<usize> = order.iter().map(|&axis| x.shape[axis]).collect();
    let strides: Vec<usize> = (0..shape.len()).map(|axis| x.shape[axis + 1..].iter().product()).collect();
    let data = (0..x.data.len()).map(|flat| {
        let mut rest = flat;
        let mut index = 0;
        for (&axis, &size) in order.iter().zip(&shape).rev() {
            index += rest % size * strides[axis];
            rest /= size;
        }
        x.data[index]
    });
    Value::new(shape.clone(), data.collect())
}

fn convolution(node: &Node, x: &Value, weight: &Value, bias: &Value) -> Value {
    let [n, channels, h, w] = x.shape[..] else { panic!() };
    let [outputs, inputs, kh, kw] = weight.shape[..] else { panic!() };
    let [top, left, bottom, right] = ints(node, "pads")[..] else { panic!() };
    let [sh, sw] = ints(node, "strides")[..] else { panic!() };
    let groups = int(node, "group") as usize;
    assert_eq!((ints(node, "kernel_shape"), ints(node, "dilations")), (vec![kh, kw], vec![1, 1]));
    assert_eq!((channels, outputs % groups), (inputs * groups, 0));
    let (height, width) = ((h + top + bottom - kh) / sh + 1, (w + left + right - kw) / sw + 1);
    let mut data = Vec::with_capacity(n * outputs * height * width);
    for image in 0..n {
        for output in 0..outputs {
            let first = output / (outputs / groups) * inputs;
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                let mut sum = bias.data[output];
                for input in 0..inputs {
                    let map = &x.data[(image * channels + first + input) * h * w..][..h * w];
                    let taps = &weight.data[(output * inputs + input) * kh * kw..][..kh * kw];
                    for (tap, &weight) in taps.iter().enumerate() {
                        let (y, x) = (row * sh + tap / kw, column * sw + tap % kw);
                        if (top..top + h).contains(&y) && (left..left + w).contains(&x) {
                            sum += weight * map[(y - top) * w + x - left];
                        }
                    }
                }
                data.push(sum);
            }
        }
    }
    Value::new([n, outputs, height, width], data)
}
