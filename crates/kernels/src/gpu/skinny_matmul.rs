//! Multiplication of a tall 16-bit matrix, the pixels of a feature map, by a small one, a weight in
//! 16 or 32 bits, on tensor cores.
//!
//! There is little arithmetic per element, so memory bandwidth limits the speed. The small matrix
//! stays in each cube's shared memory. Every plane processes one strip of rows after the other: it
//! reads a whole strip in order and with overlapping reads, multiplies it tile by tile, and writes
//! whole vectors.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{
    cubecl::{
        self,
        cmma::{self, MatrixIdent, MatrixLayout},
        ir::{ElemType, FloatKind, features::MmaConfig},
        prelude::*,
    },
    tensor::CubeTensor,
};

use super::tensors::{address, element};

/// Side lengths of a tile that tensor cores support: those of NVIDIA, and of Mesa's CPU driver.
const TILES: [usize; 2] = [16, 8];
/// Number of elements between rows in shared memory, so that the rows of a tile are in different
/// banks.
pub const GAP: usize = 8;
/// Approximate number of elements in a strip, which a plane reads at once.
const STRIP: usize = 2048;
/// Number of planes in a cube: the largest for which its shared memory suffices.
const PLANES: [usize; 3] = [8, 4, 2];
/// Minimum number of strips per plane, to amortize reading the small matrix.
const STRIPS: usize = 4;
/// Maximum number of cubes per multiprocessor.
const CUBES: usize = 16;
/// Maximum number of elements of the small matrix.
const SMALL: usize = 1 << 15;
/// Minimum number of rows of the tall matrix.
const MIN_ROWS: usize = 1 << 12;

/// Compile-time parameters of a multiplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Layout {
    /// Number of terms of each sum.
    terms: usize,
    columns: usize,
    /// Side length of a tile.
    tile: usize,
    /// Number of tiles of rows in a strip.
    tiles: usize,
    /// Number of units in a plane.
    plane: usize,
    /// Number of planes in a cube.
    planes: usize,
}

impl Layout {
    /// Returns the number of terms, rounded up to whole tiles.
    fn depth(self) -> usize {
        self.terms.next_multiple_of(self.tile)
    }

    /// Returns the number of columns, rounded up to whole tiles.
    fn width(self) -> usize {
        self.columns.next_multiple_of(self.tile)
    }

    /// Returns the number of elements from one row of a tile in shared memory to the next.
    fn pitch(self) -> usize {
        self.depth() + GAP
    }

    /// Returns the number of rows in a strip.
    fn rows(self) -> usize {
        self.tiles * self.tile
    }

    /// Returns the bytes of shared memory: the small matrix, and for each plane a strip and a tile
    /// of sums.
    fn bytes(self) -> usize {
        let elements = (self.width() + self.planes * self.rows()) * self.pitch();
        elements * size_of::<u16>() + self.planes * self.tile * self.tile * size_of::<f32>()
    }
}

/// Writes `x` [M, K] times `weight` [K, N] into `y` [M, N]. Returns false without writing if the
/// kernel does not support these matrices or this device.
pub fn product(x: &CubeTensor, weight: &CubeTensor, y: &CubeTensor) -> bool {
    let Some((layout, vectors)) = layout(x, weight, y) else { return false };
    let (client, [rows, _]) = (x.client.clone(), x.shape().dims());
    let strips = rows.div_ceil(layout.rows());
    let processors = client.properties().hardware.num_streaming_multiprocessors.unwrap_or(64) as usize;
    let cubes = strips.div_ceil(layout.planes * STRIPS).clamp(1, CUBES * processors);
    let [step_term, step_column] = [weight.meta.strides()[0], weight.meta.strides()[1]];
    skinny_matmul_kernel::launch(
        &client,
        CubeCount::Static(cubes as u32, 1, 1),
        CubeDim::new_2d(layout.plane as u32, layout.planes as u32),
        address(&[x, weight, y]),
        vectors[0],
        vectors[1],
        x.clone().into_buffer_arg(),
        weight.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        strips,
        step_term,
        step_column,
        layout,
        element(x),
        element(weight),
    );
    true
}

/// Returns the compile-time parameters and the widths of the vectors in which `x` is read and `y`
/// is written.
fn layout(x: &CubeTensor, weight: &CubeTensor, y: &CubeTensor) -> Option<(Layout, [usize; 2])> {
    let short = matches!(x.dtype, DType::F16 | DType::BF16) && y.dtype == x.dtype;
    let short = short && (weight.dtype == x.dtype || weight.dtype == DType::F32);
    let matrices = [x, weight, y].iter().all(|tensor| tensor.shape().num_dims() == 2);
    if !short || !matrices {
        return None;
    }
    let ([rows, terms], [_, columns]) = (x.shape().dims(), weight.shape().dims());
    let in_order = |tensor: &CubeTensor, row: usize| tensor.meta.strides()[..] == [row, 1];
    let hardware = &x.client.properties().hardware;
    let (tile, plane) = (tile_of(x)?, hardware.plane_size_max as usize);
    let tiles = (STRIP / (tile * terms.next_multiple_of(tile))).clamp(1, 4);
    let fits = |layout: &Layout| {
        layout.bytes() <= hardware.max_shared_memory_size
            && plane * layout.planes <= hardware.max_units_per_cube as usize
    };
    let layout = PLANES.map(|planes| Layout { terms, columns, tile, tiles, plane, planes }).into_iter().find(fits)?;
    let [read, written] = [widest_of(terms)?, widest_of(columns)?];
    let made_for =
        rows >= MIN_ROWS && layout.depth() * layout.width() <= SMALL && in_order(x, terms) && in_order(y, columns);
    // Every unit of a plane handles the same number of vectors.
    let even = [tiles * tile * layout.depth() / read, tile * tile / written].iter().all(|n| n.is_multiple_of(plane));
    (made_for && even).then_some((layout, [read, written]))
}

/// Returns the side length of the tiles that the device multiplies in this precision with
/// accumulation in single precision.
pub fn tile_of(factor: &CubeTensor) -> Option<usize> {
    let properties = factor.client.properties();
    let hardware = &properties.hardware;
    let has = |tile: &usize| {
        properties.features.matmul.cmma.iter().any(|config: &MmaConfig| {
            [config.m, config.n, config.k].iter().all(|side| *side as usize == *tile)
                && [config.a_type, config.b_type] == [element(factor); 2]
                && config.cd_type == ElemType::Float(FloatKind::F32)
        })
    };
    TILES.into_iter().find(has).filter(|_| hardware.plane_size_min == hardware.plane_size_max)
}

/// Returns the width of the vectors in which rows of this length are read.
pub fn widest_of(length: usize) -> Option<usize> {
    [8, 4].into_iter().find(|width| length.is_multiple_of(*width))
}

/// One function of more than 100 lines, because its parts share the slices of shared memory and the
/// compile-time layout, which CubeCL passes to another function only one by one.
#[cube(launch, address_type = "dynamic")]
fn skinny_matmul_kernel<E: Float, F: Float, R: Size, W: Size>(
    x: &[Vector<E, R>],
    weight: &[F],
    y: &mut [Vector<E, W>],
    rows: usize,
    strips: usize,
    step_term: usize,
    step_column: usize,
    #[comptime] layout: Layout,
    #[define(E)] _element: ElemType,
    #[define(F)] _weights: ElemType,
) {
    let Layout { terms, columns, tile: side, tiles, plane, planes } = comptime!(layout);
    let pitch = comptime!(layout.pitch());
    let strip = comptime!(layout.rows());
    let (depth, width) = comptime!((layout.depth(), layout.width()));

    // Stored column by column.
    let mut small = Shared::<[E]>::new_slice(comptime!(width * pitch));
    let mut index = UNIT_POS as usize;
    while index < comptime!(width * depth) {
        let (column, term) = (index / depth, index % depth);
        let inside = term < terms && column < columns;
        let position = select(inside, term * step_term + column * step_column, 0);
        small[column * pitch + term] = select(inside, E::cast_from(weight[position]), E::from_int(0));
        index += comptime!(plane * planes);
    }
    let read = R::value();
    let mut lines = Shared::<[Vector<E, R>]>::new_slice(comptime!(planes * strip * pitch / read));
    let written = W::value();
    let mut sums = Shared::<[Vector<f32, W>]>::new_slice(comptime!(planes * side * side / written));
    sync_cube();

    let own = UNIT_POS_Y as usize;
    let unit = UNIT_POS_X as usize;
    let own_lines = own * comptime!(strip * pitch / read);
    let own_sums = own * comptime!(side * side / written);
    // All planes run the same number of iterations, the last ones possibly without work, so that
    // barriers are valid even if they cover the whole cube.
    let mut index = CUBE_POS_X as usize * planes;
    while index < strips {
        let first = (index + own) * strip;
        // Read all rows of the strip, then store all of them in shared memory.
        let count = comptime!(strip * depth / read / plane);
        let mut values = Array::<Vector<E, R>>::new(count);
        #[unroll]
        for part in 0..count {
            let place = part * plane + unit;
            let (row, place) = (place / comptime!(depth / read), place % comptime!(depth / read));
            let inside = place < comptime!(terms / read) && first + row < rows;
            let position = select(inside, (first + row) * comptime!(terms / read) + place, 0);
            values[part] = select(inside, x[position], Vector::zeroed());
        }
        #[unroll]
        for part in 0..count {
            let place = part * plane + unit;
            let (row, place) = (place / comptime!(depth / read), place % comptime!(depth / read));
            lines[own_lines + row * comptime!(pitch / read) + place] = values[part];
        }
        sync_plane();
        #[unroll]
        for tile in 0..tiles {
            let top = own_lines + comptime!(tile * side * pitch / read);
            let mut left = Sequence::<cmma::Matrix<Vector<E, R>>>::new();
            #[unroll]
            for term in 0..comptime!(depth / side) {
                let at = top + comptime!(term * side / read);
                left.push(cmma::Matrix::from_slice(
                    MatrixIdent::A,
                    side,
                    side,
                    side,
                    MatrixLayout::RowMajor,
                    &lines[at..at + comptime!(side * pitch / read)],
                    comptime!(pitch as u32),
                ));
            }
            for column in 0..comptime!(width / side) {
                let sum = cmma::Matrix::<f32>::from_value(
                    MatrixIdent::Accumulator,
                    side,
                    side,
                    side,
                    MatrixLayout::Undefined,
                    0.0,
                );
                #[unroll]
                for term in 0..comptime!(depth / side) {
                    let at = column * comptime!(side * pitch) + comptime!(term * side);
                    let right = cmma::Matrix::<E>::from_slice(
                        MatrixIdent::B,
                        side,
                        side,
                        side,
                        MatrixLayout::ColMajor,
                        &small[at..at + comptime!(side * pitch)],
                        comptime!(pitch as u32),
                    );
                    cmma::execute(left.index(term), &right, &sum, &sum);
                }
                cmma::store(
                    &mut sums[own_sums..own_sums + comptime!(side * side / written)],
                    &sum,
                    comptime!(side as u32),
                    MatrixLayout::RowMajor,
                );
                sync_plane();
                #[unroll]
                for part in 0..comptime!(side * side / written / plane) {
                    let place = part * plane + unit;
                    let (row, vector) = (place / comptime!(side / written), place % comptime!(side / written));
                    let row_of_x = first + comptime!(tile * side) + row;
                    let column = column * comptime!(side / written) + vector;
                    if row_of_x < rows && column < comptime!(columns / written) {
                        y[row_of_x * comptime!(columns / written) + column] = Vector::cast_from(sums[own_sums + place]);
                    }
                }
                sync_plane();
            }
        }
        index += CUBE_COUNT_X as usize * planes;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use burn::{
        backend::{Backend, ops::FloatTensorOps},
        tensor::{Shape, TensorData},
    };
    use burn_cubecl::{CubeBackend, CubeDevice, cubecl::future::block_on, ops::permute};

    use super::super::tensors::{empty, empty_of};
    use super::*;

    /// Returns small multiples of 1/8. They are exact in 16 bits, and so are the sums of their
    /// products in single precision.
    pub fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 7 + index / 11 + seed) % 9) as f32 / 8.0 - 0.5).collect()
    }

    /// Creates a contiguous 16-bit tensor on CubeCL's default device, in bf16 if supported, else
    /// f16.
    pub fn map<const D: usize>(values: &[f32], shape: [usize; D]) -> CubeTensor {
        let device = CubeDevice::default();
        let dtype = if CubeBackend::supports_dtype(&device, DType::BF16) { DType::BF16 } else { DType::F16 };
        let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
        let given = CubeBackend::float_from_data(data, &device);
        let map = empty_of(&given, Shape::new(shape), dtype);
        CubeBackend::float_slice_assign(map, &[], given)
    }

    pub fn read(tensor: CubeTensor) -> Vec<f32> {
        block_on(CubeBackend::float_into_data(tensor)).unwrap().convert::<f32>().try_to_vec().unwrap()
    }

    /// Skipped if the kernel does not support the device's tensor cores.
    #[test]
    fn skinny_products_match_a_direct_computation() {
        for (rows, terms, columns, transposed) in [
            (4096, 16, 96, false),
            (4100, 24, 40, true),
            (5003, 96, 24, true),
            (4999, 32, 32, false),
            (4097, 144, 20, false),
            (9000, 4, 8, true),
        ] {
            let (left, right) = (numbers(rows * terms, 1), numbers(terms * columns, 2));
            let x = map(&left, [rows, terms]);
            let weight = match transposed {
                false => map(&right, [terms, columns]),
                true => {
                    let turned: Vec<f32> =
                        (0..terms * columns).map(|i| right[i % terms * columns + i / terms]).collect();
                    permute(map(&turned, [columns, terms]), &[1, 0])
                }
            };
            let y = empty(&x, Shape::new([rows, columns]));
            if !product(&x, &weight, &y) {
                return eprintln!("no tensor cores, or others");
            }
            for (index, found) in read(y).into_iter().enumerate() {
                let (row, column) = (index / columns, index % columns);
                let expected: f32 = (0..terms).map(|k| left[row * terms + k] * right[k * columns + column]).sum();
                // Results are rounded to 16 bits.
                let slack = 4e-3 * expected.abs().max(1.0);
                assert!((found - expected).abs() <= slack, "{row}, {column}: {found}, not {expected}");
            }
        }
    }
}
