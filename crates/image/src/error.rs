//! Errors of decoding images.

/// An error of decoding an image.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The content is not of a supported image format, for example a text file or an empty file.
    #[error("not an image of a known format ({})", crate::formats::list::names())]
    UnknownFormat,
    /// An unsupported format, or an unsupported variant of a format.
    #[error("{kind} is not supported (supported formats: {names})", kind = .0, names = crate::formats::list::names())]
    Unsupported(String),
    /// The file ends before the image data, for example after an interrupted download.
    #[error("the image is truncated: the file ends before its last pixel")]
    Truncated,
    /// The header declares more pixels than [`MAX_PIXELS`](crate::decoding::MAX_PIXELS).
    #[error("the image has {width}×{height} pixels, more than the {limit} allowed (a decompression bomb?)")]
    TooLarge {
        /// Declared width in pixels.
        width: usize,
        /// Declared height in pixels.
        height: usize,
        /// Maximum number of pixels.
        limit: usize,
    },
    /// The file is larger than the maximum of the `mbconv-data` crate, `MAX_IMAGE_BYTES`.
    #[error("the file has {bytes} bytes, more than the maximum of {limit}")]
    TooManyBytes {
        /// The file size in bytes.
        bytes: u64,
        /// The maximum size in bytes.
        limit: u64,
    },
    /// A device, a pipe or a folder.
    #[error("it is not a regular file")]
    NotAFile,
    /// The file is inconsistent, or its variant of the format is not supported.
    #[error("the image is damaged or of an unsupported kind: {0}")]
    Damaged(String),
}

/// The network's number of input channels does not fit images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network takes images of {channels} channels, but images have 3 (color) or 1 (gray)")]
pub struct UnsupportedChannels {
    /// The network's input channels.
    pub channels: usize,
}
