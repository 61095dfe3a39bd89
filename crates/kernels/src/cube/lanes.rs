//! How the units of a GPU share a map [items, channels]: channels along a cube's columns, so that neighbouring units read
//! neighbouring memory, items along its rows and over the cubes.

use burn::tensor::Shape;
use burn_cubecl::{
    cubecl::{self, client::Client, prelude::*},
    tensor::CubeTensor,
};

use super::empty_single;

/// Units in a cube, at most: enough to hide the memory's latency, few enough for many registers each.
const UNITS: usize = 256;
/// Cubes that keep a large GPU busy to the end: it has room for several hundred at once, and the fewer rounds they make, the longer
/// most of it waits for the last.
const CUBES: usize = 4096;
/// Cubes that add up, whose results are to be added up in turn.
const ADDING_CUBES: usize = 2048;
/// Items that a unit should have, for what it does once to be worth it.
const ITEMS: usize = 8;
/// Items that a unit reads before it uses the first, so that it waits for memory once for all of them.
pub const AT_ONCE: usize = 4;

/// The units that share a map.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// Vectors of channels.
    pub channels: usize,
    /// Vectors of channels that a cube handles.
    pub columns: usize,
    /// Items that a cube handles at a time; a power of two.
    pub rows: usize,
    /// Cubes that share the items of the same channels.
    pub slices: usize,
}

impl Lanes {
    /// For `items` × `channels` elements in vectors of `vector`.
    pub fn new(client: &Client, items: usize, channels: usize, vector: usize) -> Self {
        Self::of(client, items, channels, vector, CUBES)
    }

    /// For sums over `items`.
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

    /// For sums over what other cubes have found: fewer columns, so that more cubes take part.
    pub fn narrow(client: &Client, channels: usize, vector: usize) -> Self {
        let channels = channels / vector;
        let units = units(client);
        // As many as memory hands out at once.
        let columns = channels.min(2).min(units);
        let rows = previous_power_of_two(units / columns);
        Self { channels, columns, rows, slices: 1 }
    }

    /// Columns and rows of a cube, as kernels are told them.
    pub fn dims(&self) -> [usize; 2] {
        [self.columns, self.rows]
    }

    /// Units of a cube.
    pub fn dim(&self) -> CubeDim {
        CubeDim::new_2d(self.columns as u32, self.rows as u32)
    }

    /// All cubes.
    pub fn count(&self) -> CubeCount {
        CubeCount::Static(self.channels.div_ceil(self.columns) as u32, self.slices as u32, 1)
    }
}

/// The largest width of vectors in single precision, no larger than `most`, that divides the channels and that the device reads at
/// once.
pub fn vector_size(client: &Client, channels: usize, most: usize) -> usize {
    widest(client, channels, most, size_of::<f32>())
}

/// As many elements of a map as the device reads at once, 16 bytes at most.
pub fn widest_vector(x: &CubeTensor, channels: usize) -> usize {
    widest(&x.client, channels, 16 / x.elem_size(), x.elem_size())
}

fn widest(client: &Client, channels: usize, most: usize, bytes: usize) -> usize {
    let fits = |width: &usize| *width <= most && channels.is_multiple_of(*width);
    client.io_optimized_vector_sizes(bytes).filter(fits).max().unwrap_or(1)
}

/// Units in a cube.
fn units(client: &Client) -> usize {
    UNITS.min(client.properties().hardware.max_units_per_cube as usize).max(1)
}

fn previous_power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

/// The vector of channels that is this unit's.
#[cube]
pub fn own_channel() -> usize {
    CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS_X as usize
}

/// The first item that is this unit's.
#[cube]
pub fn first_item() -> usize {
    CUBE_POS_Y as usize * CUBE_DIM_Y as usize + UNIT_POS_Y as usize
}

/// From one item of this unit to the next.
#[cube]
pub fn item_step() -> usize {
    CUBE_COUNT_Y as usize * CUBE_DIM_Y as usize
}

/// The item that is this unit's `count` items after `item`; `item` itself, if there is none among `items`.
#[cube]
pub fn item_ahead(item: usize, items: usize, #[comptime] count: usize) -> usize {
    let ahead = item + count * item_step();
    select(ahead < items, ahead, item)
}

/// `value`, or zero if this unit has not `count` items after `item`.
#[cube]
pub fn if_ahead<N: Size>(value: Vector<f32, N>, item: usize, items: usize, #[comptime] count: usize) -> Vector<f32, N> {
    select(item + count * item_step() < items, value, Vector::zeroed())
}

/// A map's numbers as they are computed with.
#[cube]
pub fn single<E: Float, N: Size>(value: Vector<E, N>) -> Vector<f32, N> {
    Vector::cast_from(value)
}

/// The sum over a cube's rows, for the units of the first; `shared` has room for a vector of each unit.
#[cube]
pub fn sum_rows<N: Size>(
    value: Vector<f32, N>,
    shared: &mut Shared<[Vector<f32, N>]>,
    #[comptime] rows: usize,
) -> Vector<f32, N> {
    let unit = UNIT_POS as usize;
    // What was summed before has been read.
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

/// [slices, channels] → `[channels]`; if those are a matrix of so many `rows` (0: they are none), turned.
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

/// Adds up what `slices` cubes have found: contiguous single precision [slices, channels] → `[channels]`.
pub fn sum_slices(partial: CubeTensor, slices: usize, channels: usize) -> CubeTensor {
    sum(partial, slices, channels, 0)
}

/// The same of matrices, turned: [slices, rows, columns] → [columns rows].
pub fn sum_slices_turned(partial: CubeTensor, slices: usize, [rows, columns]: [usize; 2]) -> CubeTensor {
    sum(partial, slices, rows * columns, rows)
}

fn sum(partial: CubeTensor, slices: usize, channels: usize, rows: usize) -> CubeTensor {
    let client = partial.client.clone();
    // Neighbours of a column do not stay neighbours.
    let vector = if rows == 0 { vector_size(&client, channels, 4) } else { 1 };
    let lanes = Lanes::narrow(&client, channels, vector);
    let sums = empty_single(&partial, Shape::new([channels]));
    sum_slices_kernel::launch(
        &client,
        lanes.count(),
        lanes.dim(),
        vector,
        partial.into_buffer_arg(),
        sums.clone().into_buffer_arg(),
        slices,
        lanes.channels,
        rows,
        lanes.dims(),
    );
    sums
}
