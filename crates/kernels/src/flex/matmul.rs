//! Matrix products whose bits depend on shapes alone.
//!
//! A product is cut into tiles by its shape only; one thread computes each tile, and tiles along the depth are added in
//! order. So the result is the same for any number of threads.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::buffer::filled;

/// Products smaller than this many multiply-adds are not worth a second thread.
const SMALL: usize = 1 << 18;
/// Tiles wanted, where the shape allows: enough to keep many threads busy.
const TILES: usize = 32;
/// No tile is thinner than this, lest packing the operands outweigh the product.
const MIN_SIDE: usize = 96;
/// No tile has more rows or depth than this, so that an operand's share stays in the caches.
const MAX_SIDE: usize = 4096;
/// Partial results along the depth take no more elements than this.
const MAX_PARTIALS: usize = 1 << 24;

/// A matrix inside a slice: element (i, j) stands at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix stored row by row.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a {rows}x{columns} matrix");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same elements, rows as columns.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// Where a tile begins and how large it is, along rows, columns and depth.
#[derive(Clone, Copy)]
struct Tile {
    start: [usize; 3],
    size: [usize; 3],
}

/// `left * right`, stored row by row.
pub fn product(left: Matrix, right: Matrix) -> Vec<f32> {
    // SAFETY: `product_into` writes every element.
    unsafe { filled(left.rows * right.columns, |out| product_into(left, right, out)) }
}

/// `left * right` into all of `out`, stored row by row.
pub fn product_into(left: Matrix, right: Matrix, out: &mut [MaybeUninit<f32>]) {
    let (rows, columns, depth) = (left.rows, right.columns, left.columns);
    assert_eq!(depth, right.rows, "the depths of a matrix product");
    assert_eq!(out.len(), rows * columns, "the output of a matrix product");
    if depth == 0 {
        out.fill(MaybeUninit::new(0.0));
    }
    if out.is_empty() || depth == 0 {
        return;
    }
    let sides = tile_sides(rows, columns, depth);
    let parts = depth.div_ceil(sides[2]);
    if parts == 1 {
        return product_tiles(left, right, Target::new(out, columns), sides, 0);
    }
    let fill = |partials: &mut [MaybeUninit<f32>]| {
        partials.par_chunks_mut(out.len()).enumerate().for_each(|(part, partial)| {
            product_tiles(left, right, Target::new(partial, columns), sides, part);
        });
    };
    // SAFETY: the tiles of a part cover all of it.
    let partials = unsafe { filled(parts * out.len(), fill) };
    add_in_order(&partials, out);
}

/// The sum of the arrays that follow one another in `partials`, from first to last, into all of `out`.
pub fn add_in_order(partials: &[f32], out: &mut [MaybeUninit<f32>]) {
    let length = out.len();
    const CHUNK: usize = 4096;
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(index, out)| {
        let (first, rest) = partials.split_at(length);
        let out = out.write_copy_of_slice(&first[index * CHUNK..][..out.len()]);
        for partial in rest.chunks_exact(length) {
            let partial = &partial[index * CHUNK..][..out.len()];
            out.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
        }
    });
}

/// The same, in new memory.
pub fn sum_in_order(partials: &[f32], length: usize) -> Vec<f32> {
    // SAFETY: `add_in_order` writes every element.
    unsafe { filled(length, |out| add_in_order(partials, out)) }
}

/// The sides of a tile along rows, columns and depth: a function of the shape alone.
fn tile_sides(rows: usize, columns: usize, depth: usize) -> [usize; 3] {
    if rows.saturating_mul(columns).saturating_mul(depth) < SMALL {
        return [rows, columns, depth];
    }
    let affordable = (MAX_PARTIALS / (rows * columns)).max(1);
    let parts = depth.div_ceil(MAX_SIDE).min(affordable);
    let row_tiles = (TILES.div_ceil(parts)).min(rows.div_ceil(MIN_SIDE)).max(rows.div_ceil(MAX_SIDE));
    let column_tiles = (TILES / 2).div_ceil(parts * row_tiles).min(columns.div_ceil(MIN_SIDE));
    [rows.div_ceil(row_tiles), columns.div_ceil(column_tiles), depth.div_ceil(parts)]
}

/// All tiles of one part of the depth.
fn product_tiles(left: Matrix, right: Matrix, out: Target, sides: [usize; 3], part: usize) {
    let (rows, columns, depth) = (left.rows, right.columns, left.columns);
    let column_tiles = columns.div_ceil(sides[1]);
    let tiles = rows.div_ceil(sides[0]) * column_tiles;
    (0..tiles).into_par_iter().for_each(|index| {
        let start = [index / column_tiles * sides[0], index % column_tiles * sides[1], part * sides[2]];
        let size = [sides[0].min(rows - start[0]), sides[1].min(columns - start[1]), sides[2].min(depth - start[2])];
        product_tile(left, right, out, Tile { start, size });
    });
}

/// The memory of an output matrix, shared by tiles that do not overlap.
#[derive(Clone, Copy)]
struct Target {
    data: *mut f32,
    row_stride: usize,
}

// SAFETY: tiles of one product cover disjoint elements, so threads never write the same one.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    fn new(out: &mut [MaybeUninit<f32>], columns: usize) -> Self {
        Self { data: out.as_mut_ptr().cast(), row_stride: columns }
    }
}

fn product_tile(left: Matrix, right: Matrix, out: Target, Tile { start, size }: Tile) {
    let left_start = start[0] * left.row_stride + start[2] * left.column_stride;
    let right_start = start[2] * right.row_stride + start[1] * right.column_stride;
    // SAFETY: `Matrix::new` checked that rows and columns lie inside the data, `product_into` that the output holds them
    // all; the tile lies inside both, and no other tile writes these elements.
    unsafe {
        gemm::gemm(
            size[0],
            size[1],
            size[2],
            out.data.add(start[0] * out.row_stride + start[1]),
            1,
            out.row_stride as isize,
            false,
            left.data.as_ptr().add(left_start),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr().add(right_start),
            right.column_stride as isize,
            right.row_stride as isize,
            0.0f32,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small numbers whose products and sums are exact.
    fn integers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 31) % 7) as f32 - 3.0).collect()
    }

    #[test]
    fn products_of_all_tilings_are_exact() {
        for (rows, columns, depth) in
            [(1, 1, 1), (3, 5, 7), (500, 40, 30), (49, 960, 320), (40, 24, 9001), (9000, 17, 16), (0, 3, 2), (2, 3, 0)]
        {
            let (left, right) = (integers(rows * depth, 1), integers(depth * columns, 2));
            let (l, r) = (Matrix::new(&left, rows, depth), Matrix::new(&right, depth, columns));
            let result = product(l, r);
            let transposed = product(r.transposed(), l.transposed());
            for i in 0..rows {
                for j in 0..columns {
                    let exact: f32 = (0..depth).map(|k| left[i * depth + k] * right[k * columns + j]).sum();
                    assert_eq!(result[i * columns + j], exact, "({rows}, {columns}, {depth}) at ({i}, {j})");
                    assert_eq!(transposed[j * rows + i], exact, "({rows}, {columns}, {depth}) at ({i}, {j})");
                }
            }
        }
    }
}
