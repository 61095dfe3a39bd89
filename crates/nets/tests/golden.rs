//! Compares logits, loss, running statistics and gradients with torchvision's, for the same weights
//! and images.
//!
//! `scripts/golden_nets.py` ran torchvision in double precision and wrote `fixtures/golden_*.json`.
//! Weights and images are not stored: a formula generates them (see [`uniform`]).

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use mbconv_nets::layout::{Role, TensorInfo, tensors};
use mbconv_nets::weights::{load_state_dict, state_dict};
use mbconv_nets::{Inference, Network, NetworkOptions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    images: [usize; 4],
    labels: Vec<i64>,
    norm: NormScales,
    eval: Run,
    train: Run,
}

/// Weights and biases of batch-norms are a + b·u, stored as `[a, b]`.
#[derive(Deserialize)]
struct NormScales {
    weight: [f64; 2],
    bias: [f64; 2],
}

#[derive(Deserialize)]
struct Run {
    logits: Vec<Vec<f64>>,
    loss: f64,
    /// Norm and projection of gradients, and of running statistics after one forward pass in
    /// training mode.
    probes: BTreeMap<String, [f64; 2]>,
    /// The first values of some tensors.
    first: BTreeMap<String, Vec<f64>>,
}

/// Returns `count` values in [-1, 1), exact in f32: splitmix64 of FNV-1a(key) + index.
fn uniform(key: &str, count: usize) -> impl Iterator<Item = f64> + use<> {
    let seed =
        key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (0..count as u64).map(move |index| {
        let mut z = seed.wrapping_add(index).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

/// Returns the values of a tensor, scaled according to its kind.
fn fill(TensorInfo { path, key, shape, .. }: &TensorInfo, norm: &NormScales) -> TensorData {
    let fan_in = shape[1..].iter().product::<usize>() as f64;
    let kind = key.rsplit('.').next().unwrap();
    let [offset, scale] = match (kind, path.contains(".norm.")) {
        ("running_var", _) => [1.0, 0.5],
        ("weight", true) => norm.weight,
        ("bias", true) => norm.bias,
        ("running_mean" | "bias", _) => [0.0, 0.1],
        _ => [0.0, (6.0 / fan_in).sqrt()],
    };
    let scaled = |u: f64| offset + scale * u;
    let values: Vec<f32> = uniform(key, shape.iter().product()).map(|u| scaled(u) as f32).collect();
    TensorData::new(values, shape.clone())
}

/// Returns noise images, each with its own contrast and brightness.
fn images(shape: [usize; 4], device: &Device) -> Tensor<4> {
    let size = shape[1..].iter().product::<usize>();
    let values: Vec<f32> = uniform("images", shape[0] * size)
        .enumerate()
        .map(|(index, u)| {
            let number = (index / size) as f64;
            (u * 0.5 * (number + 1.0) + 0.5 * (number - 1.5)) as f32
        })
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn fixture(name: &str) -> Fixture {
    let path = format!("{}/tests/fixtures/golden_{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns the network of this name with generated weights, without dropout and stochastic depth.
fn network(name: &str, norm: &NormScales, device: &Device) -> Network {
    let mut options = NetworkOptions::new(name, 10);
    options.dropout = Some(0.0);
    options.drop_path = Some(0.0);
    let architecture = options.architecture().unwrap();
    let state = tensors(&architecture).iter().map(|info| (info.key.clone(), fill(info, norm))).collect();
    load_state_dict(architecture.init(device), state).unwrap()
}

/// Returns the mean cross-entropy.
fn cross_entropy(logits: Tensor<2>, labels: &[i64]) -> Tensor<1> {
    let labels = Tensor::<1, Int>::from_data(TensorData::from(labels), &logits.device());
    log_softmax(logits, 1).gather(1, labels.unsqueeze_dim(1)).mean().neg()
}

/// Collects the gradients of a network's parameters by module path.
struct Collector<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: HashMap<String, Vec<f64>>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(self.path.join("."), gradient.into_data().iter::<f64>().collect());
        }
    }
}

/// Returns gradients and running statistics by torchvision's keys.
fn gradients_and_statistics(network: &Network, gradients: &Gradients) -> HashMap<String, Vec<f64>> {
    let mut collector = Collector { path: Vec::new(), gradients, found: HashMap::new() };
    network.visit(&mut collector);
    let mut by_key = HashMap::new();
    for (info, data) in state_dict(network) {
        let values = match info.role {
            Role::Statistic => data.iter::<f64>().collect(),
            _ => collector.found.remove(&info.path).unwrap_or_else(|| panic!("no gradient for {}", info.key)),
        };
        by_key.insert(info.key, values);
    }
    assert!(collector.found.is_empty(), "gradients of unlisted tensors: {:?}", collector.found.keys());
    by_key
}

/// The largest difference of a kind, relative to the magnitude of the expected values, and its
/// place.
#[derive(Default)]
struct Worst {
    difference: f64,
    place: String,
}

impl Worst {
    fn note(&mut self, place: &str, difference: f64) {
        if difference > self.difference || difference.is_nan() {
            *self = Self { difference, place: place.into() };
        }
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:.1e} at `{}`", self.difference, self.place)
    }
}

/// Differences from torchvision.
#[derive(Default)]
struct Differences {
    logits: Worst,
    loss: Worst,
    statistics: Worst,
    gradients: Worst,
}

impl Differences {
    fn of_logits(run: &Run, logits: Tensor<2>) -> Self {
        let mut seen = Self::default();
        let expected = || run.logits.iter().flatten();
        let unit = expected().fold(0.0f64, |unit, value| unit.max(value.abs()));
        let found: Vec<f64> = logits.into_data().iter::<f64>().collect();
        assert_eq!(found.len(), expected().count());
        for (index, (found, expected)) in found.iter().zip(expected()).enumerate() {
            seen.logits.note(&format!("logit {index}"), (found - expected).abs() / unit);
        }
        seen
    }

    fn of_training(run: &Run, logits: Tensor<2>, loss: Tensor<1>, found: &HashMap<String, Vec<f64>>) -> Self {
        let mut seen = Self::of_logits(run, logits);
        let loss = f64::from(loss.into_scalar::<f32>());
        seen.loss.note("loss", (loss - run.loss).abs() / run.loss);
        // If a layer's output is normalized again, the gradient of its bias consists only of
        // rounding errors. No gradient's unit is therefore smaller than a thousandth of the largest
        // norm.
        let is_statistic = |key: &str| key.contains("running_");
        let gradients = run.probes.iter().filter(|(key, _)| !is_statistic(key));
        let smallest = gradients.map(|(_, [norm, _])| *norm).fold(0.0, f64::max) / 1000.0;
        for (key, &[norm, projection]) in &run.probes {
            let (worst, unit) = match is_statistic(key) {
                true => (&mut seen.statistics, norm),
                false => (&mut seen.gradients, norm.max(smallest)),
            };
            let values = &found[key];
            let found_norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
            worst.note(key, (found_norm - norm).abs() / unit);
            let direction = uniform(&format!("probe {key}"), values.len());
            let found_projection: f64 = values.iter().zip(direction).map(|(value, u)| value * u).sum();
            worst.note(key, (found_projection - projection).abs() / unit);
            // Single values are compared relative to the root mean square of the tensor.
            let unit = unit / (values.len() as f64).sqrt();
            for (value, expected) in values.iter().zip(run.first.get(key).into_iter().flatten()) {
                worst.note(key, (value - expected).abs() / unit);
            }
        }
        seen
    }

    /// Prints the differences and compares them with `limits` for logits, loss, statistics and
    /// gradients.
    fn check(&self, name: &str, limits: [f64; 4]) {
        let kinds = ["logits", "loss", "statistics", "gradients"];
        let found = [&self.logits, &self.loss, &self.statistics, &self.gradients];
        for ((kind, worst), limit) in kinds.into_iter().zip(found).zip(limits) {
            if !worst.place.is_empty() {
                println!("{name}: {kind} differ by {worst}");
            }
            assert!(worst.difference <= limit, "{name}: {kind} differ by {worst}, the limit is {limit:.1e}");
        }
    }
}

/// Runs one forward and backward pass of a network without dropout. Returns the differences from
/// torchvision, and the network afterwards.
fn train(name: &str, frozen: bool) -> (Differences, Network) {
    let Fixture { images: shape, labels, norm, eval, train } = fixture(name);
    let device = Device::default().autodiff();
    let network = network(name, &norm, &device).freeze_norms(frozen);
    let logits = network.forward(images(shape, &device));
    let loss = cross_entropy(logits.clone(), &labels);
    let gradients = loss.backward();
    let found = gradients_and_statistics(&network, &gradients);
    let run = if frozen { eval } else { train };
    (Differences::of_training(&run, logits, loss, &found), network)
}

// The limits are about five times the differences of the CPU backend, which are those of
// torchvision's own float32.

#[test]
fn evaluation_matches_torchvision() {
    // Measured: 8.1e-6, 6.5e-7, 4.0e-7, 4.0e-7.
    for (name, limit) in
        [("mobilenet_v2", 4e-5), ("mobilenet_v2_0.5", 3e-6), ("efficientnet_b0", 2e-6), ("tf_efficientnet_b0", 2e-6)]
    {
        let Fixture { images: shape, norm, eval, .. } = fixture(name);
        let device = Device::default();
        let (network, images) = (network(name, &norm, &device), images(shape, &device));
        Differences::of_logits(&eval, network.forward(images.clone())).check(name, [limit, 0.0, 0.0, 0.0]);
        let folded = Inference::new(&network).forward_channels_last(images.permute([0, 2, 3, 1]));
        Differences::of_logits(&eval, folded).check(&format!("folded {name}"), [limit, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn training_matches_torchvision() {
    for (name, limits) in [
        // Measured: 1.3e-5, 1.8e-6, 3.1e-6, 1.2e-2. Rounding moves some activations across a kink
        // of ReLU6, and each jump changes all gradients before it. Rounding the inputs and weights
        // of torchvision's float64 run has the same effect.
        ("mobilenet_v2", [6e-5, 1e-5, 1.5e-5, 6e-2]),
        // Measured: 3.8e-7, 8.0e-8, 6.9e-7, 1.2e-4. Here the norms keep all values away from the
        // kinks.
        ("mobilenet_v2_0.5", [2e-6, 1e-6, 3.5e-6, 6e-4]),
        // Measured: 8.4e-6, 1.5e-7, 2.7e-6, 7.7e-5. SiLU has no kinks.
        ("efficientnet_b0", [4e-5, 1e-6, 1.5e-5, 4e-4]),
        ("tf_efficientnet_b0", [4e-5, 1e-6, 1.5e-5, 4e-4]),
    ] {
        train(name, false).0.check(name, limits);
    }
}

#[test]
fn frozen_batch_norms_match_torchvision_in_eval_mode_and_keep_their_statistics() {
    for (name, limits) in [
        // Measured: 8.1e-6, 7.8e-7, none, 1.7e-5.
        ("mobilenet_v2", [4e-5, 4e-6, 0.0, 1e-4]),
        // Measured: 6.5e-7, 1.1e-7, none, 4.6e-7.
        ("mobilenet_v2_0.5", [3e-6, 1e-6, 0.0, 4e-6]),
        // Measured: 4.0e-7, 8.1e-8, none, 2.1e-6.
        ("efficientnet_b0", [2e-6, 1e-6, 0.0, 1e-5]),
        ("tf_efficientnet_b0", [2e-6, 1e-6, 0.0, 2e-5]),
    ] {
        let (differences, network) = train(name, true);
        differences.check(name, limits);
        let norm = fixture(name).norm;
        for (info, data) in state_dict(&network).into_iter().filter(|(info, _)| info.role == Role::Statistic) {
            assert_eq!(data, fill(&info, &norm), "{} moved", info.key);
        }
    }
}
