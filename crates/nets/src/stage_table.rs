//! Stage tables: a network as the papers describe it, one row per stage.
//!
//! MobileNetV2 and EfficientNet are such tables in Rust; a custom network is one in TOML:
//!
//! ```toml
//! name = "pocket"
//! stem = 16
//! head = 640
//! activation = "relu6"
//! squeeze_divisor = 4
//!
//! [[stages]]
//! channels = 16
//!
//! [[stages]]
//! expansion = 6
//! kernel = 5
//! stride = 2
//! channels = 24
//! repeats = 2
//! ```

use mbconv_kernels::Activation;
use serde::{Deserialize, Serialize};

use crate::architecture::{check, round_channels_to, round_repeats};
use crate::{ArchitectureError, Family, Padding};

/// Largest number of rows.
const MAX_STAGES: usize = 64;
/// Largest number of blocks per stage before scaling.
const MAX_REPEATS: usize = 256;
/// Largest number of channels of a layer before scaling.
const MAX_CHANNELS: usize = 65_536;
/// Largest expansion factor.
const MAX_EXPANSION: usize = 64;
/// Largest `divisor`.
const MAX_DIVISOR: usize = 64;
/// Largest kernel size.
const MAX_KERNEL: usize = 15;

/// One row of a stage table, before scaling. Only `channels` is required in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Expansion factor `t`: the expanded width is `t` times the block's input channels.
    #[serde(default = "one")]
    pub expansion: usize,
    /// Kernel size of the depthwise convolution.
    #[serde(default = "three")]
    pub kernel: usize,
    /// Stride of the stage's first block; the others have stride 1.
    #[serde(default = "one")]
    pub stride: usize,
    /// Output channels at width 1.
    pub channels: usize,
    /// Number of blocks at depth 1.
    #[serde(default = "one")]
    pub repeats: usize,
    /// Whether one dense k×k convolution replaces expansion and depthwise convolution.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fused: bool,
    /// Channels at width 1 that the first block's expansion factor multiplies, if not its input
    /// channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded_from: Option<usize>,
    /// Whether blocks with equal input and output shapes have a residual connection.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub residual: bool,
    /// Whether the stage has squeeze-excitation, if the network has.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub squeeze: bool,
}

impl Stage {
    /// A stage of inverted residuals.
    pub const fn new(expansion: usize, kernel: usize, stride: usize, channels: usize, repeats: usize) -> Self {
        Self {
            expansion,
            kernel,
            stride,
            channels,
            repeats,
            fused: false,
            expanded_from: None,
            residual: true,
            squeeze: true,
        }
    }

    /// Fuses expansion and depthwise convolution.
    pub const fn fused(self) -> Self {
        Self { fused: true, ..self }
    }
}

/// A network before scaling: constants, and one row per stage. In TOML only `name` and `stages` are
/// required; the defaults are those of EfficientNet-B0.
///
/// ```
/// use mbconv_nets::{Architecture, Stage, StageTable, Strides};
///
/// let stages = vec![Stage::new(1, 3, 1, 16, 1), Stage::new(6, 5, 2, 24, 2)];
/// let table = StageTable { stem: 16, head: 640, ..StageTable::new("pocket", stages) };
/// let network = Architecture::new(&table, 10, 3, &Strides::Imagenet).unwrap();
/// assert_eq!(network.blocks.len(), 3);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageTable {
    /// Name of the network.
    pub name: String,
    /// Family, which decides the tensors' keys in other projects' layouts and the initialization.
    #[serde(default)]
    pub family: Family,
    /// Side of the image the network is made for, in pixels.
    #[serde(default = "resolution")]
    pub resolution: usize,
    /// Width multiplier: scales the channels of every layer.
    #[serde(default = "once")]
    pub width: f64,
    /// Depth multiplier: scales the repeats of every stage.
    #[serde(default = "once")]
    pub depth: f64,
    /// Scaled channels are rounded to a multiple of this (torchvision's `round_nearest`).
    #[serde(default = "eight")]
    pub divisor: usize,
    /// Keeps the widths of stem and head and the depths of the first and last stage, as
    /// EfficientNet-Lite does.
    #[serde(default)]
    pub fixed_ends: bool,
    /// Output channels of the stem, a 3×3 convolution.
    #[serde(default = "stem")]
    pub stem: usize,
    /// Stride of the stem.
    #[serde(default = "stem_stride")]
    pub stem_stride: usize,
    /// Output channels of the last pointwise convolution.
    #[serde(default = "head")]
    pub head: usize,
    /// Effect of the width multiplier on `head`.
    #[serde(default)]
    pub head_width: HeadWidth,
    /// The squeeze-excitation bottleneck has the block's input channels divided by this; 0 disables
    /// it.
    #[serde(default = "squeeze_divisor")]
    pub squeeze_divisor: usize,
    /// Activation of every layer except the linear bottlenecks: `"silu"`, `"relu6"` or `"relu"`.
    #[serde(default = "silu")]
    pub activation: Activation,
    /// Epsilon of batch-norm.
    #[serde(default = "norm_epsilon")]
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, as PyTorch defines it.
    #[serde(default = "norm_momentum")]
    pub norm_momentum: f64,
    /// Zero padding.
    #[serde(default)]
    pub padding: Padding,
    /// Dropout before the classifier.
    #[serde(default = "fifth")]
    pub dropout: f64,
    /// Stochastic depth: drop probability of the last block's branch.
    #[serde(default = "fifth")]
    pub drop_path: f64,
    /// The rows.
    pub stages: Vec<Stage>,
}

/// Effect of the width multiplier on the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadWidth {
    /// The head is scaled like every other layer (EfficientNet).
    #[default]
    Scaled,
    /// The head is scaled only by multipliers above 1 (MobileNetV2).
    Grown,
    /// The head is not scaled.
    Fixed,
}

fn one() -> usize {
    1
}
fn three() -> usize {
    3
}
fn yes() -> bool {
    true
}
fn resolution() -> usize {
    224
}
fn once() -> f64 {
    1.0
}
fn eight() -> usize {
    8
}
fn stem() -> usize {
    32
}
fn stem_stride() -> usize {
    2
}
fn head() -> usize {
    1280
}
fn squeeze_divisor() -> usize {
    4
}
fn silu() -> Activation {
    Activation::Silu
}
fn norm_epsilon() -> f64 {
    1e-5
}
fn norm_momentum() -> f64 {
    0.1
}
fn fifth() -> f64 {
    0.2
}

impl StageTable {
    /// A table with EfficientNet-B0's constants.
    pub fn new(name: impl Into<String>, stages: Vec<Stage>) -> Self {
        Self {
            name: name.into(),
            family: Family::default(),
            resolution: resolution(),
            width: once(),
            depth: once(),
            divisor: eight(),
            fixed_ends: false,
            stem: stem(),
            stem_stride: stem_stride(),
            head: head(),
            head_width: HeadWidth::default(),
            squeeze_divisor: squeeze_divisor(),
            activation: silu(),
            norm_epsilon: norm_epsilon(),
            norm_momentum: norm_momentum(),
            padding: Padding::default(),
            dropout: fifth(),
            drop_path: fifth(),
            stages,
        }
    }

    /// Scales channels by the width multiplier and rounds them.
    pub(crate) fn scaled(&self, channels: usize) -> usize {
        round_channels_to(channels as f64 * self.width, self.divisor)
    }

    /// Returns the output channels of the head after scaling.
    pub(crate) fn scaled_head(&self) -> usize {
        match self.head_width {
            HeadWidth::Scaled if !self.fixed_ends => self.scaled(self.head),
            HeadWidth::Grown if !self.fixed_ends => {
                round_channels_to(self.head as f64 * self.width.max(1.0), self.divisor)
            }
            _ => self.head,
        }
    }

    /// Returns the number of blocks of each stage after scaling.
    pub(crate) fn scaled_repeats(&self) -> Vec<usize> {
        let last = self.stages.len() - 1;
        let fixed = |stage: usize| self.fixed_ends && (stage == 0 || stage == last);
        let scaled = |(stage, row): (usize, &Stage)| match fixed(stage) {
            true => row.repeats,
            false => round_repeats(row.repeats, self.depth),
        };
        self.stages.iter().enumerate().map(scaled).collect()
    }

    /// Returns the channels of the squeeze-excitation bottleneck of a block with `input` channels.
    pub(crate) fn squeezed(&self, input: usize) -> Option<usize> {
        (self.squeeze_divisor > 0).then(|| (input / self.squeeze_divisor.max(1)).max(1))
    }

    /// Checks the range of every value.
    pub(crate) fn check(&self) -> Result<(), ArchitectureError> {
        let channels =
            |key, value: usize| check((1..=MAX_CHANNELS).contains(&value), key, value, "between 1 and 65536");
        let scale = |key, value: f64| check((0.01..=20.0).contains(&value), key, value, "between 0.01 and 20");
        let share = |key, value: f64| check((0.0..=1.0).contains(&value), key, value, "in [0, 1]");
        let probability = |key, value: f64| check((0.0..1.0).contains(&value), key, value, "in [0, 1)");
        let name = self.name.trim();
        check(!name.is_empty() && name.len() <= 100, "name", format!("{:?}", self.name), "of 1 to 100 characters")?;
        check((1..=MAX_STAGES).contains(&self.stages.len()), "stages", self.stages.len(), "1 to 64 rows")?;
        scale("width", self.width)?;
        scale("depth", self.depth)?;
        channels("stem", self.stem)?;
        channels("head", self.head)?;
        check((1..=4).contains(&self.stem_stride), "stem_stride", self.stem_stride, "between 1 and 4")?;
        check((1..=MAX_DIVISOR).contains(&self.divisor), "divisor", self.divisor, "between 1 and 64")?;
        check(self.squeeze_divisor <= MAX_CHANNELS, "squeeze_divisor", self.squeeze_divisor, "at most 65536")?;
        share("norm_epsilon", self.norm_epsilon)?;
        share("norm_momentum", self.norm_momentum)?;
        probability("dropout", self.dropout)?;
        probability("drop_path", self.drop_path)?;
        let mut input = self.stem;
        for (index, row) in self.stages.iter().enumerate() {
            row.check(index + 1, input)?;
            input = row.channels;
        }
        Ok(())
    }
}

impl Stage {
    /// Checks the range of every value of row `stage`, counted from 1, whose input has `input`
    /// channels.
    fn check(&self, stage: usize, input: usize) -> Result<(), ArchitectureError> {
        let ensure = |holds: bool, key, value: usize, expected: String| match holds {
            true => Ok(()),
            false => Err(ArchitectureError::Stage { stage, key, value: value.to_string(), expected }),
        };
        let within = |key, value: usize, most: usize| {
            ensure((1..=most).contains(&value), key, value, format!("between 1 and {most}"))
        };
        within("channels", self.channels, MAX_CHANNELS)?;
        within("repeats", self.repeats, MAX_REPEATS)?;
        within("expansion", self.expansion, MAX_EXPANSION)?;
        within("kernel", self.kernel, MAX_KERNEL)?;
        ensure(self.kernel % 2 == 1, "kernel", self.kernel, "odd".into())?;
        within("stride", self.stride, 4)?;
        within("expanded_from", self.expanded_from.unwrap_or(input), MAX_CHANNELS)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;
    use crate::layout::tensors;
    use crate::{Inference, Layout, NetworkOptions, Strides};

    fn table(text: serde_json::Value) -> StageTable {
        serde_json::from_value(text).unwrap()
    }

    /// EfficientNet-B0 and MobileNetV2, written down.
    fn published() -> [(&'static str, StageTable); 2] {
        let rows = |rows: &[[usize; 5]]| -> Vec<serde_json::Value> {
            let row = |[expansion, kernel, stride, channels, repeats]: [usize; 5]| serde_json::json!({ "expansion": expansion, "kernel": kernel, "stride": stride, "channels": channels, "repeats": repeats });
            rows.iter().copied().map(row).collect()
        };
        let b0 = rows(&[
            [1, 3, 1, 16, 1],
            [6, 3, 2, 24, 2],
            [6, 5, 2, 40, 2],
            [6, 3, 2, 80, 3],
            [6, 5, 1, 112, 3],
            [6, 5, 2, 192, 4],
            [6, 3, 1, 320, 1],
        ]);
        let mobilenet = rows(&[
            [1, 3, 1, 16, 1],
            [6, 3, 2, 24, 2],
            [6, 3, 2, 32, 3],
            [6, 3, 2, 64, 4],
            [6, 3, 1, 96, 3],
            [6, 3, 2, 160, 3],
            [6, 3, 1, 320, 1],
        ]);
        [
            ("efficientnet_b0", table(serde_json::json!({ "name": "mine", "stages": b0 }))),
            (
                "mobilenet_v2",
                table(serde_json::json!({
                    "name": "mine", "family": "mobilenet_v2", "head_width": "grown", "squeeze_divisor": 0,
                    "activation": "relu6", "drop_path": 0.0, "stages": mobilenet
                })),
            ),
        ]
    }

    #[test]
    fn papers_tables_written_in_toml_give_the_papers_networks() {
        for (name, table) in published() {
            for (width, depth) in [(None, None), (Some(0.5), None), (Some(1.4), Some(1.8)), (None, Some(1.1))] {
                let named = NetworkOptions { width, depth, ..NetworkOptions::new(name, 10) };
                let own = NetworkOptions { width, depth, ..NetworkOptions::of_table(table.clone(), 10) };
                assert_eq!(own.architecture().unwrap(), named.architecture().unwrap());
                let cifar = |options: &NetworkOptions| {
                    NetworkOptions { strides: Strides::Cifar, ..options.clone() }.architecture().unwrap()
                };
                assert_eq!(cifar(&own), cifar(&named));
            }
        }
    }

    #[test]
    fn channels_are_multiples_of_the_divisor() {
        let [_, (_, table)] = published();
        // d-li14's, whose head is no wider than the paper's.
        let own = NetworkOptions::of_table(StageTable { width: 0.1, divisor: 4, ..table.clone() }, 10);
        let named = NetworkOptions::new("mobilenet_v2_0.1_round4", 10);
        assert_eq!(own.architecture().unwrap(), named.architecture().unwrap());
        let wide = StageTable { width: 1.01, divisor: 1, ..table };
        let wide = NetworkOptions::of_table(wide, 10).architecture().unwrap();
        assert_eq!((wide.stem, wide.head, wide.blocks[16].output), (32, 1293, 323));
    }

    #[test]
    fn tables_round_trip_through_json() {
        for (_, table) in published() {
            let options = NetworkOptions::of_table(table, 7);
            let text = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<NetworkOptions>(&text).unwrap(), options);
        }
    }

    /// Everything that the published networks do not have: large and tiny kernels, fused stages
    /// with squeeze-excitation, stages without residuals or squeeze-excitation, strides of 3,
    /// widths that are no multiples of 8.
    fn odd() -> StageTable {
        table(serde_json::json!({
            "name": "odd", "stem": 9, "stem_stride": 1, "head": 37, "resolution": 40, "width": 0.9,
            "stages": [
                { "channels": 11, "kernel": 1 },
                { "channels": 13, "expansion": 2, "fused": true, "repeats": 2 },
                { "channels": 16, "expansion": 3, "kernel": 9, "stride": 3, "squeeze": false, "repeats": 2 },
                { "channels": 16, "expansion": 2, "kernel": 15, "residual": false },
                { "channels": 24, "expansion": 2, "kernel": 7, "stride": 4 }
            ]
        }))
    }

    #[test]
    fn unusual_tables_train_and_infer() {
        let device = Device::flex();
        device.seed(1);
        let architecture = NetworkOptions::of_table(odd(), 5).architecture().unwrap();
        let network = architecture.init(&device);
        let images = Tensor::<4>::random([2, 3, 40, 40], Distribution::Normal(0.0, 1.0), &device);
        let expected = network.forward(images.clone());
        assert_eq!(expected.dims(), [2, 5]);
        let fast = Inference::new(&network).forward_channels_last(images.permute([0, 2, 3, 1]));
        let difference: f32 = (fast - expected).abs().max().into_scalar();
        assert!(difference < 1e-4, "{difference}");
        for layout in Layout::ALL.into_iter().filter(|layout| layout.holds(&architecture)) {
            let keys: std::collections::BTreeSet<_> =
                layout.tensors(&architecture).into_iter().map(|tensor| tensor.key).collect();
            assert_eq!(keys.len(), tensors(&architecture).len(), "{layout:?}");
        }
    }

    #[test]
    fn invalid_values_are_named() {
        let error = |change: &dyn Fn(&mut StageTable)| {
            let mut table = odd();
            change(&mut table);
            NetworkOptions::of_table(table, 5).architecture().unwrap_err().to_string()
        };
        type Change<'a> = &'a dyn Fn(&mut StageTable);
        let cases: [(Change, &str); 17] = [
            (&|table| table.stages.clear(), "`stages` is 0, but must be 1 to 64 rows"),
            (&|table| table.stages[1].channels = 0, "stage 2 of the table: `channels` is 0"),
            (&|table| table.stages[2].kernel = 4, "stage 3 of the table: `kernel` is 4, but must be odd"),
            (&|table| table.stages[2].kernel = 17, "between 1 and 15"),
            (&|table| table.stages[4].stride = 0, "stage 5 of the table: `stride` is 0"),
            (&|table| table.stages[4].expansion = 0, "`expansion` is 0"),
            (&|table| table.stages[4].repeats = 1 << 40, "`repeats` is 1099511627776"),
            (&|table| table.stem = 0, "`stem` is 0"),
            (
                &|table| (table.width, table.stages[3].channels) = (20.0, 65_536),
                "`channels` is 1310720, but must be at most 1048576 after scaling",
            ),
            (
                &|table| (table.depth, table.stages[3].repeats, table.stages[4].repeats) = (20.0, 256, 256),
                "`repeats` is 10340, but must be at most 8192 in total after scaling",
            ),
            (
                &|table| (table.stages[3].channels, table.stages[3].repeats) = (60_000, 200),
                "but must be at most 100000000000",
            ),
            (&|table| table.width = f64::NAN, "`width` is NaN"),
            (&|table| table.depth = 0.0, "`depth` is 0, but must be between 0.01 and 20"),
            (&|table| table.divisor = 0, "`divisor` is 0, but must be between 1 and 64"),
            (&|table| table.drop_path = 1.0, "`drop_path` is 1"),
            (&|table| table.name = " ".into(), "`name`"),
            (&|table| table.resolution = 3, "stage 5 has stride 4, but its input is 1×1 pixels: a total stride of 12"),
        ];
        for (change, words) in cases {
            let error = error(change);
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            r#"{"name": "x", "stages": [], "hed": 3}"#,
            r#"{"name": "x", "stages": [{"channels": 8, "chanels": 8}]}"#,
            r#"{"name": "x", "stages": [{"kernel": 3}]}"#,
            r#"{"name": "x", "activation": "gelu", "stages": []}"#,
        ] {
            assert!(serde_json::from_str::<StageTable>(text).is_err(), "{text}");
        }
    }
}
