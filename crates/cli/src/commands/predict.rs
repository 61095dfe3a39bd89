//! `mbconv predict`

use mbconv_train::Model;
use mbconv_train::predict::{image_files, predict};

use super::{print_json, print_text};
use crate::args::Predict;
use crate::failure::Failure;

pub fn run(args: Predict) -> Result<(), Failure> {
    let device = args.device.open()?;
    let precision = args.dtype.check(&device)?;
    let files = image_files(&args.paths)?;
    let model = Model::open(&args.model, &device)?;
    let network = precision.inference(&model.network);
    let results = predict(&network, &model.card, &files, args.top_k, args.logits, &device)?;
    if args.json.json {
        return print_json(&serde_json::to_value(&results).map_err(std::io::Error::from)?);
    }
    let mut text = String::new();
    for result in &results {
        text += &format!("{}\n", result.path);
        for candidate in &result.predictions {
            text += &format!("  {:6.2} %  {}\n", 100.0 * candidate.probability, candidate.label);
        }
    }
    print_text(&text)
}
