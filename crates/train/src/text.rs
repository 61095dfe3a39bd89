//! Text from files, as it may be printed: without control characters, which would move a terminal's
//! cursor or worse.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with its control characters escaped, except line breaks and tabs.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() && c != '\n' && c != '\t')
}

/// A name for a line of text, such as a class name: `name` with all its control characters escaped.
pub fn visible_name(name: &str) -> Cow<'_, str> {
    escaped(name, char::is_control)
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            // As in JSON, so that a document remains one.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            visible("\x1b[2J\x1b]0;own\x07\u{9b}1m\rcat\n\tdog\x7f"),
            "\\u001b[2J\\u001b]0;own\\u0007\\u009b1m\\u000dcat\n\tdog\\u007f"
        );
        assert_eq!(visible_name("a\nb\tc"), "a\\u000ab\\u0009c");
        assert_eq!(visible_name("кот é 猫"), "кот é 猫");
    }

    #[test]
    fn json_remains_json() {
        let json = serde_json::json!(["\u{9b}1m\x1b"]).to_string();
        assert_eq!(serde_json::from_str::<Vec<String>>(&visible(&json)).unwrap(), ["\u{9b}1m\x1b"]);
    }
}
