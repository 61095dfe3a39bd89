//! `mbconv data pack`

use std::sync::atomic::AtomicBool;

use mbconv_train::data::tools;
use mbconv_train::data::tools::pack::{MANIFEST, Manifest, PackOptions, pack};
use mbconv_train::data::tools::{CurateError, Work};
use mbconv_train::data::{Extent, OnBadImage, OpenOptions};

use super::open::open_with;
use crate::args::Pack;
use crate::error::CliError;
use crate::output::{print_json, print_text};
use crate::terminal::Progress;
use crate::units::{bytes, count};

pub fn run(args: Pack, stop: &AtomicBool) -> Result<(), CliError> {
    let mut held_out = OpenOptions { val_fraction: args.val, ..OpenOptions::default() };
    held_out.seed = args.seed;
    let data = open_with(&args.data, &held_out)?;
    let options = PackOptions {
        format: args.format.into(),
        size: args.size,
        quality: args.quality,
        shard_size: args.shard_size,
        seed: args.seed,
        on_bad_image: if args.skip_bad_images { OnBadImage::Skip } else { OnBadImage::Fail },
        inside: (!args.follow_links).then(|| Extent::of(&args.data.data)),
    };
    let mut progress = Progress::new();
    let total = tools::images(&data);
    let mut existing = 0;
    let mut advance = |images| progress.advance("packing", images, total, String::new());
    let mut work = Work { stop, progress: &mut advance };
    let result = pack(&data, &args.out, &options, &mut work, &mut |_, exists| existing += usize::from(exists));
    progress.finish();
    let out = args.out.display();
    if let Err(CurateError::Interrupted) = result {
        eprintln!("finished shards are in {out}; the same command continues");
    }
    let manifest = result?;
    for skipped in manifest.splits.iter().flat_map(|split| &split.shards).flat_map(|shard| &shard.skipped) {
        eprintln!("skipped {}: {}", skipped.name, skipped.why);
    }
    if args.json.json {
        return print_json(&serde_json::to_value(&manifest).map_err(std::io::Error::from)?);
    }
    let existing = if existing > 0 { format!(" ({} existed already)", count(existing)) } else { String::new() };
    print_text(&format!("{}checksums in {out}/{MANIFEST}{existing}\n", table(&manifest)))
}

fn table(manifest: &Manifest) -> String {
    let row = |split: &tools::pack::SplitShards| {
        let images: usize = split.shards.iter().map(|shard| shard.images).sum();
        let size = bytes(split.shards.iter().map(|shard| shard.bytes).sum());
        let shards = split.shards.len();
        format!("{:<6} {:>9} images in {shards} shard(s), {size}\n", split.split, count(images))
    };
    manifest.splits.iter().map(row).collect()
}
