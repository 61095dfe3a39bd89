//! Escaping of text from files for terminals, CSV and messages: control characters could control
//! the terminal, and direction marks change the order of displayed text.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes control characters in a text, except line breaks and tabs.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && c != '\n' && c != '\t')
}

/// Escapes all control characters in a name, such as a class name, or in a single line of text.
pub fn visible_name(name: &str) -> Cow<'_, str> {
    escaped(name, is_hidden)
}

/// Escapes a text for a CSV cell: prepends `'` if a spreadsheet would evaluate it as a formula.
pub fn cell(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}").into() } else { text.into() }
}

/// Returns whether a character is invisible but changes how other text is shown: a control
/// character, a line or paragraph separator, or a mark of text direction.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Replaces the characters for which `hidden` returns true by escape sequences.
fn escaped(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            // JSON escapes, so that JSON text stays valid.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// Lists the first few names and the number of others.
pub fn enumerate(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use crate::text::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            visible("\x1b[2J\x1b]0;own\x07\u{9b}1m\rcat\n\tdog\x7f"),
            "\\u001b[2J\\u001b]0;own\\u0007\\u009b1m\\u000dcat\n\tdog\\u007f"
        );
        assert_eq!(visible_name("a\nb\tc"), "a\\u000ab\\u0009c");
        assert_eq!(visible_name("кот é 猫 👩‍🔬"), "кот é 猫 👩‍🔬");
        // Without escaping, this is displayed as "cat.exe" followed by "gpj.".
        assert_eq!(visible("cat\u{202e}gpj.\u{2069}\u{2028}"), "cat\\u202egpj.\\u2069\\u2028");
    }

    #[test]
    fn formulas_are_escaped_in_cells() {
        for text in ["=1+1", "+1", "-2", "@a", "\t=1", "\r"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        for text in ["cat", "a=b", "'=1", "", " -"] {
            assert_eq!(cell(text), text);
        }
    }

    #[test]
    fn escaped_json_is_valid_json() {
        let json = serde_json::json!(["\u{9b}1m\x1b"]).to_string();
        assert_eq!(serde_json::from_str::<Vec<String>>(&visible(&json)).unwrap(), ["\u{9b}1m\x1b"]);
    }
}
