//! Distribution of a feature map [items, channels] over the units of a GPU. Channels run along a
//! cube's columns, so that neighboring units read adjacent memory; items run along its rows and
//! over the cubes.

use burn::tensor::Shape;
use burn_cubecl::{
    cubecl::{self, client::Client, prelude::*},
    tensor::CubeTensor,
};

use super::tensors::empty_single;

/// Maximum number of units in a cube: enough to hide memory latency, and few enough to leave each
/// unit many registers.
const UNITS: usize = 256;
/// Maximum number of cubes. A large GPU runs several hundred at once; with fewer rounds of cubes,
/// most of the GPU would idle longer until the last cube ends.
const CUBES: usize = 4096;
/// Maximum number of cubes that compute partial sums, which must be summed up in turn.
const ADDING_CUBES: usize = 2048;
/// Minimum number of items per unit, to amortize the work that a unit does once.
const ITEMS: usize = 8;
/// Number of items that a unit reads before it uses the first, so that it waits for memory once for
/// all of them.
pub const AT_ONCE: usize = 4;

/// The units that share a feature map.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Number of vectors of channels.
    pub channels: usize,
    /// Number of vectors of channels per cube.
    pub columns: usize,
    /// Number of items that a cube processes at a time; a power of two.
    pub rows: usize,
    /// Number of cubes that share the items of the same channels.
    pub slices: usize,
}

impl Launch {
    /// Distributes `items` × `channels` elements in vectors of width `vector`.
    pub fn new(client: &Client, items: usize, channels: usize, vector: usize) -> Self {
        Self::of(client, items, channels, vector, CUBES)
    }

    /// Distributes the elements for sums over `items`.
    pub fn adding(client: &Client, items: usize, channels: usize, vector: usize) -> Self {
        Self::of(client, items, channels, vector, ADDING_CUBES)
    }

    fn of(client: &Client, items: usize, channels: usize, vector: usize, cubes: usize) -> Self {
        let channels = channels / vector;
        let units = units(client);
        let columns = channels.div_ceil(channels.div_ceil(64.min(units)));
        let rows = previous_power_of_two(units / columns);
        let slices = items.div_ceil(rows * ITEMS).clamp(1, cubes.div_ceil(channels.div_ceil(columns)));
        Self { channels, columns, rows, slices }
    }

    /// Distributes the summation of partial sums: with few columns, so that more cubes take part.
    pub fn narrow(client: &Client, channels: usize, vector: usize) -> Self {
        let channels = channels / vector;
        let units = units(client);
        // Two vectors are about one memory transaction.
        let columns = channels.min(2).min(units);
        let rows = previous_power_of_two(units / columns);
        Self { channels, columns, rows, slices: 1 }
    }

    /// Returns the columns and rows of a cube, as kernels take them.
    pub fn dims(&self) -> [usize; 2] {
        [self.columns, self.rows]
    }

    /// Returns the dimensions of a cube.
    pub fn dim(&self) -> CubeDim {
        CubeDim::new_2d(self.columns as u32, self.rows as u32)
    }

    /// Returns the number of cubes along each axis.
    pub fn count(&self) -> CubeCount {
        CubeCount::Static(self.channels.div_ceil(self.columns) as u32, self.slices as u32, 1)
    }
}

/// Returns the widest vector of f32 that the device reads at once, up to `most`, whose width
/// divides `channels`.
pub fn vector_size(client: &Client, channels: usize, most: usize) -> usize {
    widest(client, channels, most, size_of::<f32>())
}

/// Returns the widest vector of elements of `x` that the device reads at once, up to 16 bytes,
/// whose width divides `channels`.
pub fn widest_vector(x: &CubeTensor, channels: usize) -> usize {
    widest(&x.client, channels, 16 / x.elem_size(), x.elem_size())
}

fn widest(client: &Client, channels: usize, most: usize, bytes: usize) -> usize {
    let fits = |width: &usize| *width <= most && channels.is_multiple_of(*width);
    client.io_optimized_vector_sizes(bytes).filter(fits).max().unwrap_or(1)
}

/// Returns the number of units in a cube.
fn units(client: &Client) -> usize {
    UNITS.min(client.properties().hardware.max_units_per_cube as usize).max(1)
}

fn previous_power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

/// Returns the index of this unit's vector of channels.
#[cube]
pub fn own_channel() -> usize {
    CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS_X as usize
}

/// Returns the index of this unit's first item.
#[cube]
pub fn first_item() -> usize {
    CUBE_POS_Y as usize * CUBE_DIM_Y as usize + UNIT_POS_Y as usize
}

/// Returns the distance from one item of this unit to its next.
#[cube]
pub fn item_step() -> usize {
    CUBE_COUNT_Y as usize * CUBE_DIM_Y as usize
}

/// Returns the index of this unit's item `count` steps after `item`, or `item` itself if that is
/// beyond `items`.
#[cube]
pub fn item_ahead(item: usize, items: usize, #[comptime] count: usize) -> usize {
    let ahead = item + count * item_step();
    select(ahead < items, ahead, item)
}

/// Returns `value`, or zero if this unit has no item `count` steps after `item`.
#[cube]
pub fn if_ahead<N: Size>(value: Vector<f32, N>, item: usize, items: usize, #[comptime] count: usize) -> Vector<f32, N> {
    select(item + count * item_step() < items, value, Vector::zeroed())
}

/// Converts elements of a feature map to single precision, in which kernels compute.
#[cube]
pub fn single<E: Float, N: Size>(value: Vector<E, N>) -> Vector<f32, N> {
    Vector::cast_from(value)
}

/// Returns the sum over a cube's rows to the units of its first row; `shared` has a vector per
/// unit.
#[cube]
pub fn sum_rows<N: Size>(
    value: Vector<f32, N>,
    shared: &mut Shared<[Vector<f32, N>]>,
    #[comptime] rows: usize,
) -> Vector<f32, N> {
    let unit = UNIT_POS as usize;
    // Wait until all units have read the previous sum.
    sync_cube();
    shared[unit] = value;
    #[unroll]
    for step in 0..comptime!(rows.ilog2() as usize) {
        let half = comptime!(rows >> (step + 1));
        sync_cube();
        if (UNIT_POS_Y as usize) < half {
            let other = shared[unit + half * CUBE_DIM_X as usize];
            shared[unit] += other;
        }
    }
    shared[unit]
}

/// Sums [slices, channels] → `[channels]`. With `rows` > 0 the result is a matrix with `rows` rows,
/// which is written transposed.
#[cube(launch)]
fn sum_slices_kernel<N: Size>(
    partial: &[Vector<f32, N>],
    sums: &mut [Vector<f32, N>],
    slices: usize,
    channels: usize,
    #[comptime] rows: usize,
    #[comptime] dims: [usize; 2],
) {
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!(dims[0] * dims[1]));
    let channel = own_channel();
    let mut sum = Vector::<f32, N>::zeroed();
    if channel < channels {
        let mut slice = UNIT_POS_Y as usize;
        while slice < slices {
            sum += partial[slice * channels + channel];
            slice += CUBE_DIM_Y as usize;
        }
    }
    let sum = sum_rows::<N>(sum, &mut shared, comptime!(dims[1]));
    if UNIT_POS_Y == 0 && channel < channels {
        if comptime!(rows == 0) {
            sums[channel] = sum;
        } else {
            let columns = channels / rows;
            sums[channel % columns * rows + channel / columns] = sum;
        }
    }
}

/// Sums the partial sums of `slices` cubes: contiguous single precision [slices, channels] →
/// `[channels]`.
pub fn sum_slices(partial: CubeTensor, slices: usize, channels: usize) -> CubeTensor {
    sum(partial, slices, channels, 0)
}

/// Sums matrices and transposes the result: [slices, rows, columns] → [columns rows].
pub fn sum_slices_turned(partial: CubeTensor, slices: usize, [rows, columns]: [usize; 2]) -> CubeTensor {
    sum(partial, slices, rows * columns, rows)
}

fn sum(partial: CubeTensor, slices: usize, channels: usize, rows: usize) -> CubeTensor {
    let client = partial.client.clone();
    // Transposition separates neighboring columns, so they cannot be written as a vector.
    let vector = if rows == 0 { vector_size(&client, channels, 4) } else { 1 };
    let launch = Launch::narrow(&client, channels, vector);
    let sums = empty_single(&partial, Shape::new([channels]));
    sum_slices_kernel::launch(
        &client,
        launch.count(),
        launch.dim(),
        vector,
        partial.into_buffer_arg(),
        sums.clone().into_buffer_arg(),
        slices,
        launch.channels,
        rows,
        launch.dims(),
    );
    sums
}
