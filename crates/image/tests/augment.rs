//! Augmentation gives the same pixels as Pillow, and its policies depend only on the random
//! generator.
//!
//! The fixtures are written by `scripts/golden_augment.py`.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use mbconv_image::augment::{
    AugmentConfig, Augmentation, ColorJitter, EraseMode, Operation, Policy, RandomErasing, Sampling,
};
use mbconv_image::{Interpolation, RgbPixels, decode_rgb, sample_rng};
use proptest::prelude::*;
use serde::Deserialize;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/augment").join(name)
}

fn load(name: &str) -> RgbPixels {
    let bytes = fs::read(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    decode_rgb(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[derive(Deserialize)]
struct Row {
    name: String,
    argument: f64,
    filter: String,
}

impl Row {
    fn operation(&self) -> Operation {
        let argument = self.argument;
        match self.name.as_str() {
            "ShearX" => Operation::ShearX(argument),
            "ShearY" => Operation::ShearY(argument),
            "TranslateX" => Operation::TranslateX(argument),
            "TranslateY" => Operation::TranslateY(argument),
            "Rotate" => Operation::Rotate(argument),
            "Brightness" => Operation::Brightness(argument),
            "Contrast" => Operation::Contrast(argument),
            "Colour" => Operation::Color(argument),
            "Sharpness" => Operation::Sharpness(argument),
            "Hue" => Operation::Hue(argument),
            "Posterize" => Operation::Posterize(argument as u32),
            "Solarize" => Operation::Solarize(argument),
            "SolarizeAdd" => Operation::SolarizeAdd(argument as u8),
            "AutoContrast" => Operation::AutoContrast,
            "Equalize" => Operation::Equalize,
            "Invert" => Operation::Invert,
            "Blur" => Operation::Blur(argument),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn operations_match_pillow() {
    let rows: Vec<Row> = serde_json::from_slice(&fs::read(fixture("operations.json")).unwrap()).unwrap();
    assert!(rows.len() > 60);
    let mut faults = Vec::new();
    for image in ["dull", "few", "line", "dot"] {
        let source = load(&format!("{image}.png"));
        let expected = load(&format!("{image}_operations.png"));
        for (row, expected) in rows.iter().zip(expected.data.chunks(source.data.len())) {
            let interpolation = if row.filter == "bicubic" { Interpolation::Bicubic } else { Interpolation::Bilinear };
            let sampling = Sampling { interpolation, fill: [124, 116, 104] };
            let ours = row.operation().apply(source.clone(), sampling).data;
            let greatest = ours.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            if greatest > 0 {
                let differing = ours.iter().zip(expected).filter(|(a, b)| a != b).count();
                faults.push(format!(
                    "{image} {} {} {}: {differing} values by up to {greatest}",
                    row.name, row.argument, row.filter
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

const POLICIES: [&str; 18] = [
    "rand-m9-mstd0.5-inc1",
    "rand-m9-n3-mstd0.5",
    "rand-m15-mmax20-p0.8-mstd101-inc1",
    "rand-mstd1-tweights",
    "rand-m6-t3a-inc1",
    "rand-m6-t3aw",
    "rand-m9-w0",
    "v0",
    "v0r-mstd0.5",
    "original",
    "originalr",
    "3a",
    "augmix-m5-w4-d2",
    "augmix-m3-b1",
    "ra-m9-n2",
    "ta_wide",
    "cifar10",
    "svhn",
];

fn augmentation(config: AugmentConfig) -> Augmentation {
    Augmentation::new(config, Interpolation::Bilinear, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
}

fn with_policy(name: &str) -> Augmentation {
    augmentation(AugmentConfig { policy: Some(name.parse().unwrap()), ..AugmentConfig::default() })
}

#[test]
fn policies_depend_only_on_seed_epoch_and_index() {
    let image = load("dull.png");
    for name in POLICIES {
        let augmentation = with_policy(name);
        let apply = |seed, epoch, index| augmentation.apply(image.clone(), &mut sample_rng(seed, epoch, index)).data;
        assert_eq!(apply(1, 2, 3), apply(1, 2, 3), "{name}");
        let different: HashSet<Vec<u8>> = (0..40).map(|index| apply(1, 2, index)).collect();
        assert!(different.len() > 5, "{name}: {}", different.len());
        assert!(different.iter().all(|data| data.len() == image.data.len()));
        assert_eq!(name.parse::<Policy>().unwrap().to_string(), name);
    }
}

#[test]
fn errors_name_the_invalid_part_of_a_policy() {
    for (name, words) in [
        ("random", "no such policy"),
        ("rand-x3", "`x3`"),
        ("rand-m", "`m`"),
        ("rand-mfoo", "`mfoo`"),
        ("rand-m9-m8", "twice"),
        ("rand-p1.5", "between 0 and 1"),
        ("rand-tfoo", "weights, 3a or 3aw"),
        ("rand-w1", "`w`"),
        ("rand-n20-w0", "`n`"),
        ("rand-m1e999", "`m`"),
        ("v0-m9", "`m9`"),
        ("augmix-w0", "`w`"),
        ("augmix-a0", "`a`"),
        ("ra-m31", "`m`"),
        ("ta_wide-m9", "`m9`"),
        ("", "no such policy"),
    ] {
        let error = name.parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}

/// timm applies each of two layers with probability 0.5, which leaves a quarter of the images
/// unchanged. This image has no values above 230, so that one of the fifteen operations has no
/// effect: (1/2 + 1/30)² = 28 %.
#[test]
fn rand_augment_leaves_the_same_fraction_unchanged_as_timm() {
    let image = load("dull.png");
    let augmentation = with_policy("rand-m9");
    let same = (0..2000).filter(|&i| augmentation.apply(image.clone(), &mut sample_rng(0, 0, i)).data == image.data);
    let share = same.count() as f64 / 2000.0;
    assert!((0.25..0.32).contains(&share), "{share}");
}

#[test]
fn erasing_covers_the_requested_area() {
    let image = RgbPixels { width: 64, height: 48, data: vec![7; 64 * 48 * 3] };
    for (mode, count) in [(EraseMode::Const, [1, 1]), (EraseMode::Rand, [1, 1]), (EraseMode::Pixel, [1, 3])] {
        let erasing = RandomErasing { probability: 0.25, mode, count, ..RandomErasing::default() };
        let augmentation = augmentation(AugmentConfig { erasing: Some(erasing), ..AugmentConfig::default() });
        let mut erased = 0;
        for index in 0..400 {
            let out = augmentation.apply(image.clone(), &mut sample_rng(0, 0, index)).data;
            let painted: Vec<&[u8]> = out.chunks(3).filter(|pixel| *pixel != [7, 7, 7]).collect();
            if painted.is_empty() {
                continue;
            }
            erased += 1;
            let share = painted.len() as f64 / (64.0 * 48.0);
            assert!((0.003..0.36).contains(&share), "{mode:?} {share}");
            let colours: HashSet<&[u8]> = painted.iter().copied().collect();
            match mode {
                EraseMode::Const => assert_eq!(colours, HashSet::from([&[124, 116, 104][..]])),
                EraseMode::Rand => assert_eq!(colours.len(), 1),
                EraseMode::Pixel => assert!(colours.len() > painted.len() / 2),
            }
        }
        assert!((70..135).contains(&erased), "{mode:?} {erased}");
    }
}

#[test]
fn vertical_flip_reverses_rows() {
    let image = RgbPixels { width: 1, height: 3, data: (1..=9).collect() };
    let augmentation = augmentation(AugmentConfig { vertical_flip: 1.0, ..AugmentConfig::default() });
    let out = augmentation.apply(image, &mut sample_rng(0, 0, 0));
    assert_eq!(out.data, [7, 8, 9, 4, 5, 6, 1, 2, 3]);
}

#[test]
fn jitter_is_a_number_or_a_list() {
    #[derive(Deserialize)]
    struct Holder {
        x: ColorJitter,
    }
    let parse = |text: &str| toml::from_str::<Holder>(text).map(|holder| holder.x);
    let all = ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.0 };
    assert_eq!(parse("x = 0.4").unwrap(), all);
    assert_eq!(parse("x = [0.4, 0.4, 0.4]").unwrap(), all);
    assert_eq!(parse("x = [0.4, 0.4, 0.4, 0.1]").unwrap(), ColorJitter { hue: 0.1, ..all });
    assert!(parse("x = [1.0]").unwrap_err().to_string().contains("brightness"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Covers odd sizes and any colors.
    #[test]
    fn policies_keep_the_size_of_any_image(
        width in 1usize..20, height in 1usize..20, policy in 0usize..POLICIES.len(), seed in any::<u64>(),
    ) {
        let data: Vec<u8> = (0..width * height * 3).map(|i| (seed.wrapping_mul(i as u64 + 1) >> 29) as u8).collect();
        let config = AugmentConfig {
            policy: Some(POLICIES[policy].parse().unwrap()),
            vertical_flip: 0.5,
            color_jitter: Some(ColorJitter { brightness: 1.5, contrast: 0.4, saturation: 0.4, hue: 0.5 }),
            erasing: Some(RandomErasing { probability: 0.5, mode: EraseMode::Pixel, ..RandomErasing::default() }),
            ..AugmentConfig::default()
        };
        let out = augmentation(config).apply(RgbPixels { width, height, data }, &mut sample_rng(seed, 0, 0));
        prop_assert_eq!((out.width, out.height, out.data.len()), (width, height, width * height * 3));
    }
}
