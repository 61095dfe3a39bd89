//! Arguments of commands that hints suggest, quoted for the shell.

use std::path::Path;

/// Returns `argument` as a POSIX shell reads it back: unchanged if it is plain, otherwise in quotes.
pub fn quoted(argument: &str) -> String {
    // A backslash separates folders on Windows, and escapes the next character elsewhere.
    let plain = |c: char| c.is_alphanumeric() || "/._-+:=,@%".contains(c) || (cfg!(windows) && c == '\\');
    if argument.chars().any(char::is_control) {
        return format!("$'{}'", argument.chars().map(escaped).collect::<String>());
    }
    if !argument.is_empty() && !argument.starts_with('=') && argument.chars().all(plain) {
        return argument.to_string();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// Returns a path as a command takes it: [`quoted`], and with `./` before a leading dash, which would begin an option.
pub fn quoted_path(path: impl AsRef<Path>) -> String {
    let path = path.as_ref().to_string_lossy();
    if path.starts_with('-') { quoted(&format!("./{path}")) } else { quoted(&path) }
}

/// Returns a character as it stands within `$'…'`.
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

    /// The shell gives back every argument.
    #[cfg(unix)]
    #[test]
    fn a_shell_reads_arguments_back() {
        for argument in ["r s", "it's", "$HOME", "`x`", "a\"b", "a*", "~", "#x", "a;b", "(x)", "!x", r"a\b", ""] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(argument))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), argument);
        }
    }
}
