//! Helpers of the program's tests.
#![allow(dead_code, reason = "each test file uses some of them")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;

/// A small recipe: an epoch on the digits takes about a second.
pub const TINY: &str = r#"
epochs = 2
batch_size = 64
[model]
name = "mobilenet_v2_0.1"
strides = [1, 1, 2, 2, 1, 1, 1, 1]
[data]
path = "digits"
workers = 2
[input]
size = 8
crop = "pad"
padding = 1
horizontal_flip = 0.0
[optimizer]
name = "sgd"
learning_rate = 0.1
weight_decay = 5e-4
[schedule]
warmup_epochs = 0.5
"#;

/// Returns a command that runs the program.
pub fn mbconv() -> Command {
    Command::cargo_bin("mbconv").unwrap()
}

/// Runs the program and returns standard output and standard error. Panics unless it exits with
/// `status`.
pub fn run(status: i32, arguments: &[&str]) -> (String, String) {
    let output = mbconv().args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

/// Runs a command that must succeed and returns its standard output as JSON.
pub fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&run(0, arguments).0).unwrap()
}

/// Runs a command that must fail and returns its standard error.
pub fn error(arguments: &[&str]) -> String {
    let (stdout, stderr) = run(1, arguments);
    assert_eq!(stdout, "", "a failing command prints nothing on standard output");
    assert!(stderr.contains("error: "), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes the tiny recipe into `folder`.
pub fn tiny_recipe(folder: &Path) -> PathBuf {
    let file = folder.join("tiny.toml");
    std::fs::write(&file, TINY).unwrap();
    file
}

/// Returns a run of the tiny recipe, trained once for all tests of a file.
pub fn trained() -> &'static Path {
    static RUN: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let recipe = tiny_recipe(folder.path());
        run(0, &["train", path(&recipe), "--out", path(&folder.path().join("run")), "--device", "cpu"]);
        folder
    });
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| folder.path().join("run"))
}

/// Writes class folders with `images` small images each; every class has its own color.
pub fn image_folder(root: &Path, classes: &[&str], images: usize) {
    for (index, class) in classes.iter().enumerate() {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for image in 0..images {
            let shade = (image * 7 % 60) as u8;
            let color = [(index * 90) as u8 + shade, 200 - (index * 60) as u8, shade];
            image::RgbImage::from_pixel(12, 10, image::Rgb(color))
                .save(root.join(class).join(format!("{image}.png")))
                .unwrap();
        }
    }
}
