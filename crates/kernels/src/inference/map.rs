//! Feature maps and the windows over them.

use super::description::Padding;
use super::plan::{Block, Depthwise, Product, Stage};

/// The height, width and channels of one image's feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Map {
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    pub fn len(self) -> usize {
        self.pixels() * self.channels
    }

    /// Returns the number of elements in a line.
    pub fn line(self) -> usize {
        self.width * self.channels
    }
}

/// A window over a feature map: the output's dimensions, and the padding of the input.
#[derive(Clone, Copy)]
pub struct Geometry {
    pub kernel: usize,
    pub stride: usize,
    pub out: Map,
    pub top: usize,
    /// Pixels of zeros to the left and right of a line.
    pub sides: [usize; 2],
}

impl Geometry {
    pub fn new(map: Map, kernel: usize, stride: usize, padding: Padding, channels: usize) -> Self {
        let (height, [top, _]) = padding.along(map.height, kernel, stride);
        let (width, sides) = padding.along(map.width, kernel, stride);
        Self { kernel, stride, out: Map { height, width, channels }, top, sides }
    }

    /// # Panics
    /// If the feature map and the layer differ in their channels, or a window does not fit.
    pub fn of(layer: &Product, map: Map) -> Self {
        assert_eq!(map.channels, layer.inputs, "the channels of a map and of the layer that it enters");
        Self::new(map, layer.kernel, layer.stride, layer.padding, layer.outputs)
    }

    /// # Panics
    /// As for [`Self::of`].
    pub fn of_depthwise(layer: &Depthwise, map: Map) -> Self {
        assert_eq!(map.channels, layer.channels, "the channels of a map and of the layer that it enters");
        Self::new(map, layer.kernel, layer.stride, layer.padding, layer.channels)
    }

    /// Returns the number of input lines that `rows` output lines read.
    pub fn lines(self, rows: usize) -> usize {
        (rows.max(1) - 1) * self.stride + self.kernel
    }
}

impl Block {
    /// Returns the dimensions of the feature map between the expansion and the depthwise
    /// convolution.
    pub fn expanded(&self, map: Map) -> Map {
        match &self.expand {
            Some(expand) => Geometry::of(expand, map).out,
            None => map,
        }
    }

    /// Returns the dimensions of the feature map before the projection.
    pub fn hidden(&self, map: Map) -> Map {
        let expanded = self.expanded(map);
        match &self.depthwise {
            Some(depthwise) => Geometry::of_depthwise(depthwise, expanded).out,
            None => expanded,
        }
    }
}

impl Stage {
    pub fn output(&self, map: Map) -> Map {
        match self {
            Self::Layer(layer) => Geometry::of(layer, map).out,
            Self::Block(block) => {
                let hidden = block.hidden(map);
                assert_eq!(hidden.channels, block.project.inputs, "the channels of a map and of its projection");
                let out = Map { channels: block.project.outputs, ..hidden };
                assert!(!block.residual || out == map, "a residual {map:?} is added to {out:?}");
                out
            }
            Self::Pool => Map { height: 1, width: 1, ..map },
        }
    }
}
