//! `mbconv data split`

use std::sync::atomic::AtomicBool;

use mbconv_train::data::OnBadImage;
use mbconv_train::data::tools::split::{Divided, SplitOptions, Way, split};
use serde_json::json;

use super::open::{open, with_progress};
use crate::args::Split;
use crate::error::CliError;
use crate::output::{print_json, print_text};
use crate::units::count;

pub fn run(args: Split, stop: &AtomicBool) -> Result<(), CliError> {
    let data = open(&args.data)?;
    let ways = [
        (args.way.link, Way::Link),
        (args.way.copy, Way::Copy),
        (args.way.moving, Way::Move),
        (args.way.list, Way::List),
    ];
    let way = ways.into_iter().find(|(given, _)| *given).map(|(_, way)| way);
    let options = SplitOptions {
        val: args.val,
        test: args.test,
        seed: args.seed,
        way,
        pool: args.pool,
        on_bad_image: if args.skip_bad_images { OnBadImage::Skip } else { OnBadImage::Fail },
        follow_links: args.follow_links,
    };
    let Divided { images, skipped } =
        with_progress("splitting", &data, stop, |work| split(&data, &args.data.data, &args.out, &options, work))?;
    for skipped in &skipped {
        eprintln!("skipped {}: {}", skipped.name, skipped.why);
    }
    if args.json.json {
        return print_json(&json!({ "out": args.out, "images": images, "skipped": skipped }));
    }
    let rows = ["train", "val", "test"].into_iter().filter_map(|name| Some((name, images.get(name)?)));
    let text: String = rows.map(|(name, images)| format!("{name:<6} {:>9} images\n", count(*images))).collect();
    print_text(&text)
}
