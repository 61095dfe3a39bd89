//! Sums of outer products, `leftᵀ * right`: the gradient of a weight, summed over pixels.
//!
//! Both factors are stored pixel by pixel, so neither needs packing. Pixels are processed in blocks
//! that stay in the cache while every tile of the result is updated; a tile is summed in registers.
//! Blocks are added from first to last. The pixels may be split into parts for several threads,
//! whose sums are added in order. All splits depend only on the shape, so that results are
//! bit-identical for any number of threads.

use rayon::prelude::*;

use super::{
    buffer::sum_in_order,
    simd::{self, Loop, Machine, Vector},
};

/// Number of elements of both factors in a block.
const BLOCK: usize = 24 << 10;
/// Minimum number of pixels in a part.
const PART: usize = 4096;
/// Maximum number of elements of all partial results.
const MAX_PARTIALS: usize = 1 << 23;
/// Number of result rows that a thread computes at a time if there are few pixels.
const STRIP: usize = 96;
/// Sums with fewer multiply-adds do not use a second thread.
const SMALL: usize = 1 << 18;

/// Multiplies `left` [pixels, rows] and `right` [pixels, columns] → [rows, columns].
///
/// # Panics
/// If the lengths do not match.
pub fn outer_products(left: &[f32], right: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let length = rows.checked_mul(columns).expect("a gradient that fits into memory");
    // A factor without rows or columns does not determine the number of pixels.
    let pixels = left.len().checked_div(rows).or(right.len().checked_div(columns)).unwrap_or(0);
    let fits = |factor: &[f32], size: usize| pixels.checked_mul(size) == Some(factor.len());
    assert!(
        fits(left, rows) && fits(right, columns),
        "the factors of a gradient [{rows}, {columns}]: {} and {} elements",
        left.len(),
        right.len()
    );
    if pixels == 0 || length == 0 {
        return vec![0.0; length];
    }
    let small = pixels.saturating_mul(length) < SMALL;
    let parts = if small { 1 } else { (pixels / PART).clamp(1, (MAX_PARTIALS / length).clamp(1, 32)) };
    let strip = if small || parts > 8 { rows } else { STRIP.min(rows) };
    let pixels_per_part = pixels.div_ceil(parts);
    let mut partials = vec![0.0; pixels.div_ceil(pixels_per_part) * length];
    partials.par_chunks_mut(length).enumerate().for_each(|(part, partial)| {
        let first = part * pixels_per_part;
        let count = pixels_per_part.min(pixels - first);
        let left = &left[first * rows..][..count * rows];
        let right = &right[first * columns..][..count * columns];
        partial.par_chunks_mut(strip * columns).enumerate().for_each(|(index, sums)| {
            simd::run(Strip { sums, left, right, first: index * strip, rows, columns });
        });
    });
    if partials.len() == length { partials } else { sum_in_order(&partials, length) }
}

/// Computes the rows of the result from `first` on.
struct Strip<'a> {
    sums: &'a mut [f32],
    left: &'a [f32],
    right: &'a [f32],
    first: usize,
    rows: usize,
    columns: usize,
}

impl Loop for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(mut self, _: M) {
        let block = (BLOCK / (self.rows.min(4 * STRIP) + self.columns)).max(16);
        let pixels = self.right.len() / self.columns;
        assert!(self.left.len() == pixels * self.rows && self.first + self.sums.len() / self.columns <= self.rows);
        for start in (0..pixels).step_by(block) {
            let end = pixels.min(start + block);
            // SAFETY: the machine argument proves the instructions, and `end` is within the pixels.
            unsafe {
                match (M::Vector::WIDTH, M::ROWS) {
                    (16, _) => self.block::<8, 3, M>(start, end),
                    (8, _) => self.block::<6, 2, M>(start, end),
                    _ => self.block::<4, 2, M>(start, end),
                }
            }
        }
    }
}

impl Strip<'_> {
    /// Adds the pixels from `start` to `end` to all tiles.
    ///
    /// # Safety
    /// The CPU must have M's instructions, and the pixels must exist.
    #[inline(always)]
    unsafe fn block<const ROWS: usize, const VECTORS: usize, M: Machine>(&mut self, start: usize, end: usize) {
        let width = M::Vector::WIDTH;
        let mut column = 0;
        // SAFETY: passed on; the columns exist.
        unsafe {
            while column + VECTORS * width <= self.columns {
                self.column::<ROWS, VECTORS, false, M>(start, end, column);
                column += VECTORS * width;
            }
            while column < self.columns {
                match (self.columns - column).div_ceil(width) {
                    1 => self.column::<ROWS, 1, true, M>(start, end, column),
                    2 => self.column::<ROWS, 2, true, M>(start, end, column),
                    _ => self.column::<ROWS, 3, true, M>(start, end, column),
                }
                column += VECTORS * width;
            }
        }
    }

    /// # Safety
    /// As for `block`; `VECTORS` vectors of columns must exist, of which the last is partial with
    /// `PART`.
    #[inline(always)]
    unsafe fn column<const ROWS: usize, const VECTORS: usize, const PART: bool, M: Machine>(
        &mut self,
        start: usize,
        end: usize,
        column: usize,
    ) {
        let height = self.sums.len() / self.columns;
        let mut row = 0;
        // SAFETY: passed on; the rows exist.
        unsafe {
            while row + ROWS <= height {
                self.tile::<ROWS, VECTORS, PART, M>(start, end, row, column);
                row += ROWS;
            }
            while row + 2 <= height {
                self.tile::<2, VECTORS, PART, M>(start, end, row, column);
                row += 2;
            }
            while row < height {
                self.tile::<1, VECTORS, PART, M>(start, end, row, column);
                row += 1;
            }
        }
    }

    /// # Safety
    /// As for `column`; `ROWS` rows must exist.
    #[inline(always)]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize, const PART: bool, M: Machine>(
        &mut self,
        start: usize,
        end: usize,
        row: usize,
        column: usize,
    ) {
        let width = M::Vector::WIDTH;
        // Number of columns in the last vector.
        let valid = self.columns - column - (VECTORS - 1) * width;
        // SAFETY: the caller's promise, and the lengths that `run` checked.
        unsafe {
            let load = |from: *const f32| -> [M::Vector; VECTORS] {
                std::array::from_fn(|vector| match PART && vector + 1 == VECTORS {
                    true => M::Vector::load_first(from.add(vector * width), valid),
                    false => M::Vector::load(from.add(vector * width)),
                })
            };
            let out = self.sums.as_mut_ptr().add(row * self.columns + column);
            let mut sums: [[M::Vector; VECTORS]; ROWS] = std::array::from_fn(|i| load(out.add(i * self.columns)));
            let mut left = self.left.as_ptr().add(start * self.rows + self.first + row);
            let mut right = self.right.as_ptr().add(start * self.columns + column);
            for _ in start..end {
                let values = load(right);
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = M::Vector::splat(*left.add(i));
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = sum.add_product(factor, value);
                    }
                }
                left = left.wrapping_add(self.rows);
                right = right.wrapping_add(self.columns);
            }
            for (i, sums) in sums.into_iter().enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    let out = out.add(i * self.columns + vector * width);
                    match PART && vector + 1 == VECTORS {
                        true => sum.store_first(out, valid),
                        false => sum.store(out),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns small integers whose products and sums are exact.
    fn integers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 31) % 7) as f32 - 3.0).collect()
    }

    #[test]
    fn outer_products_are_exact_for_all_shapes() {
        for (pixels, rows, columns) in [
            (1, 1, 1),
            (7, 3, 5),
            (300, 40, 24),
            (49, 200, 33),
            (9001, 7, 17),
            (20_000, 24, 16),
            (0, 3, 2),
            (5, 0, 2),
            (5, 2, 0),
        ] {
            let (left, right) = (integers(pixels * rows, 1), integers(pixels * columns, 2));
            let found = outer_products(&left, &right, rows, columns);
            for i in 0..rows {
                for j in 0..columns {
                    let exact: f32 = (0..pixels).map(|p| left[p * rows + i] * right[p * columns + j]).sum();
                    assert_eq!(found[i * columns + j], exact, "({pixels}, {rows}, {columns}) at ({i}, {j})");
                }
            }
        }
    }
}
