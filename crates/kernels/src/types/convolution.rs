//! The three convolutions of MBConv networks.

use crate::types::conv2d_geometry::Conv2dGeometry;

/// Kind of convolution. All are linear in the feature map and in the weight, so that one pair of
/// gradients serves all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convolution {
    /// 1x1, one matrix multiplication; weight [Co, Ci, 1, 1].
    Pointwise,
    /// One kernel per channel; weight [C, 1, k, k].
    Depthwise(Conv2dGeometry),
    /// All input channels to all output channels; weight [Co, Ci, k, k].
    Dense(Conv2dGeometry),
}

impl Convolution {
    /// Returns the geometry: a single pixel for [`Convolution::Pointwise`].
    pub fn geometry(self) -> Conv2dGeometry {
        match self {
            Self::Pointwise => Conv2dGeometry { kernel: 1, stride: 1, padding: 0 },
            Self::Depthwise(geometry) | Self::Dense(geometry) => geometry,
        }
    }

    /// Returns the height and width of the output for those of the input, which may be zero for
    /// [`Convolution::Pointwise`].
    ///
    /// # Panics
    /// As [`Conv2dGeometry::output`].
    pub fn output_size(self, input: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Pointwise => input,
            Self::Depthwise(geometry) | Self::Dense(geometry) => input.map(|side| geometry.output(side)),
        }
    }

    /// Returns the number of groups over `channels` input channels.
    pub fn groups(self, channels: usize) -> usize {
        match self {
            Self::Depthwise(_) => channels,
            Self::Pointwise | Self::Dense(_) => 1,
        }
    }
}
