//! The supported image formats.

use std::path::Path;

use image::ImageFormat;

/// A supported format.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Common name.
    pub name: &'static str,
    /// Format of the `image` crate.
    pub id: ImageFormat,
    /// File extensions in lower case.
    pub extensions: &'static [&'static str],
    /// Supported kinds of the format.
    pub kinds: &'static str,
}

/// All supported formats. The documentation and error messages list them.
pub const FORMATS: [Format; 10] = [
    Format {
        name: "JPEG",
        id: ImageFormat::Jpeg,
        extensions: &["jpg", "jpeg", "jpe", "jfif"],
        kinds: "8 bits per sample: baseline, extended and progressive, Huffman or arithmetic coding; gray, YCbCr, RGB, CMYK, YCCK",
    },
    Format { name: "PNG", id: ImageFormat::Png, extensions: &["png"], kinds: "all; of an APNG the default image" },
    Format { name: "GIF", id: ImageFormat::Gif, extensions: &["gif"], kinds: "all; the first frame" },
    Format {
        name: "BMP",
        id: ImageFormat::Bmp,
        extensions: &["bmp"],
        kinds: "1 to 32 bits per pixel, run-length coding, bit fields",
    },
    Format { name: "WebP", id: ImageFormat::WebP, extensions: &["webp"], kinds: "lossy and lossless; the first frame" },
    Format {
        name: "TIFF",
        id: ImageFormat::Tiff,
        extensions: &["tif", "tiff"],
        kinds: "gray of 1 to 32 bits (unsigned, signed, float), palette, RGB and CMYK of 8 and 16 bits, YCbCr as JPEG; uncompressed, LZW, Deflate, PackBits, Zstandard, JPEG, CCITT group 4; strips and tiles; the first page",
    },
    Format {
        name: "PNM",
        id: ImageFormat::Pnm,
        extensions: &["ppm", "pgm", "pbm", "pnm"],
        kinds: "P1 to P6, up to 16 bits per sample",
    },
    Format {
        name: "TGA",
        id: ImageFormat::Tga,
        extensions: &["tga"],
        kinds: "gray, palette, RGB and RGBA, 8 to 32 bits per pixel, run-length coding",
    },
    Format { name: "ICO", id: ImageFormat::Ico, extensions: &["ico"], kinds: "the largest image, as BMP or PNG" },
    Format { name: "QOI", id: ImageFormat::Qoi, extensions: &["qoi"], kinds: "all" },
];

/// Returns the names of all supported formats.
pub(crate) fn names() -> String {
    FORMATS.map(|format| format.name).join(", ")
}

/// Returns the supported format with this extension.
pub fn by_extension(extension: &str) -> Option<&'static Format> {
    let extension = extension.to_ascii_lowercase();
    FORMATS.iter().find(|format| format.extensions.contains(&extension.as_str()))
}

/// Returns whether a file has the extension of a supported format.
pub fn is_image(name: &Path) -> bool {
    let extension = name.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| by_extension(extension).is_some())
}
