//! `mbconv devices`

use std::fmt::Write;

use mbconv_train::device::{KINDS, automatic};

use super::print_text;
use crate::failure::Failure;

pub fn run() -> Result<(), Failure> {
    let mut text = String::new();
    for kind in KINDS {
        let status = match kind.compiled {
            true if kind.name == automatic() => "in this build; `auto` takes it".into(),
            true => "in this build".into(),
            false => format!("not in this build: build with --features {}", kind.name),
        };
        let _ = writeln!(text, "{:<8}  {}; {status}", kind.name, kind.description);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let _ = writeln!(text, "\nthis processor runs {threads} threads");
    print_text(&text)
}
