//! Networks of a user's own: the papers' stage tables as data that can be written by hand.
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

use crate::architecture::{Blueprint, Choices, check, round_channels_to};
use crate::{Architecture, ArchitectureError, ArchitectureOptions, Family, Initialisation, Padding, Stage};

/// Most rows of a table.
const MAX_STAGES: usize = 64;
/// Most blocks of a stage before scaling.
const MAX_REPEATS: usize = 256;
/// Most channels of a layer before scaling.
const MAX_CHANNELS: usize = 65_536;
/// Largest expansion factor.
const MAX_EXPANSION: usize = 64;
/// Largest number that widths may be multiples of.
const MAX_DIVISOR: usize = 64;
/// Largest side of a kernel.
const MAX_KERNEL: usize = 15;

/// A network as its author writes it down: constants, and one row a stage. All but `name` and `stages` may be left out; the
/// defaults are EfficientNet-B0's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageTable {
    /// What to call the network.
    pub name: String,
    /// Whose keys its tensors have in other projects' layouts, and how its weights start.
    #[serde(default)]
    pub family: Family,
    /// Side of the image it is made for.
    #[serde(default = "resolution")]
    pub resolution: usize,
    /// Multiplier of every layer's channels.
    #[serde(default = "once")]
    pub width: f64,
    /// Multiplier of every stage's repeats.
    #[serde(default = "once")]
    pub depth: f64,
    /// A multiplied width is rounded to a multiple of this (torchvision's `round_nearest`).
    #[serde(default = "eight")]
    pub divisor: usize,
    /// Stem and head keep their width, the first and the last stage their depth, as in EfficientNet-Lite.
    #[serde(default)]
    pub fixed_ends: bool,
    /// Output channels of the stem, a 3×3 convolution.
    #[serde(default = "stem")]
    pub stem: usize,
    /// Its stride.
    #[serde(default = "stem_stride")]
    pub stem_stride: usize,
    /// Output channels of the last pointwise convolution.
    #[serde(default = "head")]
    pub head: usize,
    /// How a width multiplier changes `head`.
    #[serde(default)]
    pub head_width: HeadWidth,
    /// Squeeze-excitation narrows to the block's input channels divided by this; 0 means that there is none.
    #[serde(default = "squeeze_divisor")]
    pub squeeze_divisor: usize,
    /// Activation of every layer but the linear bottlenecks: `"silu"`, `"relu6"` or `"relu"`.
    #[serde(default = "silu", with = "ActivationName")]
    pub activation: Activation,
    /// ε of batch-norm.
    #[serde(default = "norm_epsilon")]
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, in PyTorch's sense.
    #[serde(default = "norm_momentum")]
    pub norm_momentum: f64,
    /// Zeros around maps.
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

/// How a width multiplier changes the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadWidth {
    /// As every other layer (EfficientNet).
    #[default]
    Scaled,
    /// Above 1 only (MobileNetV2).
    Grown,
    /// Not at all.
    Fixed,
}

/// [`Activation`] by name.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Activation", rename_all = "snake_case")]
enum ActivationName {
    Identity,
    Relu,
    Relu6,
    Silu,
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
    /// The network that the table describes, with the changes of `options`.
    pub(crate) fn architecture(&self, options: &ArchitectureOptions) -> Result<Architecture, ArchitectureError> {
        self.check()?;
        let width = options.width.unwrap_or(self.width);
        let head = match self.head_width {
            _ if self.fixed_ends => self.head,
            HeadWidth::Scaled => round_channels_to(self.head as f64 * width, self.divisor),
            HeadWidth::Grown => round_channels_to(self.head as f64 * width.max(1.0), self.divisor),
            HeadWidth::Fixed => self.head,
        };
        let blueprint = Blueprint {
            family: self.family,
            stages: &self.stages,
            width,
            divisor: self.divisor,
            depth: options.depth.unwrap_or(self.depth),
            fixed_ends: self.fixed_ends,
            stem: self.stem,
            stem_stride: self.stem_stride,
            head,
            squeeze_divisor: Some(self.squeeze_divisor).filter(|&divisor| divisor > 0),
            activation: self.activation,
            norm_epsilon: options.norm_epsilon.unwrap_or(self.norm_epsilon),
            norm_momentum: options.norm_momentum.unwrap_or(self.norm_momentum),
            padding: self.padding,
            initialisation: match self.family {
                Family::MobileNetV2 => Initialisation::FanOut,
                Family::EfficientNet => Initialisation::FanOutPerGroup,
            },
            resolution: self.resolution,
        };
        let choices = Choices {
            classes: options.classes,
            input_channels: options.input_channels,
            dropout: options.dropout.unwrap_or(self.dropout),
            drop_path: options.drop_path.unwrap_or(self.drop_path),
            strides: &options.strides,
        };
        Architecture::build(blueprint, choices)
    }

    /// Is every number possible?
    fn check(&self) -> Result<(), ArchitectureError> {
        let channels =
            |key, value: usize| check((1..=MAX_CHANNELS).contains(&value), key, value, "between 1 and 65536");
        let name = self.name.trim();
        check(!name.is_empty() && name.len() <= 100, "name", format!("{:?}", self.name), "of 1 to 100 characters")?;
        check((1..=MAX_STAGES).contains(&self.stages.len()), "stages", self.stages.len(), "1 to 64 rows")?;
        channels("stem", self.stem)?;
        channels("head", self.head)?;
        check((1..=4).contains(&self.stem_stride), "stem_stride", self.stem_stride, "between 1 and 4")?;
        check((1..=MAX_DIVISOR).contains(&self.divisor), "divisor", self.divisor, "between 1 and 64")?;
        check(self.squeeze_divisor <= MAX_CHANNELS, "squeeze_divisor", self.squeeze_divisor, "at most 65536")?;
        let mut input = self.stem;
        for (index, row) in self.stages.iter().enumerate() {
            self.check_row(index + 1, row, input)?;
            input = row.channels;
        }
        Ok(())
    }

    /// Is `row`, the `stage`th from 1, possible behind `input` channels?
    fn check_row(&self, stage: usize, row: &Stage, input: usize) -> Result<(), ArchitectureError> {
        let ensure = |holds: bool, key, value: usize, expected: String| match holds {
            true => Ok(()),
            false => Err(ArchitectureError::Stage { stage, key, value: value.to_string(), expected }),
        };
        let within = |key, value: usize, most: usize| {
            ensure((1..=most).contains(&value), key, value, format!("between 1 and {most}"))
        };
        within("channels", row.channels, MAX_CHANNELS)?;
        within("repeats", row.repeats, MAX_REPEATS)?;
        within("expansion", row.expansion, MAX_EXPANSION)?;
        within("kernel", row.kernel, MAX_KERNEL)?;
        ensure(row.kernel % 2 == 1, "kernel", row.kernel, "odd, so that it has a centre".into())?;
        within("stride", row.stride, 4)?;
        let from = row.expanded_from.unwrap_or(input);
        within("expanded_from", from, MAX_CHANNELS)?;
        let hidden = from * row.expansion;
        let groups = if row.fused { 1 } else { hidden };
        let kind = match row.fused {
            true => "1, as its k×k convolution is fused and so dense".to_string(),
            false => format!("{hidden}, the expanded width, as its k×k convolution is depthwise"),
        };
        match row.groups {
            Some(found) if found == 0 || !hidden.is_multiple_of(found) => {
                ensure(false, "groups", found, format!("a divisor of the expanded width {hidden}, and here {kind}"))
            }
            Some(found) => ensure(found == groups, "groups", found, kind),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;
    use crate::layout::tensors;
    use crate::{Inference, Layout, Strides};

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
    fn the_papers_tables_written_down_are_the_papers_networks() {
        for (name, table) in published() {
            for (width, depth) in [(None, None), (Some(0.5), None), (Some(1.4), Some(1.8)), (None, Some(1.1))] {
                let named = ArchitectureOptions { width, depth, ..ArchitectureOptions::new(name, 10) };
                let own = ArchitectureOptions { width, depth, ..ArchitectureOptions::of_table(table.clone(), 10) };
                assert_eq!(own.architecture().unwrap(), named.architecture().unwrap());
                let cifar = |options: &ArchitectureOptions| {
                    ArchitectureOptions { strides: Strides::Cifar, ..options.clone() }.architecture().unwrap()
                };
                assert_eq!(cifar(&own), cifar(&named));
            }
        }
    }

    #[test]
    fn widths_are_multiples_of_the_tables_divisor() {
        let [_, (_, table)] = published();
        // d-li14's, whose head is no wider than the paper's.
        let own = ArchitectureOptions::of_table(StageTable { width: 0.1, divisor: 4, ..table.clone() }, 10);
        let named = ArchitectureOptions::new("mobilenet_v2_0.1_round4", 10);
        assert_eq!(own.architecture().unwrap(), named.architecture().unwrap());
        let wide = StageTable { width: 1.01, divisor: 1, ..table };
        let wide = ArchitectureOptions::of_table(wide, 10).architecture().unwrap();
        assert_eq!((wide.stem, wide.head, wide.blocks[16].output), (32, 1293, 323));
    }

    #[test]
    fn tables_survive_the_way_through_a_model_files_header() {
        for (_, table) in published() {
            let options = ArchitectureOptions::of_table(table, 7);
            let text = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<ArchitectureOptions>(&text).unwrap(), options);
        }
    }

    /// Everything that the published networks do not have: large and tiny kernels, fused stages with squeeze-excitation,
    /// stages without residuals or squeeze-excitation, strides of 3, widths that are no multiples of 8.
    fn odd() -> StageTable {
        table(serde_json::json!({
            "name": "odd", "stem": 9, "stem_stride": 1, "head": 37, "resolution": 40, "width": 0.9,
            "stages": [
                { "channels": 11, "kernel": 1, "groups": 9 },
                { "channels": 13, "expansion": 2, "fused": true, "groups": 1, "repeats": 2 },
                { "channels": 16, "expansion": 3, "kernel": 9, "stride": 3, "squeeze": false, "repeats": 2 },
                { "channels": 16, "expansion": 2, "kernel": 15, "residual": false },
                { "channels": 24, "expansion": 2, "kernel": 7, "stride": 4 }
            ]
        }))
    }

    #[test]
    fn odd_tables_compute() {
        let device = Device::flex();
        device.seed(1);
        let architecture = ArchitectureOptions::of_table(odd(), 5).architecture().unwrap();
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
    fn impossible_tables_are_named() {
        let error = |change: &dyn Fn(&mut StageTable)| {
            let mut table = odd();
            change(&mut table);
            ArchitectureOptions::of_table(table, 5).architecture().unwrap_err().to_string()
        };
        type Change<'a> = &'a dyn Fn(&mut StageTable);
        let cases: [(Change, &str); 19] = [
            (&|table| table.stages.clear(), "`stages` is 0, but must be 1 to 64 rows"),
            (&|table| table.stages[1].channels = 0, "stage 2 of the table: `channels` is 0"),
            (&|table| table.stages[2].kernel = 4, "stage 3 of the table: `kernel` is 4, but must be odd"),
            (&|table| table.stages[2].kernel = 17, "between 1 and 15"),
            (&|table| table.stages[4].stride = 0, "stage 5 of the table: `stride` is 0"),
            (&|table| table.stages[4].expansion = 0, "`expansion` is 0"),
            (&|table| table.stages[4].repeats = 1 << 40, "`repeats` is 1099511627776"),
            (&|table| table.stages[0].groups = Some(5), "a divisor of the expanded width 9, and here 9"),
            (
                &|table| table.stages[1].groups = Some(2),
                "`groups` is 2, but must be 1, as its k×k convolution is fused",
            ),
            (&|table| table.stem = 0, "`stem` is 0"),
            (
                &|table| (table.width, table.stages[3].channels) = (20.0, 65_536),
                "`channels` is 1310720, but must be at most 1048576, scaled",
            ),
            (
                &|table| (table.depth, table.stages[3].repeats, table.stages[4].repeats) = (20.0, 256, 256),
                "`repeats` is 10340, but must be at most 8192 in all, scaled",
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
            (&|table| table.resolution = 3, "stride 4 of stage 5 meets a map of 1×1 pixels: 12 strides in all"),
        ];
        for (change, words) in cases {
            let error = error(change);
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn misspelt_keys_are_refused() {
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
