//! Text in HTML.

use std::fmt::Write;

/// Style of the page and of SVG files.
pub(crate) const STYLE: &str = include_str!("style.css");

/// Escapes text for HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// Formats 0.97531 as `97.53 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Returns an HTML page with `body`, which is HTML.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{body}</main>\
         <footer>written by mbconv {}</footer></body></html>\n",
        escape(title),
        env!("CARGO_PKG_VERSION")
    )
}

/// Appends a section, unless it is empty.
pub(crate) fn section(body: &mut String, title: &str, content: &str) {
    if !content.is_empty() {
        let _ = write!(body, "<section><h2>{title}</h2>{content}</section>");
    }
}
