//! `mbconv draw`

use mbconv_hub::PRETRAINED;
use mbconv_nets::{NetworkOptions, Summary};
use mbconv_train::pretrained::architecture_of;
use mbconv_train::report::{Chart, Label, Scale, Series, Unit, stage_diagram};

use crate::args::Draw;
use crate::error::CliError;
use crate::model_ref::{IMAGENET_CLASSES, ModelRef};
use crate::output::{check_extension, print_text, write_file};

/// The curves of the chart: name and published weights. The weights of a curve were trained alike.
const CURVES: [(&str, &[&str]); 3] = [
    (
        "EfficientNet (torchvision)",
        &[
            "torchvision/efficientnet_b0.imagenet1k_v1",
            "torchvision/efficientnet_b1.imagenet1k_v1",
            "torchvision/efficientnet_b2.imagenet1k_v1",
            "torchvision/efficientnet_b3.imagenet1k_v1",
            "torchvision/efficientnet_b4.imagenet1k_v1",
            "torchvision/efficientnet_b5.imagenet1k_v1",
            "torchvision/efficientnet_b6.imagenet1k_v1",
            "torchvision/efficientnet_b7.imagenet1k_v1",
        ],
    ),
    (
        "MobileNetV2 (Google)",
        &[
            "hf:google/mobilenet_v2_0.35_96",
            "hf:google/mobilenet_v2_0.75_160",
            "hf:google/mobilenet_v2_1.0_224",
            "hf:google/mobilenet_v2_1.4_224",
        ],
    ),
    (
        "Lite (timm)",
        &[
            "timm/tf_efficientnet_lite0.in1k",
            "timm/tf_efficientnet_lite1.in1k",
            "timm/tf_efficientnet_lite2.in1k",
            "timm/tf_efficientnet_lite3.in1k",
            "timm/tf_efficientnet_lite4.in1k",
        ],
    ),
];

pub fn run(args: Draw) -> Result<(), CliError> {
    if let Some(out) = &args.out {
        check_extension(out, "an SVG file", &["svg"])?;
    }
    let svg = match &args.model_ref {
        Some(model_ref) => {
            let ModelRef { options, input_size, .. } = ModelRef::resolve(model_ref, args.classes)?;
            let architecture = options.architecture()?;
            let size = args.input_size.or(input_size).unwrap_or(architecture.resolution.into());
            stage_diagram(&options.title(), &architecture, &Summary::new(&architecture, size.sides())?)
        }
        None => chart()?,
    };
    match &args.out {
        None => print_text(&svg),
        Some(out) => write_file(out, svg.as_bytes()),
    }
}

/// Draws published accuracy over multiply-accumulates.
fn chart() -> Result<String, CliError> {
    let (mut series, mut labels) = (Vec::new(), Vec::new());
    for (name, weights) in CURVES {
        let mut points = Vec::new();
        for weights in weights {
            let Some(row) = PRETRAINED.iter().find(|row| row.name == *weights) else { continue };
            let Some(top1) = row.top1 else { continue };
            let name = architecture_of(row);
            let architecture = NetworkOptions::new(&name, IMAGENET_CLASSES).architecture()?;
            let macs = Summary::new(&architecture, [row.resolution; 2])?.macs;
            let point = (macs as f64 / 1e9, top1 / 100.0);
            labels.push(Label { at: point, text: short_name(&name, architecture.width), below: !series.is_empty() });
            points.push(point);
        }
        series.push(Series { name, points });
    }
    let chart = Chart {
        title: "ImageNet top-1",
        x_label: "billion multiply-accumulates",
        whole_x: false,
        x_scale: Scale::Log,
        unit: Unit::Percent,
        series,
        labels,
        size: (760.0, 440.0),
        ..Chart::default()
    };
    chart.to_svg_file().ok_or_else(|| CliError::new("no published weights to draw", None))
}

/// Returns the label of a point: `B1`, `Lite0`, `×1.4`.
fn short_name(architecture: &str, width: f64) -> String {
    let suffix = architecture.rsplit('_').next().unwrap_or(architecture);
    match (suffix.strip_prefix("lite"), suffix.strip_prefix('b')) {
        (Some(number), _) => format!("Lite{number}"),
        (_, Some(number)) => format!("B{number}"),
        _ => format!("×{width:.2}").trim_end_matches('0').into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chart_names_known_weights() {
        for weights in CURVES.iter().flat_map(|(_, weights)| *weights) {
            let row = PRETRAINED.iter().find(|row| row.name == *weights);
            assert!(row.is_some_and(|row| row.top1.is_some()), "{weights}");
        }
    }
}
