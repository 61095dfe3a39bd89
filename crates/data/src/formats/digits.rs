//! The embedded data set: 1,797 handwritten digits of 8×8 gray pixels.

use std::sync::Arc;

use burn::data::dataset::Dataset;

use mbconv_image::{RgbPixels, decode_rgb};

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::options::OpenOptions;
use crate::source::{Sample, Source, StoredImage};
use crate::splits::stratified;

/// One row per sample: the label, then 64 pixels of 0 to 16. Written by `scripts/make_digits.py`.
static PNG: &[u8] = include_bytes!("digits.png");

const SIDE: usize = 8;
const COLUMNS: usize = 1 + SIDE * SIDE;

struct Digits {
    rows: Arc<Vec<[u8; COLUMNS]>>,
    /// Row indices of this split.
    members: Vec<usize>,
}

pub(crate) fn open(options: &OpenOptions) -> Result<DataSet, DataError> {
    let image = decode_rgb(PNG).map_err(|source| DataError::Image { name: "digits".into(), source })?;
    let (pixels, _) = image.data.as_chunks::<3>();
    let gray: Vec<u8> = pixels.iter().map(|pixel| pixel[0]).collect();
    let (rows, _) = gray.as_chunks::<COLUMNS>();
    let labels: Vec<usize> = rows.iter().map(|row| usize::from(row[0])).collect();
    let (train, val) = stratified(&labels, 10, options);
    let rows = Arc::new(rows.to_vec());
    let split = |members: Vec<usize>| -> Option<Arc<dyn Source>> {
        (!members.is_empty()).then(|| Arc::new(Digits { rows: rows.clone(), members }) as Arc<dyn Source>)
    };
    Ok(DataSet {
        form: Form::Digits,
        classes: (0..10).map(|digit| digit.to_string()).collect(),
        aliases: Vec::new(),
        divided: false,
        val_is_test: false,
        train: split(train),
        val: split(val),
        test: None,
        notes: Vec::new(),
    })
}

impl Dataset<Sample, DataError> for Digits {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let [label, pixels @ ..] = &self.rows[self.members[index]];
        // Scale the maximum, 16, to 255.
        let data = pixels.iter().flat_map(|&value| [((u32::from(value) * 255 + 8) / 16).min(255) as u8; 3]).collect();
        let image = RgbPixels { width: SIDE, height: SIDE, data };
        Ok(Sample { image: StoredImage::Pixels(image), label: usize::from(*label) })
    }

    fn len(&self) -> usize {
        self.members.len()
    }
}

impl Source for Digits {
    fn name(&self, index: usize) -> String {
        format!("digits[{}]", self.members[index])
    }

    fn label(&self, index: usize) -> usize {
        usize::from(self.rows[self.members[index]][0])
    }
}
