//! Shell quoting of arguments in suggested commands.

use std::path::Path;

/// Quotes `argument` for a POSIX shell; returns it unchanged if no quotes are needed.
pub fn quoted(argument: &str) -> String {
    // The backslash is a path separator on Windows and an escape character elsewhere.
    let plain = |c: char| c.is_alphanumeric() || "/._-+:=,@%".contains(c) || (cfg!(windows) && c == '\\');
    if argument.chars().any(char::is_control) {
        return format!("$'{}'", argument.chars().map(escaped).collect::<String>());
    }
    if !argument.is_empty() && !argument.starts_with('=') && argument.chars().all(plain) {
        return argument.to_string();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// Quotes a path for a shell. Adds `./` before a leading dash, so that it is not parsed as an
/// option.
pub fn quoted_path(path: impl AsRef<Path>) -> String {
    let path = path.as_ref().to_string_lossy();
    if path.starts_with('-') { quoted(&format!("./{path}")) } else { quoted(&path) }
}

/// Escapes a character for `$'…'`.
fn escaped(c: char) -> String {
    match c {
        '\n' => r"\n".into(),
        '\t' => r"\t".into(),
        '\'' | '\\' => format!("\\{c}"),
        c if c.is_ascii_control() => format!("\\x{:02x}", c as u32),
        c if c.is_control() => format!("\\u{:04x}", c as u32),
        c => c.into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::shell::*;

    #[test]
    fn arguments_are_quoted_for_the_shell() {
        assert_eq!(quoted("data/a-1.tar"), "data/a-1.tar");
        assert_eq!(quoted("optimizer.learning_rate=1e-3"), "optimizer.learning_rate=1e-3");
        assert_eq!(quoted("a-{0..1}.tar"), "'a-{0..1}.tar'");
        assert_eq!(quoted("r s"), "'r s'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a\n\x1b[31m'"), r"$'a\n\x1b[31m\''");
        assert_eq!(quoted_path("-out"), "./-out");
        assert_eq!(quoted_path("- out"), "'./- out'");
        assert_eq!(quoted_path("Größe/x"), "Größe/x");
    }

    /// A shell parses the quoted arguments back to the originals.
    #[cfg(unix)]
    #[test]
    fn shell_parses_quoted_arguments_back() {
        for argument in ["r s", "it's", "$HOME", "`x`", "a\"b", "a*", "~", "#x", "a;b", "(x)", "!x", r"a\b", ""] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(argument))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), argument);
        }
    }
}
