//! The gradient of a weight for a 16-bit feature map, on tensor cores: small matrices, each a sum
//! over very many pixels, of which every cube computes a slice.
//!
//! As in [`skinny_matmul`](super::skinny_matmul), memory bandwidth limits the speed. A cube reads
//! strips of pixels from both feature maps, as whole rows and with overlapping reads. Its planes
//! share the matrix's tiles and keep their sums in registers.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{
    cubecl::{
        self,
        cmma::{self, MatrixIdent, MatrixLayout},
        ir::ElemType,
        prelude::*,
    },
    tensor::CubeTensor,
};

use super::skinny_matmul::{GAP, tile_of, widest_of};
use super::tensors::{address, element};

/// Approximate number of elements in a strip of both feature maps.
const STRIP: usize = 12 << 10;
/// Maximum number of pixels in a strip.
const PIXELS: usize = 128;
/// Maximum number of planes in a cube.
const PLANES: usize = 8;
/// Maximum number of tiles whose sums a plane keeps.
const TILES: usize = 12;

/// Compile-time parameters of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Layout {
    rows: usize,
    columns: usize,
    /// Side length of a tile.
    tile: usize,
    /// Number of pixels in a strip.
    strip: usize,
    /// Number of units in a plane.
    plane: usize,
    /// Number of planes in a cube.
    planes: usize,
}

impl Layout {
    /// Returns the distance between pixels in shared memory, for both feature maps.
    fn pitches(self) -> [usize; 2] {
        [self.rows, self.columns].map(|length| length.next_multiple_of(self.tile) + GAP)
    }

    /// Returns the number of tiles of the matrix, vertically and horizontally.
    fn tiles(self) -> [usize; 2] {
        [self.rows, self.columns].map(|length| length.div_ceil(self.tile))
    }

    /// Returns the number of tiles per plane.
    fn own_tiles(self) -> usize {
        let [down, right] = self.tiles();
        (down * right).div_ceil(self.planes)
    }

    /// Returns the bytes of shared memory: a strip of both feature maps, and a tile of sums for
    /// each plane.
    fn bytes(self) -> usize {
        let [left, right] = self.pitches();
        self.strip * (left + right) * size_of::<u16>() + self.planes * self.tile * self.tile * size_of::<f32>()
    }
}

/// Writes `left` [S, M, K], stored column by column, times `right` [S, K, N], stored row by row,
/// into `y` [S, M, N] in single precision. Returns false without writing if the kernel does not
/// support these matrices or this device.
pub fn product(left: &CubeTensor, right: &CubeTensor, y: &CubeTensor) -> bool {
    let Some((layout, vectors)) = layout(left, right, y) else { return false };
    let (client, element, [slices, _, pixels]) = (left.client.clone(), element(left), left.shape().dims());
    sums_kernel::launch(
        &client,
        CubeCount::Static(slices as u32, 1, 1),
        CubeDim::new_2d(layout.plane as u32, layout.planes as u32),
        address(&[left, right, y]),
        vectors[0],
        vectors[1],
        left.clone().into_buffer_arg(),
        right.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        pixels,
        layout,
        element,
    );
    true
}

/// Returns the compile-time parameters and the widths of the vectors in which both feature maps are
/// read.
fn layout(left: &CubeTensor, right: &CubeTensor, y: &CubeTensor) -> Option<(Layout, [usize; 2])> {
    let short = matches!(left.dtype, DType::F16 | DType::BF16) && right.dtype == left.dtype && y.dtype == DType::F32;
    let batched = [left, right, y].iter().all(|tensor| tensor.shape().num_dims() == 3);
    if !short || !batched {
        return None;
    }
    let ([_, rows, pixels], [_, _, columns]) = (left.shape().dims(), right.shape().dims());
    let lies = |tensor: &CubeTensor, strides: [usize; 3]| tensor.meta.strides()[..] == strides;
    let hardware = &left.client.properties().hardware;
    let (tile, plane) = (tile_of(left)?, hardware.plane_size_max as usize);
    let vectors = [widest_of(rows)?, widest_of(columns)?];
    let at_once = STRIP / (rows + columns) / tile * tile;
    let tiles = rows.div_ceil(tile) * columns.div_ceil(tile);
    let layout = Layout {
        rows,
        columns,
        tile,
        strip: at_once.clamp(tile, PIXELS),
        plane,
        planes: 1 << tiles.min(PLANES).ilog2(),
    };
    let made_for = layout.own_tiles() <= TILES
        && layout.bytes() <= hardware.max_shared_memory_size
        && plane * layout.planes <= hardware.max_units_per_cube as usize
        && (tile * tile).is_multiple_of(plane)
        && lies(left, [pixels * rows, 1, rows])
        && lies(right, [pixels * columns, columns, 1])
        && lies(y, [rows * columns, columns, 1]);
    made_for.then_some((layout, vectors))
}

#[cube(launch, address_type = "dynamic")]
fn sums_kernel<E: Float, L: Size, R: Size>(
    left: &[Vector<E, L>],
    right: &[Vector<E, R>],
    y: &mut [f32],
    pixels: usize,
    #[comptime] layout: Layout,
    #[define(E)] _element: ElemType,
) {
    let Layout { rows, columns, tile: side, strip, plane, planes } = comptime!(layout);
    let [left_pitch, right_pitch] = comptime!(layout.pitches());
    let [down, across] = comptime!(layout.tiles());
    let count = comptime!(layout.own_tiles());
    let (left_width, right_width) = (L::value(), R::value());
    let mut left_strip = Shared::<[Vector<E, L>]>::new_slice(comptime!(strip * left_pitch / left_width));
    let mut right_strip = Shared::<[Vector<E, R>]>::new_slice(comptime!(strip * right_pitch / right_width));
    let mut stage = Shared::<[f32]>::new_slice(comptime!(planes * side * side));
    let slice = CUBE_POS_X as usize;
    let own = UNIT_POS_Y as usize;

    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..count {
        let none = MatrixLayout::Undefined;
        sums.push(cmma::Matrix::from_value(MatrixIdent::Accumulator, side, side, side, none, 0.0));
    }
    let mut first = 0;
    while first < pixels {
        let seen = slice * pixels + first;
        read_strip::<E, L>(left, &mut left_strip, seen, pixels - first, rows, left_pitch, layout);
        read_strip::<E, R>(right, &mut right_strip, seen, pixels - first, columns, right_pitch, layout);
        sync_cube();
        for step in 0..comptime!(strip / side) {
            #[unroll]
            for index in 0..count {
                // Planes without a tile of their own repeat the last tile and discard the result.
                let tile = min(own + index * planes, comptime!(down * across - 1));
                let (row, column) = (tile / across, tile % across);
                let at = step * comptime!(side * left_pitch / left_width) + row * comptime!(side / left_width);
                let a = cmma::Matrix::<Vector<E, L>>::from_slice(
                    MatrixIdent::A,
                    side,
                    side,
                    side,
                    MatrixLayout::ColMajor,
                    &left_strip[at..at + comptime!(side * left_pitch / left_width)],
                    comptime!(left_pitch as u32),
                );
                let at = step * comptime!(side * right_pitch / right_width) + column * comptime!(side / right_width);
                let b = cmma::Matrix::<Vector<E, R>>::from_slice(
                    MatrixIdent::B,
                    side,
                    side,
                    side,
                    MatrixLayout::RowMajor,
                    &right_strip[at..at + comptime!(side * right_pitch / right_width)],
                    comptime!(right_pitch as u32),
                );
                cmma::execute(&a, &b, sums.index(index), sums.index(index));
            }
        }
        sync_cube();
        first += strip;
    }
    let own_stage = own * comptime!(side * side);
    #[unroll]
    for index in 0..count {
        let tile = own + index * planes;
        let (row, column) = (tile / across * side, tile % across * side);
        cmma::store(
            &mut stage[own_stage..own_stage + comptime!(side * side)],
            sums.index(index),
            comptime!(side as u32),
            MatrixLayout::RowMajor,
        );
        sync_plane();
        #[unroll]
        for part in 0..comptime!(side * side / plane) {
            let place = part * plane + UNIT_POS_X as usize;
            let (row, column) = (row + place / side, column + place % side);
            if tile < down * across && row < rows && column < columns {
                y[(slice * rows + row) * columns + column] = stage[own_stage + place];
            }
        }
        sync_plane();
    }
}

/// Reads a strip of pixels, starting at pixel `first` counted over all slices; zeros fill it beyond
/// the `left` remaining pixels.
#[cube]
fn read_strip<E: Float, V: Size>(
    map: &[Vector<E, V>],
    strip: &mut Shared<[Vector<E, V>]>,
    first: usize,
    left: usize,
    #[comptime] channels: usize,
    #[comptime] pitch: usize,
    #[comptime] layout: Layout,
) {
    let width = V::value();
    let units = comptime!(layout.plane * layout.planes);
    let length = comptime!(channels / width);
    let all = comptime!(layout.strip * length);
    let count = comptime!(all.div_ceil(units));
    let mut values = Array::<Vector<E, V>>::new(count);
    #[unroll]
    for part in 0..count {
        // Units beyond the last vector reread it, so that no read depends on a branch.
        let place = min(part * units + UNIT_POS as usize, comptime!(all - 1));
        let pixel = place / length;
        let inside = pixel < left;
        let position = select(inside, first * length + place, 0);
        values[part] = select(inside, map[position], Vector::zeroed());
    }
    #[unroll]
    for part in 0..count {
        let place = min(part * units + UNIT_POS as usize, comptime!(all - 1));
        strip[place / length * comptime!(pitch / width) + place % length] = values[part];
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Shape;
    use burn_cubecl::ops::permute;

    use super::super::skinny_matmul::tests::{map, numbers, read};
    use super::super::tensors::empty_single;
    use super::*;

    /// Runs on CubeCL's default device; skipped if the kernel does not support its tensor cores.
    #[test]
    fn slice_sums_match_a_direct_computation() {
        for (slices, pixels, rows, columns) in
            [(3, 700, 96, 16), (2, 513, 24, 20), (5, 64, 8, 4), (1, 1100, 40, 48), (2, 999, 56, 96), (4, 129, 12, 144)]
        {
            let (g, x) = (numbers(slices * pixels * rows, 1), numbers(slices * pixels * columns, 2));
            let left = permute(map(&g, [slices, pixels, rows]), &[0, 2, 1]);
            let right = map(&x, [slices, pixels, columns]);
            let y = empty_single(&left, Shape::new([slices, rows, columns]));
            if !product(&left, &right, &y) {
                return eprintln!("no tensor cores, or others");
            }
            for (index, found) in read(y).into_iter().enumerate() {
                let (slice, row, column) = (index / columns / rows, index / columns % rows, index % columns);
                let term = |k: usize| g[(slice * pixels + k) * rows + row] * x[(slice * pixels + k) * columns + column];
                let expected: f32 = (0..pixels).map(term).sum();
                assert!((found - expected).abs() <= 1e-3, "{slice}, {row}, {column}: {found}, not {expected}");
            }
        }
    }
}
