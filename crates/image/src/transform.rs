//! Image transforms for training and evaluation.

use rand::{Rng, RngExt};

use crate::jpeg_crop::{Jpeg, Scratch, resize_region};
use mbconv_kernels::image_ops::{Interpolation, RgbPixels};

use crate::decoding::Decoding;
use crate::image_size::ImageSize;
use crate::preprocess::{CropRounding, Frame, Preprocess, covering, fitted};
use crate::resize::{Region, crop, filter, resize};

use crate::augment::{AugmentPlan, Augmentation, Operation, Sampling};

/// Cropping of training images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crop {
    /// A rectangle of random area and aspect ratio, resized to the output: torchvision's
    /// `RandomResizedCrop`.
    RandomResized {
        /// Minimum and maximum fraction of the image's area.
        scale: (f64, f64),
        /// Minimum and maximum aspect ratio, width over height.
        ratio: (f64, f64),
    },
    /// A random crop of the image with a black border, after resizing the image to cover the
    /// output: torchvision's `RandomCrop(size, padding)`.
    PadAndCrop {
        /// Width of the border, in pixels.
        padding: usize,
    },
    /// The center, after resizing the image to cover the output.
    Center,
}

/// The training transform. All randomness comes from the given generator.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainTransform {
    /// Size of the output in pixels; positive.
    pub size: ImageSize,
    /// Interpolation kernel.
    pub interpolation: Interpolation,
    /// Keeps the aspect ratio and pads with this color, instead of covering the output or
    /// stretching the crop. See [`ResizeMode::Letterbox`](crate::ResizeMode::Letterbox).
    pub letterbox: Option<[u8; 3]>,
    /// Cropping.
    pub crop: Crop,
    /// Probability of a horizontal flip.
    pub horizontal_flip: f64,
    /// Smaller image sizes in the first epochs.
    pub progressive: Option<Progressive>,
    /// Augmentation after crop and flip.
    pub augmentation: Augmentation,
    /// Only crops, and returns the remaining operations as a plan.
    pub deferred: bool,
}

impl Default for TrainTransform {
    /// Center crop of 224×224 pixels without augmentation.
    fn default() -> Self {
        Self {
            size: ImageSize::square(224),
            interpolation: Interpolation::Bilinear,
            letterbox: None,
            crop: Crop::Center,
            horizontal_flip: 0.0,
            progressive: None,
            augmentation: Augmentation::default(),
            deferred: false,
        }
    }
}

/// Progressive resizing (Tan and Le 2021): the shorter side grows from `start` to its full length
/// in equal steps, and the longer one in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progressive {
    /// Shorter side in the first stage, in pixels.
    pub start: usize,
    /// Number of sizes, including the first and the full size; all stages are equally long.
    pub stages: usize,
    /// Total epochs of all stages; later epochs use the full size.
    pub epochs: usize,
}

impl Progressive {
    /// Returns the size in an epoch, counted from 0: multiples of 8, or the full size in the last
    /// stage.
    pub fn size(&self, full: ImageSize, epoch: usize) -> ImageSize {
        let shorter = self.shorter(full.shorter(), epoch);
        let in_proportion = |side: usize| {
            let side = (side as u128 * shorter as u128) as f64 / full.shorter().max(1) as f64;
            ((side / 8.0).round() as usize * 8).clamp(shorter, full.longer().max(shorter))
        };
        full.map(|side| if side == full.shorter() { shorter } else { in_proportion(side) })
    }

    /// Returns the shorter side in an epoch.
    fn shorter(&self, full: usize, epoch: usize) -> usize {
        let stages = self.stages.max(1);
        let stage = epoch * stages / self.epochs.max(1);
        if stage + 1 >= stages {
            return full;
        }
        let side = self.start as f64 + (full as f64 - self.start as f64) * stage as f64 / (stages - 1) as f64;
        ((side / 8.0).round() as usize * 8).clamp(self.start.min(full), full.max(self.start))
    }
}

impl TrainTransform {
    /// Crops, flips at random, and augments. Returns `size` pixels and the remaining operations.
    pub fn apply(&self, image: RgbPixels, rng: &mut impl Rng) -> (RgbPixels, AugmentPlan) {
        let size = self.size.nonempty();
        let mut window = [0, 0];
        let out = match self.crop {
            Crop::RandomResized { scale, ratio } => {
                let region = random_region(image.width, image.height, scale, ratio, rng);
                if (region.width, region.height) == (image.width, image.height) {
                    self.resize_crop(&image)
                } else {
                    // Crop first, as torchvision does, so that no pixel outside the crop
                    // contributes.
                    self.resize_crop(&crop(
                        &image,
                        region.left as isize,
                        region.top as isize,
                        region.width,
                        region.height,
                    ))
                }
            }
            Crop::PadAndCrop { padding } => {
                let (width, height) = self.resized(&image);
                // The letterbox around a side that is shorter than the output is part of the image.
                let start = |length: usize, size: usize, rng: &mut _| {
                    let shift = below(length.max(size) + 2 * padding - size + 1, rng) as isize - padding as isize;
                    shift + CropRounding::Even.start(length, length.max(size))
                };
                let (left, top) = (start(width, size.width, rng), start(height, size.height, rng));
                if self.deferred && (width, height) == size.width_height() && self.letterbox.is_none() {
                    window = [left, top];
                    resize(&image, width, height, self.interpolation)
                } else {
                    self.frame().crop(&image, (width, height), (left, top))
                }
            }
            Crop::Center => self.frame().center(&image, self.resized(&image)),
        };
        let mirrored = self.draws_mirrored(rng);
        self.finish(out, window, mirrored, rng)
    }

    /// Applies the transform to a JPEG file, decoding only the crop. The random crop equals that of
    /// [`apply`](Self::apply); pixels differ by about 1 of 255. Returns `None` if the file needs
    /// the full decoder; `rng` has then been advanced.
    pub fn apply_jpeg(
        &self,
        bytes: &[u8],
        decoding: &Decoding,
        rng: &mut impl Rng,
        scratch: &mut Scratch,
    ) -> Option<(RgbPixels, AugmentPlan)> {
        let (Crop::RandomResized { scale, ratio }, Some(filter)) = (self.crop, filter(self.interpolation)) else {
            return None;
        };
        let jpeg = Jpeg::open(bytes)?;
        if jpeg.width * jpeg.height > decoding.max_pixels || (decoding.exif_orientation && jpeg.has_exif) {
            return None;
        }
        let region = random_region(jpeg.width, jpeg.height, scale, ratio, rng);
        let mirrored = self.draws_mirrored(rng);
        let size = self.crop_size((region.width, region.height));
        match self.letterbox {
            // Flipping while writing the output is free.
            None => {
                let out = resize_region(&jpeg, region, size, filter, mirrored, scratch)?;
                Some(self.finish(out, [0, 0], false, rng))
            }
            Some(_) => {
                let out = resize_region(&jpeg, region, size, filter, false, scratch)?;
                Some(self.finish(self.frame().center(&out, size), [0, 0], mirrored, rng))
            }
        }
    }

    /// Returns the output of a crop.
    fn frame(&self) -> Frame {
        let fill = self.letterbox.unwrap_or_default();
        Frame { size: self.size.nonempty(), interpolation: self.interpolation, fill }
    }

    /// Returns the size of an image, width and height, that is resized before it is cropped.
    fn resized(&self, image: &RgbPixels) -> (usize, usize) {
        let resized = if self.letterbox.is_some() { fitted } else { covering };
        resized((image.width, image.height), self.size.nonempty())
    }

    /// Returns the size, width and height, to which a crop of this size is resized.
    fn crop_size(&self, crop: (usize, usize)) -> (usize, usize) {
        let size = self.size.nonempty();
        if self.letterbox.is_some() { fitted(crop, size) } else { size.width_height() }
    }

    /// Resizes a crop to the output, which it fills or, with its aspect ratio, fits.
    fn resize_crop(&self, crop: &RgbPixels) -> RgbPixels {
        self.frame().center(crop, self.crop_size((crop.width, crop.height)))
    }

    fn draws_mirrored(&self, rng: &mut impl Rng) -> bool {
        // Sample even if the probability is 0 or 1, so that changing it does not change the crops.
        rng.random::<f64>() < self.horizontal_flip
    }

    /// Applies or plans the operations after the crop: shift, flip and augmentation.
    fn finish(
        &self,
        mut out: RgbPixels,
        window: [isize; 2],
        mirrored: bool,
        rng: &mut impl Rng,
    ) -> (RgbPixels, AugmentPlan) {
        let mut plan = AugmentPlan::default();
        if self.deferred && (mirrored || window != [0, 0]) {
            let [left, top] = window;
            plan.push(Operation::Window { left, top, mirrored, upside_down: false }, Sampling::default());
        } else if mirrored {
            mirror(&mut out);
        }
        self.augmentation.draw(&mut plan, (out.width, out.height), rng);
        if self.deferred { (out, plan) } else { (plan.apply(out), AugmentPlan::default()) }
    }
}

/// The transform that a `Loader` of mbconv-data applies to each image.
#[derive(Clone, Debug, PartialEq)]
// There is one value per loader, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum Transform {
    /// Random training transform.
    Train(TrainTransform),
    /// Deterministic preprocessing for validation and prediction.
    Eval(Preprocess),
    /// Deterministic preprocessing to [five crops](Preprocess::five_crops) of each image, one below
    /// the other.
    FiveCrops(Preprocess),
}

impl Transform {
    /// Applies the transform. Returns the pixels and the remaining operations. Only the training
    /// transform uses `rng`.
    pub fn apply(&self, image: RgbPixels, rng: &mut impl Rng) -> (RgbPixels, AugmentPlan) {
        match self {
            Transform::Train(train) => train.apply(image, rng),
            Transform::Eval(preprocess) => (preprocess.apply(image), AugmentPlan::default()),
            Transform::FiveCrops(preprocess) => (preprocess.five_crops(&image), AugmentPlan::default()),
        }
    }

    /// Returns the transform of an epoch, counted from 0, which resolves progressive resizing.
    pub fn at_epoch(&self, epoch: usize) -> Self {
        match self {
            Transform::Train(train) => {
                let size = train.progressive.map_or(train.size, |progressive| progressive.size(train.size, epoch));
                Transform::Train(TrainTransform { size, progressive: None, ..train.clone() })
            }
            Transform::Eval(_) | Transform::FiveCrops(_) => self.clone(),
        }
    }

    /// Returns whether results include plans of remaining operations.
    pub fn is_deferred(&self) -> bool {
        matches!(self, Transform::Train(train) if train.deferred)
    }

    /// Returns the size of an image of the output in pixels.
    pub fn size(&self) -> ImageSize {
        match self {
            Transform::Train(train) => train.size.nonempty(),
            Transform::Eval(preprocess) | Transform::FiveCrops(preprocess) => preprocess.crop.nonempty(),
        }
    }

    /// Returns the number of images below each other in the output.
    pub fn crops(&self) -> usize {
        match self {
            Transform::Train(_) | Transform::Eval(_) => 1,
            Transform::FiveCrops(_) => Preprocess::FIVE,
        }
    }
}

/// Returns a uniform random number below `end`, or 0 for an empty range.
fn below(end: usize, rng: &mut impl Rng) -> usize {
    if end > 1 { rng.random_range(0..end) } else { 0 }
}

/// torchvision's `RandomResizedCrop.get_params`: ten attempts, then the largest center rectangle
/// with an allowed aspect ratio.
fn random_region(width: usize, height: usize, scale: (f64, f64), ratio: (f64, f64), rng: &mut impl Rng) -> Region {
    let area = (width * height) as f64;
    let log_ratio = (ratio.0.ln(), ratio.1.ln());
    let uniform = |(low, high): (f64, f64), rng: &mut _| low + (high - low) * RngExt::random::<f64>(rng);
    for _ in 0..10 {
        let target = area * uniform(scale, rng);
        let aspect = uniform(log_ratio, rng).exp();
        let w = (target * aspect).sqrt().round_ties_even() as usize;
        let h = (target / aspect).sqrt().round_ties_even() as usize;
        if 0 < w && w <= width && 0 < h && h <= height {
            let top = below(height - h + 1, rng);
            let left = below(width - w + 1, rng);
            return Region { left, top, width: w, height: h };
        }
    }
    let shape = width as f64 / height as f64;
    let (w, h) = if shape < ratio.0.min(ratio.1) {
        (width, (width as f64 / ratio.0.min(ratio.1)).round_ties_even() as usize)
    } else if shape > ratio.0.max(ratio.1) {
        ((height as f64 * ratio.0.max(ratio.1)).round_ties_even() as usize, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Region { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

/// Flips horizontally.
fn mirror(image: &mut RgbPixels) {
    for row in image.data.chunks_exact_mut(image.width * 3) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::sample_rng;

    #[test]
    fn random_regions_have_requested_area_and_aspect_ratio() {
        let (scale, ratio) = ((0.2, 0.6), (0.75, 4.0 / 3.0));
        let mut areas = Vec::new();
        for index in 0..500 {
            let region = random_region(640, 480, scale, ratio, &mut sample_rng(1, 0, index));
            assert!(region.left + region.width <= 640 && region.top + region.height <= 480);
            let shape = region.width as f64 / region.height as f64;
            assert!((0.74..1.35).contains(&shape), "{region:?}");
            areas.push((region.width * region.height) as f64 / (640.0 * 480.0));
        }
        let mean = areas.iter().sum::<f64>() / 500.0;
        assert!(areas.iter().all(|area| (0.195..0.605).contains(area)) && (0.36..0.44).contains(&mean), "{mean}");
    }

    #[test]
    fn random_region_falls_back_to_center_if_none_fits() {
        let region =
            |width, height| random_region(width, height, (1.0, 1.0), (0.75, 4.0 / 3.0), &mut sample_rng(0, 0, 0));
        assert_eq!(region(1000, 10), Region { left: 493, top: 0, width: 13, height: 10 });
        assert_eq!(region(10, 1000), Region { left: 0, top: 493, width: 10, height: 13 });
        // Invalid ratios give some region instead of a panic.
        for ratio in [(f64::NAN, 1.0), (0.0, 0.0), (-1.0, 2.0), (1e300, 1e300)] {
            let region = random_region(7, 5, (0.1, f64::INFINITY), ratio, &mut sample_rng(0, 0, 0));
            assert!(region.width > 0 && region.left + region.width <= 7 && region.top + region.height <= 5);
        }
    }

    #[test]
    fn padded_crops_use_every_position() {
        let image = RgbPixels { width: 4, height: 4, data: (1..=48).collect() };
        let transform = TrainTransform {
            size: 4.into(),
            interpolation: Interpolation::Bilinear,
            crop: Crop::PadAndCrop { padding: 1 },
            ..TrainTransform::default()
        };
        let mut seen = [false; 9];
        for index in 0..200 {
            let (out, _) = transform.apply(image.clone(), &mut sample_rng(0, 0, index));
            let place = (0..9).find(|place| out == crop(&image, place % 3 - 1, place / 3 - 1, 4, 4));
            seen[place.expect("a crop of the padded image") as usize] = true;
        }
        assert_eq!(seen, [true; 9]);
    }

    #[test]
    fn letterboxes_keep_the_shape_of_crops() {
        // White images of 100×40 pixels: the padded part has the other color.
        let image = || RgbPixels { width: 100, height: 40, data: vec![255; 100 * 40 * 3] };
        let white = |out: &RgbPixels| {
            let inside = |x: usize, y: usize| out.data[(y * out.width + x) * 3] == 255;
            let columns = (0..out.width).filter(|&x| (0..out.height).any(|y| inside(x, y))).count();
            let rows = (0..out.height).filter(|&y| (0..out.width).any(|x| inside(x, y))).count();
            (columns, rows)
        };
        let of = |crop, index| {
            let transform =
                TrainTransform { size: 50.into(), letterbox: Some([7; 3]), crop, ..TrainTransform::default() };
            transform.apply(image(), &mut sample_rng(2, 0, index)).0
        };
        assert_eq!(white(&of(Crop::Center, 0)), (50, 20));
        let mut shifts = [false; 2];
        for index in 0..50 {
            let (columns, rows) = white(&of(Crop::PadAndCrop { padding: 4 }, index));
            assert!((46..=50).contains(&columns) && rows == 20, "{columns}×{rows}");
            shifts[usize::from(columns < 50)] = true;
            let crop = Crop::RandomResized { scale: (0.3, 0.5), ratio: (0.5, 2.0) };
            let region = random_region(100, 40, (0.3, 0.5), (0.5, 2.0), &mut sample_rng(2, 0, index));
            let (columns, rows) = white(&of(crop, index));
            assert_eq!((columns, rows), fitted((region.width, region.height), 50.into()), "{region:?}");
        }
        assert_eq!(shifts, [true; 2]);
    }

    #[test]
    fn letterboxed_jpeg_crops_equal_those_of_decoded_images() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode");
        let bytes = std::fs::read(folder.join("baseline_444.jpg")).unwrap();
        let transform = TrainTransform {
            size: 31.into(),
            letterbox: Some([7, 70, 170]),
            crop: Crop::RandomResized { scale: (0.3, 1.0), ratio: (0.4, 2.5) },
            horizontal_flip: 0.5,
            ..TrainTransform::default()
        };
        for index in 0..40 {
            let rng = || sample_rng(4, 0, index);
            let (whole, _) = transform.apply(crate::decode_rgb(&bytes).unwrap(), &mut rng());
            let (part, _) =
                transform.apply_jpeg(&bytes, &Decoding::default(), &mut rng(), &mut Scratch::default()).unwrap();
            let sum: u32 = whole.data.iter().zip(&part.data).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            assert!((sum as f64) < 2.5 * whole.data.len() as f64, "{index}: {sum}");
            let padding = |image: &RgbPixels| {
                image.data.chunks(3).enumerate().filter(|(_, p)| p == &[7, 70, 170]).map(|(i, _)| i).collect::<Vec<_>>()
            };
            assert_eq!(padding(&whole), padding(&part), "{index}");
        }
    }

    #[test]
    fn progressive_sizes_grow_in_equal_stages() {
        let progressive = Progressive { start: 128, stages: 4, epochs: 100 };
        let size = |epoch| progressive.size(224.into(), epoch).width;
        assert_eq!([0, 24, 25, 50, 74, 75, 99, 100, 1000].map(size), [128, 128, 160, 192, 192, 224, 224, 224, 224]);
        let one = Progressive { start: 64, stages: 1, epochs: 10 };
        assert_eq!(one.size(224.into(), 0), ImageSize::square(224));
        let wide = |epoch| progressive.size([192, 320].into(), epoch).sides();
        assert_eq!([0, 25, 50, 75].map(wide), [[128, 216], [152, 256], [168, 280], [192, 320]]);
        let tall = |epoch| progressive.size([320, 192].into(), epoch).sides();
        assert_eq!([0, 99].map(tall), [[216, 128], [320, 192]]);
    }

    #[test]
    fn random_crops_fill_rectangles() {
        let image = RgbPixels { width: 90, height: 50, data: (0..90 * 50 * 3).map(|i| (i * 7 % 251) as u8).collect() };
        let (scale, ratio) = ((0.2, 0.9), (0.5, 2.0));
        let size = ImageSize::from([20, 33]);
        let crop = Crop::RandomResized { scale, ratio };
        let transform = TrainTransform { size, crop, ..TrainTransform::default() };
        for index in 0..20 {
            let rng = || sample_rng(5, 0, index);
            let Region { left, top, width, height } = random_region(90, 50, scale, ratio, &mut rng());
            let part = super::crop(&image, left as isize, top as isize, width, height);
            assert_eq!(transform.apply(image.clone(), &mut rng()).0, resize(&part, 33, 20, transform.interpolation));
        }
    }

    #[test]
    fn flip_frequency_matches_probability() {
        let image = RgbPixels { width: 2, height: 2, data: [1, 2, 3, 4, 5, 6].repeat(2) };
        let mirrored = |horizontal_flip| {
            let (interpolation, crop) = (Interpolation::Bilinear, Crop::Center);
            let transform =
                TrainTransform { size: 2.into(), interpolation, crop, horizontal_flip, ..TrainTransform::default() };
            let first = |index| transform.apply(image.clone(), &mut sample_rng(3, 0, index)).0.data[0];
            (0..400).filter(|&index| first(index) == 4).count()
        };
        assert_eq!((mirrored(0.0), mirrored(1.0)), (0, 400));
        assert!((150..250).contains(&mirrored(0.5)));
    }
}
