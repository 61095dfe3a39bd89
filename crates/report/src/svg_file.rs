//! SVG files.

use crate::html::{STYLE, escape};

/// Returns an SVG file with `content` drawn within `size`, the page's [`STYLE`] and `label` as its
/// accessible name.
///
/// Colors are written as values, light mode first, because few programs other than browsers support
/// CSS variables and dark mode.
pub fn svg_file((width, height): (f64, f64), label: &str, content: &str) -> String {
    let label = escape(label);
    let (light, dark) = (rules(colors(0)), rules(colors(1)));
    let opening = r#"<svg xmlns="http://www.w3.org/2000/svg""#;
    let paper = format!(r#"<path class="paper" d="M0 0H{width}V{height}H0Z"/>"#);
    format!(
        "{opening} width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\"><style>{light}@media(prefers-color-scheme:dark){{{dark}}}</style>{paper}{content}</svg>\n"
    )
}

/// Returns the CSS variables and values of the style's first (light) or second (dark) list.
fn colors(list: usize) -> impl Iterator<Item = (&'static str, &'static str)> {
    let list = STYLE.split(":root{").nth(list + 1).and_then(|rest| rest.split('}').next()).unwrap_or_default();
    list.split(';').filter_map(|variable| variable.split_once(':'))
}

/// Returns the style's rules for charts with the variables replaced by the values in `colors`.
fn rules(colors: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let of_pictures = STYLE.lines().filter(|line| line.starts_with("svg ") || line.starts_with(".s0{"));
    let rules: String = of_pictures.collect();
    colors.fold(rules, |rules, (name, value)| rules.replace(&format!("var({name})"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svg_files_are_self_contained() {
        let svg = svg_file((10.0, 20.0), "a < b", "<circle class=\"s3\"/>");
        assert!(svg.starts_with("<svg xmlns=") && svg.contains("aria-label=\"a &lt; b\""), "{svg}");
        assert!(!svg.contains("var(") && !svg.contains("body{"), "{svg}");
        for (light, dark) in [(".s3{stroke:#8a5cc2", ".s3{stroke:#b58ee6"), (".paper{fill:#fff", ".paper{fill:#1c1f25")]
        {
            assert!(svg.find(light) < svg.find(dark) && svg.contains(light), "{light}: {svg}");
        }
    }
}
