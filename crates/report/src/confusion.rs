//! The confusion matrix and the most frequent confusions.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::evaluation::Evaluation;
use crate::html::{escape, percent};

/// Maximum number of classes for which the matrix is drawn.
const MAX_CLASSES: usize = 40;
/// Number of listed pairs.
const PAIRS: usize = 12;

/// Renders the matrix as SVG, or returns `None` if there are too many classes.
pub(crate) fn svg(evaluation: &Evaluation) -> Option<String> {
    let counts = evaluation.confusion_matrix.as_ref()?;
    let n = counts.len();
    if !(2..=MAX_CLASSES).contains(&n) {
        return None;
    }
    let names: Vec<String> = evaluation.classes.iter().map(|class| shortened(&class.label, 18)).collect();
    let cell = (560.0 / n as f64).clamp(15.0, 44.0);
    let label = 7.0 * names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64 + 14.0;
    let side = label + cell * n as f64;
    let mut svg = format!(
        r#"<svg class="matrix" viewBox="0 0 {:.0} {:.0}" style="max-width:{:.0}px" role="img" aria-label="Confusion matrix">"#,
        side + 4.0,
        side + 26.0,
        side + 4.0
    );
    for (row, counts) in counts.iter().enumerate() {
        let total: usize = counts.iter().sum();
        let y = cell * row as f64 + 20.0;
        let _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            label - 7.0,
            y + cell / 2.0 + 4.0,
            escape(&names[row])
        );
        for (column, &count) in counts.iter().enumerate() {
            let share = count as f64 / total.max(1) as f64;
            let x = label + cell * column as f64;
            let kind = if row == column { "hit" } else { "miss" };
            // The square root keeps rare confusions visible.
            let opacity = if count == 0 { 0.0 } else { 0.12 + 0.88 * share.sqrt() };
            let _ = write!(
                svg,
                r#"<g><rect class="void" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="2"/><rect class="{kind}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="2" opacity="{opacity:.3}"/>"#,
                cell - 2.0,
                cell - 2.0,
                cell - 2.0,
                cell - 2.0
            );
            if count > 0 && cell >= 24.0 {
                let strong = if opacity > 0.6 { " strong" } else { "" };
                let _ = write!(
                    svg,
                    r#"<text class="count{strong}" x="{:.1}" y="{:.1}" text-anchor="middle">{count}</text>"#,
                    x + cell / 2.0 - 1.0,
                    y + cell / 2.0 + 3.0
                );
            }
            let (from, to) = (&evaluation.classes[row].label, &evaluation.classes[column].label);
            let _ = write!(
                svg,
                "<title>{} predicted as {}: {count} ({})</title></g>",
                escape(from),
                escape(to),
                percent(share)
            );
        }
    }
    for (column, name) in names.iter().enumerate() {
        let x = label + cell * (column as f64 + 0.5) + 3.0;
        let y = cell * n as f64 + 26.0;
        let _ = write!(
            svg,
            r#"<text class="tick" transform="translate({x:.1} {y:.1}) rotate(-90)" text-anchor="end">{}</text>"#,
            escape(name)
        );
    }
    let _ = write!(
        svg,
        r#"<text class="legend" x="{label:.1}" y="12">rows: true class; columns: predicted class</text></svg>"#
    );
    Some(svg)
}

/// Renders the most frequent confusions as a table, or returns `None` without mistakes.
pub(crate) fn pairs(evaluation: &Evaluation) -> Option<String> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for wrong in evaluation.predictions.iter().filter(|prediction| prediction.chosen != prediction.label) {
        *counts.entry((wrong.label, wrong.chosen)).or_default() += 1;
    }
    let share = |label: usize, count: usize| count as f64 / evaluation.classes[label].images.max(1) as f64;
    let pairs = counts.into_iter().map(|((label, chosen), count)| (label, chosen, count, share(label, count)));
    let mut pairs: Vec<(usize, usize, usize, f64)> = pairs.collect();
    if pairs.is_empty() {
        return None;
    }
    pairs.sort_by(|a, b| b.2.cmp(&a.2).then(b.3.total_cmp(&a.3)));
    let mut html = String::from(
        "<table><thead><tr><th>true class</th><th>predicted class</th><th class=n>images</th><th class=n>share of class</th></tr></thead><tbody>",
    );
    for &(label, chosen, count, share) in pairs.iter().take(PAIRS) {
        let name = |class: usize| escape(&evaluation.classes[class].label);
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td class=n>{count}</td><td class=n>{}</td></tr>",
            name(label),
            name(chosen),
            percent(share)
        );
    }
    html += "</tbody></table>";
    Some(html)
}

/// Shortens a text to at most `most` characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
