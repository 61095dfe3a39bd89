//! Compares parameter counts and multiply-accumulates with torchvision and timm.

use mbconv_nets::{Architecture, NetworkOptions, Summary};

fn architecture(name: &str, classes: usize) -> Architecture {
    NetworkOptions::new(name, classes).architecture().unwrap()
}

fn parameters(name: &str, classes: usize) -> usize {
    Summary::new(&architecture(name, classes), [32; 2]).unwrap().parameters
}

#[test]
fn mobilenet_v2_parameter_counts_match_torchvision() {
    // The last is d-li14's network, counted in torchvision's code with `round_nearest=4`.
    for (width, thousand, ten) in [
        ("0.1", 1_367_080, 98_890),
        ("0.25", 1_519_112, 250_922),
        ("0.35", 1_677_128, 408_938),
        ("0.5", 1_968_680, 700_490),
        ("0.75", 2_636_424, 1_368_234),
        ("1.0", 3_504_872, 2_236_682),
        ("1.3", 5_386_792, 3_738_442),
        ("1.4", 6_108_776, 4_333_706),
        ("0.1_round4", 1_356_696, 88_506),
    ] {
        let name = format!("mobilenet_v2_{width}");
        assert_eq!((parameters(&name, 1000), parameters(&name, 10)), (thousand, ten), "{name}");
    }
}

#[test]
fn efficientnet_parameter_counts_match_torchvision() {
    for (number, thousand, ten) in [
        (0, 5_288_548, 4_020_358),
        (1, 7_794_184, 6_525_994),
        (2, 9_109_994, 7_715_084),
        (3, 12_233_232, 10_711_602),
        (4, 19_341_616, 17_566_546),
        (5, 30_389_784, 28_361_274),
        (6, 43_040_704, 40_758_754),
        (7, 66_347_960, 63_812_570),
    ] {
        let name = format!("efficientnet_b{number}");
        assert_eq!((parameters(&name, 1000), parameters(&name, 10)), (thousand, ten), "{name}");
    }
}

#[test]
fn parameters_and_multiply_accumulates_match_timm() {
    // Counted layer by layer from the modules of timm 1.0.31, at the given image size.
    for (name, parameters, side, macs) in [
        ("mobilenet_v2_110d", 4_516_520, 224, 430_516_080),
        ("mobilenet_v2_120d", 5_831_144, 224, 668_857_568),
        ("efficientnet_b8", 87_413_142, 672, 62_597_461_568),
        ("efficientnet_l2", 480_309_308, 800, 475_703_653_280),
        ("efficientnet_lite0", 4_652_008, 224, 385_187_552),
        ("efficientnet_lite1", 5_416_680, 240, 600_185_232),
        ("efficientnet_lite2", 6_092_072, 260, 859_736_272),
        ("efficientnet_lite3", 8_197_096, 300, 1_607_554_544),
        ("efficientnet_lite4", 13_006_568, 380, 3_943_564_112),
        ("efficientnet_es", 5_438_392, 224, 1_788_731_008),
        ("efficientnet_em", 6_899_496, 240, 3_013_321_088),
        ("efficientnet_el", 10_589_712, 300, 7_936_082_848),
    ] {
        for name in [name.to_string(), format!("tf_{name}")] {
            let architecture = architecture(&name, 1000);
            let summary = Summary::new(&architecture, [side; 2]).unwrap();
            assert_eq!((summary.parameters, summary.macs, architecture.resolution), (parameters, macs, side), "{name}");
        }
    }
}

#[test]
fn multiply_accumulates_match_published_numbers() {
    let mobilenet = architecture("mobilenet_v2", 1000);
    assert_eq!(Summary::new(&mobilenet, [224; 2]).unwrap().macs, 300_774_272);
    for (number, giga) in
        [(0, 0.386), (1, 0.687), (2, 0.994), (3, 1.827), (4, 4.394), (5, 10.27), (6, 19.07), (7, 37.75)]
    {
        let network = architecture(&format!("efficientnet_b{number}"), 1000);
        let macs = Summary::new(&network, [network.resolution; 2]).unwrap().macs as f64 / 1e9;
        assert!((macs / giga - 1.0).abs() < 2e-3, "B{number}: {macs} G, published {giga} G");
    }
}
