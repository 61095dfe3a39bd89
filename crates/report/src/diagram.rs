//! A network diagram: one box per block, with its height from the feature map's side and its width
//! from the channels.

use std::fmt::Write;

use mbconv_nets::{Architecture, Summary};

use crate::html::escape;
use crate::svg_file::svg_file;

/// Height of the input image's box in SVG units.
const TALL: f64 = 150.0;
/// Vertical center of the boxes.
const MIDDLE: f64 = 150.0;
const LEFT: f64 = 24.0;
const GAP: f64 = 4.0;
/// Gap between stages.
const STAGE_GAP: f64 = 16.0;
/// Approximate width of a heading letter.
const TITLE_LETTER: f64 = 8.0;
/// Minimum width of a stage that fits its text.
const STAGE_ROOM: f64 = 84.0;

/// A stage, the stem or the head.
struct Column {
    title: String,
    lines: Vec<String>,
    /// Widths of the boxes.
    boxes: Vec<f64>,
    /// Height and width of the feature map.
    map: [usize; 2],
    color: usize,
    parameters: usize,
    macs: u64,
}

/// Renders the network of `summary` as an SVG file: stem, stages and head with their feature maps
/// and their shares of parameters and multiply-accumulates.
pub fn stage_diagram(title: &str, architecture: &Architecture, summary: &Summary) -> String {
    let columns = columns(architecture, summary);
    let side = |[height, width]: [usize; 2]| (height as f64 * width as f64).sqrt();
    let input = side(summary.input_size);
    let mut body = String::new();
    let mut x = LEFT;
    let high = |map: [usize; 2]| (TALL * (side(map) / input).sqrt()).max(6.0);
    for column in &columns {
        let room: f64 = column.boxes.iter().map(|width| width + GAP).sum::<f64>() - GAP;
        let start = x;
        let height = high(column.map);
        let mut at = start + ((STAGE_ROOM - room) / 2.0).max(0.0);
        for width in &column.boxes {
            let _ = write!(
                body,
                r#"<rect class="block s{}" x="{at:.1}" y="{:.1}" width="{width:.1}" height="{height:.1}" rx="2.5"/>"#,
                column.color,
                MIDDLE - height / 2.0
            );
            at += width + GAP;
        }
        x = start + room.max(STAGE_ROOM);
        let center = (start + x) / 2.0;
        let mut line = |y: f64, class: &str, text: &str| {
            let _ = write!(
                body,
                r#"<text class="{class}" x="{center:.1}" y="{y:.1}" text-anchor="middle">{}</text>"#,
                escape(text)
            );
        };
        line(248.0, "name", &column.title);
        for (index, text) in column.lines.iter().enumerate() {
            line(264.0 + 15.0 * index as f64, "tick", text);
        }
        let share = |part: f64, whole: f64| 100.0 * part / whole.max(1.0);
        line(326.0, "tick", &format!("{:.1} %", share(column.parameters as f64, summary.parameters as f64)));
        line(342.0, "tick", &format!("{:.1} %", share(column.macs as f64, summary.macs as f64)));
        x += STAGE_GAP;
    }
    let heading = format!(
        "{title}: {:.3} M parameters, {:.3} G multiply-accumulates at {}×{}",
        summary.parameters as f64 / 1e6,
        summary.macs as f64 / 1e9,
        summary.input_size[0],
        summary.input_size[1]
    );
    let width = (x + 78.0).max(2.0 * LEFT + TITLE_LETTER * heading.chars().count() as f64);
    let mut content = format!(
        r#"<text class="title" x="{LEFT}" y="26">{}</text><text class="tick" x="{LEFT}" y="44">one box per block; height: side of the feature map; width: channels; color: kernel size</text>{body}"#,
        escape(&heading)
    );
    for (y, text) in [(326.0, "parameters"), (342.0, "MACs")] {
        let _ = write!(content, r#"<text class="tick" x="{:.1}" y="{y}" text-anchor="end">{text}</text>"#, x + 68.0);
    }
    svg_file((width.round(), 360.0), &heading, &content)
}

/// Returns the width of a box for a number of channels.
fn wide(channels: usize) -> f64 {
    (1.1 * (channels as f64).sqrt()).clamp(3.0, 60.0)
}

/// Returns the stem, the stages, the head and the classifier.
fn columns(architecture: &Architecture, summary: &Summary) -> Vec<Column> {
    // Returns parameters and multiply-accumulates of the layers whose names match.
    let cost = |of: &dyn Fn(&str) -> bool| {
        let layers = || summary.layers.iter().filter(|layer| of(&layer.name));
        (layers().map(|layer| layer.parameters).sum(), layers().map(|layer| layer.macs).sum())
    };
    let [heights, widths] = summary.input_size.map(|side| architecture.sides(side));
    let maps: Vec<[usize; 2]> = heights.into_iter().zip(widths).map(|(height, width)| [height, width]).collect();
    let last = maps.last().copied().unwrap_or(summary.input_size);
    let column = |title: &str, lines: Vec<String>, boxes, map, color, (parameters, macs)| Column {
        title: title.into(),
        lines,
        boxes,
        map,
        color,
        parameters,
        macs,
    };
    let map = |channels: usize, [height, width]: [usize; 2]| match height == width {
        true => format!("{channels} × {height}²"),
        false => format!("{channels} × {height}×{width}"),
    };
    let mut columns = vec![column(
        "stem",
        vec![format!("3×3{}", stride(architecture.stem_stride)), map(architecture.stem, maps[0])],
        vec![wide(architecture.stem)],
        maps[0],
        0,
        cost(&|name| name == "stem"),
    )];
    let stages = architecture.blocks.last().map_or(0, |block| block.stage + 1);
    for stage in 0..stages {
        let of_stage = |index: usize| architecture.blocks.get(index).is_some_and(|block| block.stage == stage);
        let members: Vec<_> =
            architecture.blocks.iter().enumerate().filter(|(_, block)| block.stage == stage).collect();
        let (Some((_, first)), Some((index, block))) = (members.first(), members.last()) else { continue };
        let size = maps[index + 1];
        let by = first.hidden as f64 / first.input as f64;
        let kind = if first.fused { "fused" } else { "MBConv" };
        let repeats = if members.len() > 1 { format!(" ×{}", members.len()) } else { String::new() };
        let in_stage = |name: &str| {
            let index =
                name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()).and_then(|n| n.parse().ok());
            index.is_some_and(of_stage)
        };
        columns.push(column(
            &format!("{kind}{}{repeats}", (by * 100.0).round() / 100.0),
            vec![
                format!("{0}×{0}{1}", first.kernel, stride(first.stride)),
                map(block.output, size),
                first.squeeze.map_or(String::new(), |_| "squeeze-exc.".into()),
            ],
            members.iter().map(|(_, block)| wide(block.output)).collect(),
            size,
            (first.kernel / 2).min(3),
            cost(&in_stage),
        ));
    }
    columns.push(column(
        "head",
        vec!["1×1".into(), map(architecture.head, last)],
        vec![wide(architecture.head)],
        last,
        0,
        cost(&|name| name == "head"),
    ));
    let classes = architecture.num_classes;
    let lines = vec!["pooled, linear".into(), format!("{classes} classes")];
    columns.push(column("classifier", lines, vec![wide(classes)], [1, 1], 0, cost(&|name| name == "classifier")));
    columns
}

/// Formats a stride other than 1.
fn stride(stride: usize) -> String {
    if stride == 1 { String::new() } else { format!(", stride {stride}") }
}

#[cfg(test)]
mod tests {
    use mbconv_nets::NetworkOptions;
    use mbconv_nets::registry::NAMES;

    use super::*;

    #[test]
    fn diagram_has_a_box_per_block_and_shares_sum_to_one() {
        for name in NAMES {
            let architecture = NetworkOptions::new(name, 10).architecture().unwrap();
            let summary = Summary::new(&architecture, [architecture.resolution; 2]).unwrap();
            let all = columns(&architecture, &summary);
            assert_eq!(all.iter().map(|column| column.boxes.len()).sum::<usize>(), architecture.blocks.len() + 3);
            assert_eq!(all.iter().map(|column| column.parameters).sum::<usize>(), summary.parameters);
            assert_eq!(all.iter().map(|column| column.macs).sum::<u64>(), summary.macs);
            let svg = stage_diagram("<own>", &architecture, &summary);
            assert!(
                svg.contains("&lt;own&gt;")
                    && !svg.contains("NaN")
                    && svg.matches("<rect").count() == architecture.blocks.len() + 3
            );
        }
    }
}
