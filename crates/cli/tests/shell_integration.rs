//! Help texts, completions, man pages and colors: the program in a shell.

mod common;

use std::process::{Command, Stdio};

use common::{mbconv, path, run};

/// Returns the commands of the program, from the first words of its help text's indented lines.
fn commands() -> Vec<String> {
    let (help, _) = run(0, &["--help"]);
    let groups = help.split("Options:").next().unwrap();
    let lines = groups.lines().filter_map(|line| line.strip_prefix("  "));
    lines.filter_map(|line| line.split(' ').next()).map(String::from).collect()
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (script, _) = run(0, &["completions", shell]);
        for word in ["find-lr", "skip-bad-images", "mbconv"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let (script, _) = run(0, &["completions", "bash"]);
    let Ok(mut bash) = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn() else { return };
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("man1");
    run(0, &["man", path(&man)]);
    let page = |name: &str| std::fs::read_to_string(man.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(page("mbconv.1").contains("mbconv\\-finetune(1)"));
    assert!(page("mbconv-data-verify.1").contains(".SH DATA"));
    let commands = commands();
    assert!(commands.len() >= 19, "{commands:?}");
    for command in commands {
        let page = page(&format!("mbconv-{command}.1"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH EXAMPLES\n  mbconv "), "{command}: {page}");
        assert!(!page.contains('\x1b'), "{command}: {page}");
    }
}

#[test]
fn help_of_hidden_options_explains_the_build() {
    let (help, _) = run(0, &["train", "--help"]);
    assert_eq!(help.contains("--tui"), cfg!(feature = "tui"), "{help}");
    if !cfg!(feature = "tui") {
        let output = mbconv().args(["train", "configs/digits.toml", "--tui"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("cargo build --release --features tui"), "{text}");
    }
}

#[test]
fn errors_are_colored_only_if_requested_without_a_terminal() {
    let stderr = |variables: &[(&str, &str)]| {
        let mut command = mbconv();
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
            command.env_remove(name);
        }
        let output = command.args(["info", "no_such_network"]).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let plain = stderr(&[]);
    assert!(plain.starts_with("error: ") && plain.contains("\nhint: ") && !plain.contains('\x1b'), "{plain}");
    let colored = stderr(&[("CLICOLOR_FORCE", "1")]);
    assert!(
        colored.starts_with("\x1b[1m\x1b[31merror:\x1b[0m ") && colored.contains("\n\x1b[32mhint:\x1b[0m "),
        "{colored}"
    );
    // NO_COLOR takes precedence unless it is empty.
    assert_eq!(stderr(&[("NO_COLOR", "1")]), plain);
    assert_eq!(stderr(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), plain);
    assert_eq!(stderr(&[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")]), colored);
}
