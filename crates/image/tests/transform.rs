//! Training transforms match Pillow and accept images of any shape.

use std::fs;
use std::path::Path;

use mbconv_image::{Crop, ImageSize, Interpolation, RgbPixels, TrainTransform, decode_rgb, sample_rng};
use proptest::prelude::*;

#[test]
fn resized_crop_of_the_whole_image_matches_pillow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/resize");
    let load = |name: String| decode_rgb(&fs::read(folder.join(name)).unwrap()).unwrap();
    let filters = [
        (Interpolation::Bilinear, "bilinear"),
        (Interpolation::Bicubic, "bicubic"),
        (Interpolation::Nearest, "nearest"),
    ];
    for (photo, size) in [("landscape", 64), ("portrait", 97)] {
        for (interpolation, filter) in filters {
            let image = load(format!("{photo}.png"));
            let shape = image.width as f64 / image.height as f64;
            let whole = Crop::RandomResized { scale: (1.0, 1.0), ratio: (shape, shape) };
            let transform =
                TrainTransform { size: size.into(), interpolation, crop: whole, ..TrainTransform::default() };
            let (ours, _) = transform.apply(image, &mut sample_rng(0, 0, 0));
            assert_eq!(ours, load(format!("{photo}_stretch{size}_{filter}.png")), "{photo} {size} {filter}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Crops of extreme shapes have the requested size.
    #[test]
    fn crops_accept_any_shape(
        width in prop_oneof![1usize..60, 1000usize..3000], height in 1usize..60,
        sides in [1usize..70, 1usize..70], is_square in any::<bool>(), deferred in any::<bool>(), padding in 0usize..9, seed in any::<u64>(),
    ) {
        let image = RgbPixels { width, height, data: vec![200; width * height * 3] };
        let interpolation = Interpolation::Bicubic;
        let [rows, columns] = if is_square { [sides[0]; 2] } else { sides };
        let size = ImageSize::from([rows, columns]);
        // A letterbox of the image's color does not show.
        for (crop, letterbox) in [
            Crop::Center, Crop::PadAndCrop { padding }, Crop::RandomResized { scale: (0.08, 1.0), ratio: (0.75, 4.0 / 3.0) },
        ].into_iter().flat_map(|crop| [(crop, None), (crop, Some([200; 3]))]) {
            let horizontal_flip = 0.5;
            let transform =
                TrainTransform { size, interpolation, letterbox, crop, horizontal_flip, deferred, ..TrainTransform::default() };
            let (out, plan) = transform.apply(image.clone(), &mut sample_rng(seed, 0, 0));
            prop_assert_eq!((out.width, out.height, out.data.len()), (columns, rows, rows * columns * 3));
            // Planned operations give the pixels of those that are done at once.
            let at_once = TrainTransform { deferred: false, ..transform };
            prop_assert_eq!(&plan.apply(out.clone()), &at_once.apply(image.clone(), &mut sample_rng(seed, 0, 0)).0);
            if letterbox.is_some() || !matches!(crop, Crop::PadAndCrop { .. }) {
                // A uniform image stays uniform, because the weights sum to 1.
                prop_assert!(out.data.iter().all(|&value| value == 200));
            }
        }
    }
}
