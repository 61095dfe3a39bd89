//! Scaling by width and depth: published rounding rules, and properties that hold for every
//! multiplier.

use mbconv_nets::registry::NAMES;
use mbconv_nets::scaling::{round_channels, round_repeats};
use mbconv_nets::{Architecture, NetworkOptions, Summary};
use proptest::prelude::*;

/// One base network of every kind.
const BASES: [&str; 6] = [
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_es",
    "mobilenet_v2",
    "mobilenet_v2_110d",
    "tf_efficientnet_b3",
];

fn scaled(base: &str, width: f64, depth: f64) -> Architecture {
    let options = NetworkOptions { width: Some(width), depth: Some(depth), ..NetworkOptions::new(base, 1000) };
    options.architecture().unwrap()
}

fn blocks_by_stage(architecture: &Architecture) -> Vec<usize> {
    let mut counts = vec![0; architecture.blocks.last().map_or(0, |block| block.stage + 1)];
    architecture.blocks.iter().for_each(|block| counts[block.stage] += 1);
    counts
}

#[test]
fn rounding_matches_the_published_code() {
    // Values of `round_filters` by the EfficientNet authors, and of `_make_divisible` in
    // torchvision and timm.
    for (channels, rounded) in [
        (3.2, 8),
        (8.0, 8),
        (8.9, 16),
        (11.0, 16),
        (12.0, 16),
        (17.6, 16),
        (17.8, 24),
        (19.9, 24),
        (26.4, 24),
        (35.2, 32),
        (36.0, 40),
        (44.0, 48),
        (123.2, 120),
        (1376.0, 1376),
        (1408.0, 1408),
        (5504.0, 5504),
    ] {
        assert_eq!(round_channels(channels), rounded, "{channels}");
    }
    for (repeats, depth, rounded) in [(1, 1.1, 2), (2, 1.1, 3), (4, 1.8, 8), (3, 3.1, 10), (4, 1.0, 4), (1, 0.5, 1)] {
        assert_eq!(round_repeats(repeats, depth), rounded, "{repeats} × {depth}");
    }
}

#[test]
fn stem_head_and_end_stages_scale_only_in_networks_that_scale_them() {
    let lite = scaled("efficientnet_lite0", 1.4, 1.8);
    assert_eq!((lite.stem, lite.head), (32, 1280));
    assert_eq!(blocks_by_stage(&lite), [1, 4, 4, 6, 6, 8, 1]);
    let standard = scaled("efficientnet_b0", 1.4, 1.8);
    assert_eq!((standard.stem, standard.head), (48, 1792));
    assert_eq!(blocks_by_stage(&standard), [2, 4, 4, 6, 6, 8, 2]);
    let mobilenet = |width| scaled("mobilenet_v2", width, 1.0).head;
    assert_eq!([0.5, 1.0, 1.4].map(mobilenet), [1280, 1280, 1792]);
}

#[test]
fn named_efficientnets_equal_their_base_with_their_multipliers() {
    for name in NAMES.into_iter().filter(|name| name.contains("efficientnet")) {
        let named = NetworkOptions::new(name, 1000).architecture().unwrap();
        let tensorflow = if name.starts_with("tf_") { "tf_" } else { "" };
        let base = match () {
            () if name.contains("lite") => "lite0",
            () if ["es", "em", "el"].iter().any(|suffix| name.ends_with(&format!("_{suffix}"))) => "es",
            () => "b0",
        };
        let options = NetworkOptions {
            width: Some(named.width),
            depth: Some(named.depth),
            resolution: Some(named.resolution),
            dropout: Some(named.dropout),
            norm_epsilon: Some(named.layer_options.norm_epsilon),
            norm_momentum: Some(named.layer_options.norm_momentum),
            ..NetworkOptions::new(format!("{tensorflow}efficientnet_{base}"), 1000)
        };
        assert_eq!(options.architecture().unwrap(), named, "{name}");
    }
}

proptest! {
    #[test]
    fn rounding_is_monotone_and_keeps_at_least_nine_tenths(a in 0.1f64..6000.0, b in 0.1f64..6000.0) {
        let (low, high) = (a.min(b), a.max(b));
        prop_assert!(round_channels(low) <= round_channels(high));
        for channels in [low, high] {
            let rounded = round_channels(channels);
            prop_assert_eq!(rounded % 8, 0);
            prop_assert!(rounded as f64 >= 0.9 * channels && rounded as f64 <= channels + 8.0);
        }
    }

    #[test]
    fn every_layer_keeps_at_least_nine_tenths_of_its_scaled_width(
        base in prop::sample::select(BASES.to_vec()),
        width in 0.1f64..4.0,
        depth in 0.1f64..4.0,
    ) {
        // Returns the widths of the stem and of each stage's first block.
        let asked = |network: &Architecture| -> Vec<usize> {
            let firsts = network.blocks.iter().filter(|block| block.index == 0);
            std::iter::once(network.stem).chain(firsts.map(|block| block.output)).collect()
        };
        let (one, scaled) = (asked(&scaled(base, 1.0, 1.0)), asked(&scaled(base, width, depth)));
        prop_assert_eq!(one.len(), scaled.len());
        let fixed_stem = ["efficientnet_lite0", "mobilenet_v2_110d"].contains(&base);
        for (layer, (one, scaled)) in one.into_iter().zip(scaled).enumerate() {
            let width = if fixed_stem && layer == 0 { 1.0 } else { width };
            let asked = one as f64 * width;
            prop_assert_eq!(scaled % 8, 0);
            prop_assert!(scaled as f64 >= 0.9 * asked && scaled as f64 <= asked + 8.0, "{} for {}", scaled, asked);
        }
    }

    #[test]
    fn cost_is_monotone_in_width_and_depth(
        base in prop::sample::select(BASES.to_vec()),
        widths in (0.1f64..4.0, 0.1f64..4.0),
        depths in (0.1f64..4.0, 0.1f64..4.0),
    ) {
        let small = scaled(base, widths.0.min(widths.1), depths.0.min(depths.1));
        let large = scaled(base, widths.0.max(widths.1), depths.0.max(depths.1));
        let [few, many] = [&small, &large].map(|network| Summary::new(network, [64; 2]).unwrap());
        prop_assert!(few.parameters <= many.parameters && few.macs <= many.macs);
        prop_assert!(few.activation_bytes <= many.activation_bytes);
        for (few, many) in blocks_by_stage(&small).into_iter().zip(blocks_by_stage(&large)) {
            prop_assert!(1 <= few && few <= many);
        }
        for block in &large.blocks {
            prop_assert!(block.output % 8 == 0 && block.input % 8 == 0);
        }
    }
}
