//! Runs the commands of the README and the tutorials, in order, on tiny data. A unit test of the
//! command line parses the commands of all pages.
#![cfg(unix)]

mod common;
#[path = "common/documented.rs"]
mod documented;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{TINY, path, run, trained};
use documented::{calls, commands, pages, repository};

/// Commands that are only parsed: what they contain, and why they cannot run here.
const ONLY_PARSED: [(&str, &str); 5] = [
    ("cargo run", "builds the program"),
    ("mpirun", "needs MPI"),
    ("--device cuda", "needs an NVIDIA GPU"),
    ("--device wgpu", "needs a GPU"),
    ("mbconv train cifar10_mobilenet_v2_cpu", "needs CIFAR-10"),
];

/// Names and numbers of the documentation, and those that make a command small.
const SUBSTITUTIONS: [(&str, &str); 7] = [
    ("mbconv train digits", "mbconv train recipes/digits.toml"),
    ("finetune efficientnet_lite0 photos", "finetune tiny.safetensors photos --out runs/photos-efficientnet_lite0"),
    ("efficientnet-lite0.pth", "tiny.safetensors"),
    (" --set input.size=128", ""),
    ("--epochs 4", "--epochs 1"),
    ("--epochs 20", "--epochs 3 --batch-size 4"),
    ("epochs=30", "epochs=2"),
];

/// Writes an image of 32 px that differs from those of other numbers.
fn write_photo(folder: &Path, name: &str, number: u32) {
    std::fs::create_dir_all(folder).unwrap();
    let color = |x: u32, y: u32| image::Rgb([8 * x, 8 * y, x * y * number].map(|value| value as u8));
    image::RgbImage::from_fn(32, 32, color).save(folder.join(name)).unwrap();
}

/// Makes the files that the pages name: photos, a model in the place of published weights, a recipe
/// in the place of the digits' recipe, and the repository's model.
fn prepare(folder: &Path) {
    let photos = [("train/cat", 0..6), ("train/dog", 10..16), ("val/cat", 20..23), ("val/dog", 30..33)];
    for (class, numbers) in photos {
        for number in numbers {
            write_photo(&folder.join("photos").join(class), &format!("{number}.png"), number);
        }
    }
    write_photo(&folder.join("album"), "1.png", 40);
    write_photo(folder, "new.jpg", 41);
    write_photo(folder, "ship.jpg", 42);
    std::fs::write(folder.join("names.txt"), "cat\ndog\n").unwrap();
    std::fs::create_dir(folder.join("recipes")).unwrap();
    std::fs::write(folder.join("recipes/digits.toml"), TINY.replace("epochs = 2", "epochs = 1")).unwrap();
    std::fs::copy(trained().join("best.safetensors"), folder.join("tiny.safetensors")).unwrap();
    let [weights, timm] = ["tiny.safetensors", "timm.safetensors"].map(|name| folder.join(name));
    run(0, &["export", path(&weights), path(&timm), "--layout", "timm"]);
    remove_metadata(&timm);
    for shared in ["models", "configs"] {
        symlink(repository().join(shared), folder.join(shared)).unwrap();
    }
    std::fs::create_dir(folder.join("bin")).unwrap();
    symlink(assert_cmd::cargo::cargo_bin("mbconv"), folder.join("bin/mbconv")).unwrap();
}

/// Removes the metadata of a safetensors file, so that it looks like one of another program.
fn remove_metadata(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, tensors) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    header.remove("__metadata__").unwrap();
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::write(file, [&(header.len() as u64).to_le_bytes(), header.as_slice(), tensors].concat()).unwrap();
}

/// Runs a command line in a shell.
fn shell(folder: &Path, command: &str) -> Result<(), String> {
    let program = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .envs([("PATH", program.as_str()), ("HOME", path(folder)), ("HF_HUB_OFFLINE", "1")])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}\n{error}", output.status)) }
}

/// Returns true for `NAME=value` without a command.
fn is_assignment(text: &str) -> bool {
    let name = text.split('=').next().unwrap();
    text != name && !text.contains(' ') && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// Runs the commands of a page and returns their number.
fn run_page(page: &Path) -> usize {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let (mut ran, mut variables) = (0, String::new());
    for command in commands(page) {
        if is_assignment(&command.text) {
            variables += &(command.text + "\n");
            continue;
        }
        let only_parsed = ONLY_PARSED.iter().any(|(part, _)| command.text.contains(part));
        if calls(&command.text).is_empty() || only_parsed {
            continue;
        }
        let small = SUBSTITUTIONS.iter().fold(command.text, |text, (from, to)| text.replace(from, to));
        shell(folder.path(), &format!("{variables}{small}"))
            .unwrap_or_else(|error| panic!("{}: `{small}`\n{error}", command.place));
        ran += 1;
    }
    ran
}

#[test]
fn calls_are_read_as_a_shell_reads_them() {
    let of = |text| calls(text).iter().map(|call| call.join(",")).collect::<Vec<_>>();
    assert_eq!(
        of("COLUMNS=200 mbconv data inspect 'a b?label=x' \\\n  --json > out  # mbconv"),
        ["data,inspect,a b?label=x,--json"]
    );
    assert_eq!(of("find . | mbconv predict m - && mpirun -np 2 mbconv train r"), ["predict,m,-", "train,r"]);
    assert_eq!(of("cargo run --release -- train digits"), ["train,digits"]);
    assert!(of("python scripts/parity.py --mbconv target/release/mbconv").is_empty());
}

#[test]
fn commands_of_the_readme_run() {
    assert!(run_page(Path::new("README.md")) >= 6);
}

#[test]
fn commands_of_the_tutorials_run() {
    let tutorials: Vec<PathBuf> = pages().into_iter().filter(|page| page.starts_with("docs/tutorials")).collect();
    let ran: usize = tutorials.iter().map(|page| run_page(page)).sum();
    assert!(ran >= 20, "ran only {ran} commands");
}

/// An entry that no page uses hides nothing, and should be removed.
#[test]
fn tables_of_this_test_are_used() {
    let run_pages =
        pages().into_iter().filter(|page| page.starts_with("docs/tutorials") || page.ends_with("README.md"));
    let text: String = run_pages.flat_map(|page| commands(&page)).map(|command| command.text + "\n").collect();
    let names = ONLY_PARSED.iter().chain(&SUBSTITUTIONS).map(|(name, _)| name);
    let unused: Vec<_> = names.filter(|name| !text.contains(**name)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}
