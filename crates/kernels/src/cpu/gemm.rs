//! Multiplication of a tall, unpacked matrix by a weight that was packed for it.
//!
//! The tall matrix is a feature map with one row per pixel. A tile of the product, a few rows by a
//! few vectors, stays in registers over the whole depth. Each step broadcasts one element of every
//! row and multiplies it by one row of a panel, a strip of the weight stored in the order of use.
//! Every element is summed from its first to its last product, so the result is bit-identical for
//! any tile and any number of threads.
//!
//! If the weight is in bf16, the rows of a tile are rounded to bf16 just before use, and each step
//! multiplies two elements of each row. Sums stay in single precision.

use std::{cell::Cell, mem::MaybeUninit};

use rayon::prelude::*;

use super::buffer::{Aligned, filled};
use super::simd::{self, Loop, Machine, Vector};
use super::thread_pool::ThreadPool;

/// Products with fewer multiply-adds do not use a second thread.
const SMALL: usize = 1 << 17;
/// Number of rows that is a multiple of every machine's tile height.
const TILE: usize = 12;
/// Number of weight elements that stay in the L2 cache while all rows pass by.
const GROUP: usize = 48 << 10;

/// A matrix [depth, columns] cut into panels of columns, each [depth, lanes]; the last one is
/// padded with zeros.
#[derive(Clone, Debug)]
pub struct Packed {
    data: Aligned,
    depth: usize,
    columns: usize,
    lanes: usize,
    /// Whether each element is a pair of bf16 values from two consecutive rows of the matrix.
    paired: bool,
}

impl Packed {
    /// Packs a row-major matrix: [depth, columns].
    pub fn from_rows(matrix: &[f32], depth: usize, columns: usize) -> Self {
        Self::pack(matrix, depth, columns, |panel, start, width| {
            let valid = width.min(columns - start);
            for (to, from) in panel.chunks_exact_mut(width).zip(matrix.chunks_exact(columns)) {
                to[..valid].copy_from_slice(&from[start..start + valid]);
            }
        })
    }

    /// Packs a column-major matrix: [columns, depth].
    pub fn from_columns(matrix: &[f32], depth: usize, columns: usize) -> Self {
        Self::pack(matrix, depth, columns, |panel, start, width| {
            for lane in 0..width.min(columns - start) {
                let column = &matrix[(start + lane) * depth..][..depth];
                panel[lane..].iter_mut().step_by(width).zip(column).for_each(|(to, from)| *to = *from);
            }
        })
    }

    /// Packs a matrix; `fill` writes a panel, given its memory, its first column and its width.
    fn pack(matrix: &[f32], depth: usize, columns: usize, fill: impl Fn(&mut [f32], usize, usize) + Sync) -> Self {
        assert_eq!(Some(matrix.len()), depth.checked_mul(columns), "a matrix [{depth}, {columns}] to be packed");
        let lanes = simd::lanes();
        let mut packed = Self { data: Aligned::default(), depth, columns, lanes, paired: false };
        let mut data = Aligned::zeros(depth * packed.padded());
        if depth > 0 {
            // All panels before the last are full.
            let panels = data.par_chunks_mut(depth * lanes).enumerate();
            panels.for_each(|(index, panel)| fill(panel, index * lanes, panel.len() / depth));
        }
        packed.data = data;
        packed
    }

    /// Converts to bf16.
    pub fn in_bf16(self) -> Self {
        assert!(!self.paired, "a matrix that is in bf16");
        let mut paired = Self { paired: true, ..self };
        let mut data = Aligned::zeros(paired.steps() * paired.padded());
        for (start, width) in paired.panels() {
            let from = &paired.data[paired.depth * start..][..paired.depth * width];
            let to = &mut data[paired.steps() * start..][..paired.steps() * width];
            for (rows, pairs) in from.chunks(2 * width).zip(to.chunks_mut(width)) {
                let (low, high) = rows.split_at(width);
                for (lane, pair) in pairs.iter_mut().enumerate() {
                    *pair = simd::pair_of(low[lane], high.get(lane).copied().unwrap_or(0.0));
                }
            }
        }
        paired.data = data;
        paired
    }

    /// Returns the number of rows in a panel.
    fn steps(&self) -> usize {
        if self.paired { self.depth.div_ceil(2) } else { self.depth }
    }

    /// Returns the number of rows of the matrix.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Returns the number of columns without padding.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Returns the number of columns with padding, which is the length of a bias.
    pub fn padded(&self) -> usize {
        let rest = self.columns % self.lanes;
        let last = if rest == 0 { 0 } else { self.last_panel(rest) };
        (self.columns - rest).saturating_add(last)
    }

    /// Returns the width of the last panel if `rest` columns remain.
    fn last_panel(&self, rest: usize) -> usize {
        // Few remaining columns use a narrow panel.
        if rest <= self.lanes / 2 { self.lanes / 2 } else { self.lanes }
    }

    /// Returns the first column and the width of each panel.
    fn panels(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.columns).step_by(self.lanes).map(|start| (start, self.last_panel(self.columns - start)))
    }
}

/// Positions of rows in memory: row i is at `i / width * line + i % width * step`. A product can
/// therefore read from and write to feature maps with padded lines.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Number of matrix rows (pixels) in a line.
    pub width: usize,
    /// Number of elements from one line to the next.
    pub line: usize,
    /// Number of elements from one row to the next within a line.
    pub step: usize,
}

impl Rows {
    /// Returns the positions of consecutive rows.
    pub fn dense(step: usize) -> Self {
        Self { width: usize::MAX, line: 0, step }
    }

    /// Iterates over the positions of rows from `row` on. It avoids a division per row, which would
    /// cost as much as half a tile.
    pub fn from(self, row: usize) -> Walk {
        let Self { width, line, step } = self;
        let column = row % width;
        Walk { rows: self, at: row / width * line + column * step, left: width - column }
    }

    /// Returns the number of elements up to the end of the furthest of `rows` rows of `length`
    /// elements, or `None` if it overflows.
    pub fn extent(self, rows: usize, length: usize) -> Option<usize> {
        let Self { width, line, step } = self;
        let Some(last) = rows.checked_sub(1) else { return Some(0) };
        let at = |row: usize| row.checked_div(width)?.checked_mul(line)?.checked_add((row % width).checked_mul(step)?);
        // The last row of the last full line may end after the last row.
        let full = (rows.checked_div(width)? * width).checked_sub(1);
        let end = at(last)?.max(full.map_or(Some(0), at)?);
        end.checked_add(length)
    }

    /// Returns whether no two of `rows` rows of `length` elements overlap.
    fn apart(self, rows: usize, length: usize) -> bool {
        let Self { width, line, step } = self;
        step >= length && (rows <= width || width.checked_mul(step).is_some_and(|used| used <= line))
    }
}

/// An iteration over [`Rows`].
pub struct Walk {
    rows: Rows,
    at: usize,
    /// Number of rows left in this line.
    left: usize,
}

impl Walk {
    /// Returns the positions of the next rows.
    #[inline(always)]
    pub fn next<const ROWS: usize>(&mut self) -> [usize; ROWS] {
        let Rows { width, line, step } = self.rows;
        if self.left > ROWS {
            let first = self.at;
            self.at = first.wrapping_add(step.wrapping_mul(ROWS));
            self.left -= ROWS;
            return std::array::from_fn(|row| first + row * step);
        }
        std::array::from_fn(|_| {
            let at = self.at;
            self.at = at.wrapping_add(step);
            self.left -= 1;
            if self.left == 0 {
                self.at = self.at.wrapping_add(line).wrapping_sub(width.wrapping_mul(step));
                self.left = width;
            }
            at
        })
    }
}

/// Postprocessing of sums before they are written.
pub trait Finish: Copy + Sync {
    /// Returns the results for neighboring sums, of which the first belongs to `row` and `column`;
    /// only the first `valid` are used.
    fn finish<M: Machine>(self, sums: M::Vector, row: usize, column: usize, valid: usize) -> M::Vector;
}

/// A matrix multiplication: `out = finish(bias + a * b)`.
pub struct Product<'a, F> {
    /// The tall matrix.
    pub a: &'a [f32],
    /// Positions of its rows.
    pub a_rows: Rows,
    /// Number of contiguous runs that form a row, and their distance: the lines of a window, or one
    /// run.
    pub runs: (usize, usize),
    /// Number of rows.
    pub rows: usize,
    /// The weight.
    pub b: &'a Packed,
    /// Initial values of the sums: [`Packed::padded`] elements.
    pub bias: &'a [f32],
    /// Postprocessing of the sums.
    pub finish: F,
    /// Positions of the result's rows.
    pub out_rows: Rows,
}

/// The result of a [`Product`], shared by threads that write different elements.
#[derive(Clone, Copy)]
struct Target(*mut f32);

// SAFETY: pieces of one product write disjoint elements.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl<'a> Product<'a, ()> {
    /// Returns the same product with postprocessing of its sums.
    pub fn finishing<F>(self, finish: F) -> Product<'a, F> {
        let Self { a, a_rows, runs, rows, b, bias, out_rows, .. } = self;
        Product { a, a_rows, runs, rows, b, bias, finish, out_rows }
    }
}

impl<F: Finish> Product<'_, F> {
    /// Computes the product into `out` with a pool. Elements of `out` between the rows stay
    /// unchanged.
    ///
    /// # Panics
    /// If an operand or `out` is too short, or rows of the result overlap.
    pub fn compute(&self, out: &mut [f32], pool: ThreadPool) {
        // SAFETY: the memory is only written to, so no element becomes uninitialized.
        let out = unsafe { &mut *(std::ptr::from_mut(out) as *mut [MaybeUninit<f32>]) };
        self.write(out, pool);
    }

    /// Computes the product into new memory with consecutive rows.
    ///
    /// # Panics
    /// If an operand is too short, or `out_rows` are not consecutive.
    pub fn computed(&self, pool: ThreadPool) -> Vec<f32> {
        assert_eq!((self.out_rows.width, self.out_rows.step), (usize::MAX, self.b.columns), "a dense result");
        let length = self.rows.checked_mul(self.b.columns).expect("a result that fits into memory");
        // SAFETY: consecutive rows cover the whole memory, and `write` writes all elements of every
        // row.
        unsafe { filled(length, |out| self.write(out, pool)) }
    }

    /// Panics unless all elements that the tiles read and write exist, and no two rows of the
    /// result overlap.
    fn check(&self, length: usize) {
        let Self { a, a_rows, runs: (runs, apart), rows, b, bias, out_rows, .. } = *self;
        assert!(runs > 0 && b.depth.is_multiple_of(runs), "a product of depth {} has {runs} runs", b.depth);
        let reach = (runs - 1).checked_mul(apart).and_then(|skip| skip.checked_add(b.depth / runs));
        let extent = reach.and_then(|reach| a_rows.extent(rows, reach));
        assert!(
            extent.is_some_and(|extent| extent <= a.len()),
            "a product reads {extent:?} elements of {}: {rows} rows, {a_rows:?}",
            a.len()
        );
        let extent = out_rows.extent(rows, b.columns);
        assert!(
            extent.is_some_and(|extent| extent <= length) && out_rows.apart(rows, b.columns),
            "a product writes {extent:?} elements of {length}: {rows} rows of {}, {out_rows:?}",
            b.columns
        );
        assert!(bias.len() >= b.padded(), "a product of {} columns has {} biases", b.padded(), bias.len());
    }

    fn write(&self, out: &mut [MaybeUninit<f32>], pool: ThreadPool) {
        self.check(out.len());
        // Nothing to write; the code below needs at least one panel.
        if self.rows == 0 || self.b.columns == 0 {
            return;
        }
        let out = Target(out.as_mut_ptr().cast());
        let panels = self.b.panels().count();
        let work = self.rows.saturating_mul(self.b.columns).saturating_mul(self.b.depth);
        let threads = pool.threads();
        if threads == 1 || work < SMALL {
            return Piece { product: self, out, rows: [0, self.rows], panels: [0, panels] }.run();
        }
        // Split the larger operand, so that the threads read as little as possible twice: the rows,
        // or else the panels.
        let pieces = 4 * threads;
        if self.rows > self.b.columns || panels < pieces / 2 {
            let height = self.rows.div_ceil(pieces).next_multiple_of(TILE);
            pool.each(self.rows.div_ceil(height), |piece| {
                let rows = [piece * height, self.rows.min((piece + 1) * height)];
                Piece { product: self, out, rows, panels: [0, panels] }.run();
            });
        } else {
            let width = panels.div_ceil(pieces);
            let strips = panels.div_ceil(width);
            // Split few strips in halves, so that no thread idles for long.
            let middle = if strips < pieces { self.rows / 2 / TILE * TILE } else { 0 };
            let halves = [[0, middle], [middle, self.rows]];
            let halves = if middle == 0 { &halves[1..] } else { &halves[..] };
            pool.each(strips * halves.len(), |piece| {
                let (strip, rows) = (piece % strips, halves[piece / strips]);
                let panels = [strip * width, panels.min((strip + 1) * width)];
                Piece { product: self, out, rows, panels }.run();
            });
        }
    }
}

/// Some rows and some panels of a product, at least one of each. Only [`Product::write`] creates
/// it, after all checks.
struct Piece<'a, F> {
    product: &'a Product<'a, F>,
    out: Target,
    rows: [usize; 2],
    panels: [usize; 2],
}

impl<F: Finish> Piece<'_, F> {
    fn run(self) {
        if self.product.b.paired {
            simd::run_paired(Sweeps::<F, true>(self))
        } else {
            simd::run(Sweeps::<F, false>(self))
        }
    }
}

/// A piece, computed from single values or from pairs.
struct Sweeps<'a, F, const PAIRED: bool>(Piece<'a, F>);

impl<F: Finish, const PAIRED: bool> Loop for Sweeps<'_, F, PAIRED> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, machine: M) {
        let Self(piece) = self;
        piece.sweeps::<PAIRED, M>(machine);
    }
}

impl<F: Finish> Piece<'_, F> {
    #[inline(always)]
    fn sweeps<const PAIRED: bool, M: Machine>(&self, _: M) {
        assert_eq!(self.product.b.lanes, M::LANES, "a weight packed for other instructions");
        let [first, end] = self.panels;
        let narrow = self.product.b.columns - ((end - 1) * M::LANES).min(self.product.b.columns) <= M::LANES / 2;
        let wide = if narrow { end - 1 } else { end };
        let group = (GROUP / (self.product.b.steps() * M::LANES).max(1)).max(1);
        for start in (first..wide).step_by(group) {
            let (mut row, end) = (self.rows[0], wide.min(start + group));
            // SAFETY: the machine argument proves the instructions. The arms use M's tile sizes,
            // and all panels before `wide` have the full width.
            unsafe {
                match (M::LANES / M::Vector::WIDTH, M::ROWS) {
                    (2, 12) => self.sweep::<PAIRED, 12, 2, M>(&mut row, start, end),
                    (2, _) => self.sweep::<PAIRED, 6, 2, M>(&mut row, start, end),
                    (_, 6) => self.sweep::<PAIRED, 6, 4, M>(&mut row, start, end),
                    _ => self.sweep::<PAIRED, 2, 4, M>(&mut row, start, end),
                }
            }
        }
        if narrow {
            let mut row = self.rows[0];
            // SAFETY: as above; the last panel has half the width.
            unsafe {
                match (M::LANES / M::Vector::WIDTH, M::ROWS) {
                    (2, 12) => self.sweep::<PAIRED, 12, 1, M>(&mut row, wide, end),
                    (2, _) => self.sweep::<PAIRED, 8, 1, M>(&mut row, wide, end),
                    _ => self.sweep::<PAIRED, 4, 2, M>(&mut row, wide, end),
                }
            }
        }
    }

    /// Multiplies all rows from `row` on by the panels from `first` to `end`, `ROWS` at a time and
    /// the rest in smaller tiles.
    ///
    /// # Safety
    /// The CPU must have M's instructions, and the panels must exist and be `VECTORS` wide.
    #[inline(always)]
    unsafe fn sweep<const PAIRED: bool, const ROWS: usize, const VECTORS: usize, M: Machine>(
        &self,
        row: &mut usize,
        first: usize,
        end: usize,
    ) {
        // SAFETY: passed on.
        unsafe {
            self.tiles::<PAIRED, ROWS, VECTORS, M>(row, first, end);
            self.tiles::<PAIRED, 4, VECTORS, M>(row, first, end);
            self.tiles::<PAIRED, 2, VECTORS, M>(row, first, end);
            self.tiles::<PAIRED, 1, VECTORS, M>(row, first, end);
        }
    }

    /// Computes tiles of `ROWS` rows while at least `ROWS` rows remain.
    ///
    /// # Safety
    /// The CPU must have M's instructions, and the panels must exist and be `VECTORS` wide.
    #[inline(always)]
    unsafe fn tiles<const PAIRED: bool, const ROWS: usize, const VECTORS: usize, M: Machine>(
        &self,
        row: &mut usize,
        first: usize,
        end: usize,
    ) {
        let Product { a, a_rows, runs, b, out_rows, .. } = self.product;
        if *row + ROWS > self.rows[1] {
            return;
        }
        thread_local!(static PAIRS: Cell<Aligned> = Cell::default());
        let mut memory = if PAIRED { PAIRS.take() } else { Aligned::default() };
        let steps = b.steps();
        let (mut sources, mut targets) = (a_rows.from(*row), out_rows.from(*row));
        while *row + ROWS <= self.rows[1] {
            // SAFETY: `check` found all rows inside the operand and the result.
            let from = sources.next::<ROWS>().map(|at| unsafe { a.as_ptr().add(at) });
            // SAFETY: as above.
            let to = targets.next::<ROWS>().map(|at| unsafe { self.out.0.add(at) });
            let (from, runs) = match PAIRED {
                // SAFETY: as above.
                true => (unsafe { self.paired::<ROWS, M>(from, &mut memory) }, (1, 0)),
                false => (from, *runs),
            };
            for panel in first..end {
                let column = panel * M::LANES;
                // SAFETY: as above, and the caller's promise.
                unsafe { self.tile::<PAIRED, ROWS, VECTORS, M>([*row, column, steps * column], from, runs, to) };
            }
            *row += ROWS;
        }
        if PAIRED {
            PAIRS.set(memory);
        }
    }

    /// Converts the rows to bf16, each to one run.
    ///
    /// # Safety
    /// The CPU must have M's instructions, and `from` must point to rows of the operand.
    #[inline(always)]
    unsafe fn paired<const ROWS: usize, M: Machine>(
        &self,
        from: [*const f32; ROWS],
        memory: &mut Aligned,
    ) -> [*const f32; ROWS] {
        let Product { runs: (runs, apart), b, .. } = *self.product;
        let (length, steps) = (b.depth / runs, b.steps());
        let (pairs, joined) = memory.room(ROWS * steps + b.depth).split_at_mut(ROWS * steps);
        let pairs = pairs.as_mut_ptr();
        for (row, from) in from.into_iter().enumerate() {
            // SAFETY: a row has `depth` elements in its runs, and there is room for the pairs of
            // every row.
            unsafe {
                let whole = match runs {
                    1 => from,
                    _ => {
                        for (run, to) in joined.chunks_exact_mut(length.max(1)).enumerate() {
                            to.as_mut_ptr().copy_from_nonoverlapping(from.add(run * apart), length);
                        }
                        joined.as_ptr()
                    }
                };
                M::pair(whole, b.depth, pairs.add(row * steps));
            }
        }
        // SAFETY: as above.
        std::array::from_fn(|row| unsafe { pairs.cast_const().add(row * steps) })
    }

    /// Computes one tile.
    ///
    /// # Safety
    /// The CPU must have M's instructions. `from` and `to` must point to rows of the operand, in
    /// `runs` runs, and of the result. The panel at `panel` must be that of `column` and `VECTORS`
    /// wide.
    #[inline(always)]
    unsafe fn tile<const PAIRED: bool, const ROWS: usize, const VECTORS: usize, M: Machine>(
        &self,
        [row, column, panel]: [usize; 3],
        from: [*const f32; ROWS],
        (runs, apart): (usize, usize),
        to: [*mut f32; ROWS],
    ) {
        let Product { b, bias, finish, .. } = *self.product;
        let width = M::Vector::WIDTH;
        // SAFETY: a row has `steps` elements in its runs, a panel `steps` times its width, the bias
        // as many elements as the panels have columns, and a row of the result the columns that
        // `valid` counts.
        unsafe {
            let load = |from: *const f32| -> [M::Vector; VECTORS] {
                std::array::from_fn(|vector| M::Vector::load(from.add(vector * width)))
            };
            let mut sums = [load(bias.as_ptr().add(column)); ROWS];
            let mut panel = b.data.as_ptr().add(panel);
            let steps = b.steps() / runs;
            for run in 0..runs {
                // Hide the constant distance between rows from the compiler, which would recompute
                // their addresses in each step.
                let from = std::hint::black_box(from.map(|row| row.add(run * apart)));
                for k in 0..steps {
                    let weights = load(panel);
                    for (from, sums) in from.iter().zip(&mut sums) {
                        let value = M::Vector::splat(*from.add(k));
                        for (sum, weight) in sums.iter_mut().zip(weights) {
                            *sum = match PAIRED {
                                true => M::add_pair_products(*sum, value, weight),
                                false => sum.add_product(value, weight),
                            };
                        }
                    }
                    panel = panel.add(VECTORS * width);
                }
            }
            let valid = b.columns - column;
            for (i, (to, sums)) in to.iter().zip(sums).enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    let skip = vector * width;
                    let (to, column) = (to.add(column + skip), column + skip);
                    if valid >= skip + width {
                        finish.finish::<M>(sum, row + i, column, width).store(to);
                    } else if valid > skip {
                        finish.finish::<M>(sum, row + i, column, valid - skip).store_first(to, valid - skip);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy)]
    struct AsIs;

    impl Finish for AsIs {
        #[inline(always)]
        fn finish<M: Machine>(self, sums: M::Vector, _: usize, _: usize, _: usize) -> M::Vector {
            sums
        }
    }

    #[test]
    fn rows_and_columns_pack_to_the_same_panels() {
        let (depth, columns) = (5, 23);
        let rows = integers(depth * columns, 4);
        let turned: Vec<f32> = (0..rows.len()).map(|i| rows[i % depth * columns + i / depth]).collect();
        let (rows, columns) = (Packed::from_rows(&rows, depth, columns), Packed::from_columns(&turned, depth, columns));
        assert_eq!(rows.data[..], columns.data[..]);
    }

    /// Returns small integers whose products and sums are exact.
    fn integers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 31) % 7) as f32 - 3.0).collect()
    }

    #[test]
    fn products_are_exact_for_all_shapes_and_thread_counts() {
        for (rows, columns, depth) in [
            (1, 1, 1),
            (3, 5, 7),
            (50, 24, 30),
            (49, 320, 96),
            (40, 24, 901),
            (9000, 17, 16),
            (0, 3, 2),
            (2, 3, 0),
            (13, 72, 5),
        ] {
            let (a, b, bias) = (integers(rows * depth, 1), integers(depth * columns, 2), integers(columns + 64, 3));
            let packed = Packed::from_rows(&b, depth, columns);
            let in_bf16 = packed.clone().in_bf16();
            for (pool, packed) in
                [(ThreadPool::Single, &packed), (ThreadPool::Rayon, &packed), (ThreadPool::Rayon, &in_bf16)]
            {
                let product = Product {
                    a: &a,
                    a_rows: Rows::dense(depth),
                    runs: (1, 0),
                    rows,
                    b: packed,
                    bias: &bias,
                    finish: AsIs,
                    // Lines of three rows, padded by five elements.
                    out_rows: Rows { width: 3, line: 3 * columns + 5, step: columns },
                };
                let mut out = vec![9.0; rows.div_ceil(3) * (3 * columns + 5)];
                product.compute(&mut out, pool);
                for (index, found) in out.iter().enumerate() {
                    let (line, rest) = (index / (3 * columns + 5), index % (3 * columns + 5));
                    let (i, j) = (line * 3 + rest / columns, rest % columns);
                    let exact = if rest >= 3 * columns || i >= rows {
                        9.0
                    } else {
                        bias[j] + (0..depth).map(|k| a[i * depth + k] * b[k * columns + j]).sum::<f32>()
                    };
                    assert_eq!(*found, exact, "({rows}, {columns}, {depth}) at ({i}, {j})");
                }
            }
        }
    }

    /// Generates numbers that are zero, small, or near the largest.
    fn sizes() -> impl Strategy<Value = usize> {
        prop_oneof![8 => 0usize..9, 2 => 9usize..70, 1 => any::<usize>(), 1 => (0..64u32).prop_map(|bit| 1 << bit)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Either panics or writes exactly the elements of the rows, for any arguments.
        #[test]
        fn products_stay_within_their_operands_for_any_arguments(
            [depth, columns, a, bias, out] in [0usize..9, 0usize..40, 0usize..90, 0usize..70, 0usize..200],
            rows in sizes(),
            [a_width, a_line, a_step, out_width, out_line, out_step] in [sizes(), sizes(), sizes(), sizes(), sizes(), sizes()],
            runs in prop_oneof![3 => Just((1, 0)), 1 => (sizes(), sizes())],
            in_bf16 in any::<bool>(),
        ) {
            let packed = Packed::from_rows(&integers(depth * columns, 2), depth, columns);
            let packed = if in_bf16 { packed.in_bf16() } else { packed };
            let (a, bias, mut found) = (integers(a, 1), vec![0.0; bias], vec![f32::NAN; out]);
            let a_rows = Rows { width: a_width, line: a_line, step: a_step };
            let out_rows = Rows { width: out_width, line: out_line, step: out_step };
            let product =
                Product { a: &a, a_rows, runs, rows, b: &packed, bias: &bias, finish: AsIs, out_rows };
            if catch_unwind(AssertUnwindSafe(|| product.compute(&mut found, ThreadPool::Single))).is_err() {
                return Ok(());
            }
            let mut expected = vec![false; out];
            if columns > 0 {
                (0..rows).for_each(|row| {
                    let start = row / out_width * out_line + row % out_width * out_step;
                    expected[start..start + columns].fill(true);
                });
            }
            prop_assert!(found.iter().zip(expected).all(|(value, written)| written != value.is_nan()));
        }
    }

    #[test]
    fn overlapping_result_rows_are_rejected() {
        let packed = Packed::from_rows(&integers(4, 1), 1, 4);
        for (out_rows, fits) in [
            (Rows { width: 2, line: 8, step: 4 }, true),
            (Rows { width: 2, line: 7, step: 4 }, false),
            (Rows { width: 2, line: 8, step: 3 }, false),
            (Rows { width: 6, line: 0, step: 4 }, true),
            (Rows { width: 0, line: 8, step: 4 }, false),
        ] {
            let (a, bias, mut out) = (integers(6, 1), vec![0.0; 64], vec![0.0; 64]);
            let product = Product {
                a: &a,
                a_rows: Rows::dense(1),
                runs: (1, 0),
                rows: 6,
                b: &packed,
                bias: &bias,
                finish: AsIs,
                out_rows,
            };
            let computed = catch_unwind(AssertUnwindSafe(|| product.compute(&mut out, ThreadPool::Single)));
            assert_eq!(computed.is_ok(), fits, "{out_rows:?}");
        }
    }
}
