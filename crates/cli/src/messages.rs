//! Lines on standard error. Their prefixes are colored on a terminal, as clap's errors are.

use std::io::Write;

use anstream::{AutoStream, ColorChoice};
use clap::builder::Styles;
use clap::builder::styling::Style;
use mbconv_train::text::visible_name;

/// Prints a line on standard error with control characters escaped, and ignores errors.
pub fn print_line(line: &str) {
    let line = visible_name(line);
    let _ = match AutoStream::choice(&std::io::stderr()) {
        // One write, so that lines of several processes do not mix.
        ColorChoice::Never => std::io::stderr().write_all(format!("{line}\n").as_bytes()),
        _ => anstream::stderr().write_all(format!("{}\n", with_style(&line)).as_bytes()),
    };
}

/// Styles the prefix of an error, hint, note or warning.
fn with_style(line: &str) -> String {
    let prefix = ["error:", "hint:", "note:", "warning:"].into_iter().find(|prefix| line.starts_with(prefix));
    match prefix {
        Some(prefix) => {
            let style = style_of(prefix);
            format!("{style}{prefix}{style:#}{}", &line[prefix.len()..])
        }
        None => line.into(),
    }
}

fn style_of(prefix: &str) -> Style {
    let styles = Styles::styled();
    match prefix {
        "error:" => *styles.get_error(),
        // clap's tips.
        "hint:" => *styles.get_valid(),
        _ => *styles.get_invalid(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_styled() {
        for (line, styled) in [
            ("error: no file", "\x1b[1m\x1b[31merror:\x1b[0m no file"),
            ("hint: use another", "\x1b[32mhint:\x1b[0m use another"),
            ("note: slow", "\x1b[33mnote:\x1b[0m slow"),
            ("warning: 3 images", "\x1b[33mwarning:\x1b[0m 3 images"),
            ("wrote notes: error:", "wrote notes: error:"),
        ] {
            assert_eq!(with_style(line), styled);
        }
    }
}
