//! Constants of the ImageNet data set.

/// Mean of the ImageNet images' RGB channels, which most published networks subtract.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the ImageNet images' RGB channels.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Names of the 1000 classes of ILSVRC2012, one per line, in label order.
pub const IMAGENET_CLASSES: &str = include_str!("imagenet.txt");
