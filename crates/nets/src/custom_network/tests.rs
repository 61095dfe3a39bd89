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
