//! Multiplication of a tall matrix of 8-bit values by a weight that was packed for it.
//!
//! As in single precision, a tile of the product stays in registers over the whole depth. Each step
//! broadcasts four neighboring values of every row and multiplies them by four weights of each
//! column.

use std::ops::Range;

use super::{
    finish::{Addition, LANES, Rounding},
    machine::{self, Loop, Machine, Vector},
};
use crate::cpu::{buffer::Aligned, gemm::Rows, thread_pool::ThreadPool};

/// Number of values that a step multiplies.
pub const STEP: usize = 4;
/// Products with fewer multiply-adds do not use a second thread.
const SMALL: usize = 1 << 18;
/// Number of rows that is a multiple of every machine's tile height.
const TILE: usize = 8;
/// Number of bytes of weights that stay in the L2 cache while all rows pass by.
const GROUP: usize = 192 << 10;

/// A matrix of weights cut into panels of columns, in the order of use.
#[derive(Debug)]
pub struct Packed {
    data: Aligned<i8>,
    panels: Vec<Panel>,
    /// Position of each step's values in a row whose runs are padded to whole steps.
    sources: Vec<u32>,
    /// Number of contiguous runs that form a row.
    runs: usize,
    /// Number of values of a run, without padding.
    length: usize,
    columns: usize,
}

#[derive(Clone, Debug)]
struct Panel {
    column: usize,
    vectors: usize,
    /// Its part of `sources`.
    steps: Range<usize>,
    /// Start of its weights.
    start: usize,
}

impl Packed {
    /// Packs a matrix [columns, runs, length].
    pub fn new(matrix: &[i8], [columns, runs, length]: [usize; 3]) -> Self {
        struct Body<'a>(&'a [i8], [usize; 3]);
        impl Loop for Body<'_> {
            type Output = Packed;
            fn run<M: Machine>(self, _: M) -> Packed {
                Packed::for_machine::<M>(self.0, self.1)
            }
        }
        assert_eq!(matrix.len(), columns * runs * length, "a matrix to be packed");
        machine::run(Body(matrix, [columns, runs, length]))
    }

    fn for_machine<M: Machine>(matrix: &[i8], [columns, runs, length]: [usize; 3]) -> Self {
        let width = M::Vector::WIDTH;
        let steps = length.div_ceil(STEP);
        let (mut panels, mut sources, mut data) = (Vec::new(), Vec::new(), Vec::new());
        let mut column = 0;
        while column < columns {
            let vectors = if columns - column > width { M::VECTORS } else { 1 };
            let (first, start) = (sources.len(), data.len());
            for (run, step) in (0..runs).flat_map(|run| (0..steps).map(move |step| (run, step))) {
                let weights: Vec<[i8; STEP]> = (column..column + vectors * width)
                    .map(|column| {
                        std::array::from_fn(|i| match column < columns && step * STEP + i < length {
                            true => matrix[(column * runs + run) * length + step * STEP + i],
                            false => 0,
                        })
                    })
                    .collect();
                let source = ((run * steps + step) * STEP) as u32;
                for part in if M::SATURATES { unsaturated(&weights) } else { vec![weights] } {
                    sources.push(source);
                    data.extend(part.into_iter().flatten());
                }
            }
            panels.push(Panel { column, vectors, steps: first..sources.len(), start });
            column += vectors * width;
        }
        Self { data: data[..].into(), panels, sources, runs, length, columns }
    }

    /// Returns the number of columns rounded up to whole vectors of any machine, which is the
    /// length of the initial sums.
    pub fn padded(&self) -> usize {
        self.columns.next_multiple_of(2 * LANES)
    }

    /// Returns the number of bytes that the rows' operand must have after the last row.
    pub fn slack(&self) -> usize {
        self.length.next_multiple_of(STEP) - self.length
    }
}

/// Splits weights into parts whose pairs have sums within ±128: products with them fit 16 bits.
fn unsaturated(weights: &[[i8; STEP]]) -> Vec<Vec<[i8; STEP]>> {
    let mut rest = vec![[0i8; STEP]; weights.len()];
    let mut limited = weights.to_vec();
    for (limited, rest) in limited.iter_mut().zip(&mut rest) {
        for (pair, rest) in limited.chunks_exact_mut(2).zip(rest.chunks_exact_mut(2)) {
            let sum = i16::from(pair[0]) + i16::from(pair[1]);
            let excess = sum - sum.clamp(-128, 128);
            // Both weights have the sign of the excess, which is less than either.
            rest[0] = excess as i8;
            pair[0] -= excess as i8;
        }
    }
    if rest.iter().flatten().all(|weight| *weight == 0) { vec![limited] } else { vec![limited, rest] }
}

/// The destination of a product.
#[derive(Clone, Copy)]
pub enum Output<'a> {
    /// 8-bit values, row after row, plus the values of another map of the same size, if given.
    Pixels(Option<(&'a [u8], Addition)>),
    /// 8-bit values of four rows interleaved: [rows / 4, columns, 4], in lines of `width` rows
    /// whose starts are `line` bytes apart.
    Quads {
        /// Number of rows in a line, a multiple of 4.
        width: usize,
        /// Number of bytes from one line to the next.
        line: usize,
    },
    /// The sums themselves, row after row, as 32-bit integers.
    Sums,
}

/// A matrix multiplication of 8-bit values.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// The tall matrix.
    pub a: &'a [u8],
    /// Positions of its rows.
    pub a_rows: Rows,
    /// Distance of the runs of a row.
    pub apart: usize,
    /// Number of rows.
    pub rows: usize,
    /// The weight.
    pub b: &'a Packed,
    /// Initial values of the sums: [`Packed::padded`] elements.
    pub start: &'a [i32],
    /// From sums to 8 bits, unless the sums are the output.
    pub rounding: &'a Rounding,
    /// Place of the results.
    pub output: Output<'a>,
}

/// The result of a [`Product`], shared by threads that write different elements.
#[derive(Clone, Copy)]
struct Target(*mut u8);

// SAFETY: pieces of one product write disjoint elements.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Product<'_> {
    /// Computes the product into `out` with a pool.
    ///
    /// # Panics
    /// If an operand or `out` is too short.
    pub fn compute(self, out: &mut [u8], pool: ThreadPool) {
        self.check(out.len());
        let out = Target(out.as_mut_ptr());
        let panels = self.b.panels.len();
        let work = self.rows.saturating_mul(self.b.columns).saturating_mul(self.b.runs * self.b.length);
        let threads = pool.threads();
        if threads == 1 || work < SMALL {
            return machine::run(Piece { product: &self, out, rows: [0, self.rows], panels: [0, panels] });
        }
        let pieces = 4 * threads;
        if self.rows > self.b.columns || panels < pieces / 2 {
            let height = self.rows.div_ceil(pieces).next_multiple_of(TILE);
            pool.each(self.rows.div_ceil(height), |piece| {
                let rows = [piece * height, self.rows.min((piece + 1) * height)];
                machine::run(Piece { product: &self, out, rows, panels: [0, panels] });
            });
        } else {
            let width = panels.div_ceil(pieces);
            pool.each(panels.div_ceil(width), |piece| {
                let panels = [piece * width, panels.min((piece + 1) * width)];
                machine::run(Piece { product: &self, out, rows: [0, self.rows], panels });
            });
        }
    }

    /// Panics unless all elements that the tiles read and write exist.
    fn check(&self, length: usize) {
        let Self { a, a_rows, apart, rows, b, start, rounding, output, .. } = *self;
        let reach = (b.runs.max(1) - 1).checked_mul(apart).and_then(|skip| skip.checked_add(b.length + b.slack()));
        let extent = reach.and_then(|reach| a_rows.extent(rows, reach));
        assert!(extent.is_some_and(|extent| extent <= a.len()), "a product reads {extent:?} of {} values", a.len());
        assert!(start.len() >= b.padded() && rounding.covers(b.columns), "a product of {} columns", b.columns);
        let needed = match output {
            Output::Pixels(residual) => {
                let needed = rows.checked_mul(b.columns);
                let added = residual.map_or(needed, |(values, _)| Some(values.len()));
                assert!(added >= needed, "a residual of {added:?} values to {needed:?}");
                needed
            }
            Output::Sums => rows.checked_mul(b.columns).and_then(|sums| sums.checked_mul(size_of::<i32>())),
            Output::Quads { width, line } => {
                let whole = width > 0 && width.is_multiple_of(STEP) && rows.is_multiple_of(width);
                let used = width.checked_mul(b.columns);
                assert!(whole && used.is_some_and(|used| used <= line), "lines of {width} rows, {line} values apart");
                if rows == 0 {
                    Some(0)
                } else {
                    (rows / width - 1).checked_mul(line).and_then(|at| at.checked_add(used?))
                }
            }
        };
        assert!(needed.is_some_and(|needed| needed <= length), "a product writes {needed:?} of {length} values");
    }
}

/// A part of a product.
struct Piece<'a> {
    product: &'a Product<'a>,
    out: Target,
    rows: [usize; 2],
    panels: [usize; 2],
}

impl Loop for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        let Packed { sources, runs, length, panels, .. } = self.product.b;
        let steps = length.next_multiple_of(STEP);
        // Offsets of the steps from the start of a row.
        let offsets: Vec<usize> = match runs {
            1 => sources.iter().map(|source| *source as usize).collect(),
            _ => sources
                .iter()
                .map(|source| *source as usize / steps * self.product.apart + *source as usize % steps)
                .collect(),
        };
        let mut first = self.panels[0];
        while first < self.panels[1] {
            // As many panels as fit the cache, of one width.
            let mut end = first;
            let mut bytes = 0;
            while end < self.panels[1]
                && panels[end].vectors == panels[first].vectors
                && (end == first || bytes < GROUP)
            {
                bytes += panels[end].steps.len() * panels[end].vectors * M::Vector::WIDTH * STEP;
                end += 1;
            }
            let mut row = self.rows[0];
            // SAFETY: the machine argument proves the instructions, and the panels exist and have
            // as many vectors.
            unsafe {
                match (panels[first].vectors, M::ROWS) {
                    (1, _) => {
                        self.tiles::<8, 1, M>(&mut row, first..end, &offsets);
                        self.tiles::<4, 1, M>(&mut row, first..end, &offsets);
                        self.tiles::<1, 1, M>(&mut row, first..end, &offsets);
                    }
                    (_, 8) => {
                        self.tiles::<8, 2, M>(&mut row, first..end, &offsets);
                        self.tiles::<4, 2, M>(&mut row, first..end, &offsets);
                        self.tiles::<1, 2, M>(&mut row, first..end, &offsets);
                    }
                    _ => {
                        self.tiles::<4, 2, M>(&mut row, first..end, &offsets);
                        self.tiles::<1, 2, M>(&mut row, first..end, &offsets);
                    }
                }
            }
            first = end;
        }
    }
}

impl Piece<'_> {
    /// Computes tiles of `ROWS` rows while at least `ROWS` rows remain.
    ///
    /// # Safety
    /// The CPU must have M's instructions, and the panels must exist and have `VECTORS` vectors.
    #[inline(always)]
    unsafe fn tiles<const ROWS: usize, const VECTORS: usize, M: Machine>(
        &self,
        row: &mut usize,
        panels: Range<usize>,
        offsets: &[usize],
    ) {
        let Product { a, a_rows, b, .. } = self.product;
        if *row + ROWS > self.rows[1] {
            return;
        }
        let mut sources = a_rows.from(*row);
        while *row + ROWS <= self.rows[1] {
            // SAFETY: `check` found all rows inside the operand.
            let from = sources.next::<ROWS>().map(|at| unsafe { a.as_ptr().add(at) });
            for panel in &b.panels[panels.clone()] {
                // SAFETY: as above, and the caller's promise.
                unsafe { self.tile::<ROWS, VECTORS, M>(*row, panel, from, &offsets[panel.steps.clone()]) };
            }
            *row += ROWS;
        }
    }

    /// Computes one tile.
    ///
    /// # Safety
    /// The CPU must have M's instructions. `from` must point to rows of the operand, and the panel
    /// have `VECTORS` vectors and steps at `offsets`.
    #[inline(always)]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize, M: Machine>(
        &self,
        row: usize,
        panel: &Panel,
        from: [*const u8; ROWS],
        offsets: &[usize],
    ) {
        let Product { b, start, rounding, output, .. } = *self.product;
        let width = M::Vector::WIDTH;
        // SAFETY: a row has four values at each offset, a panel four weights of each lane for each
        // step, and there are initial sums for all its lanes.
        unsafe {
            let load = |from: *const u8| -> [M::Vector; VECTORS] {
                std::array::from_fn(|vector| M::Vector::load(from.add(vector * width * STEP)))
            };
            let mut sums = [load(start.as_ptr().add(panel.column).cast()); ROWS];
            let mut weights = b.data.as_ptr().add(panel.start).cast::<u8>();
            // Hide the constant distance between rows from the compiler, which would recompute
            // their addresses in each step.
            let from = std::hint::black_box(from);
            for offset in offsets {
                let loaded = load(weights);
                for (from, sums) in from.iter().zip(&mut sums) {
                    let values = M::Vector::splat(from.add(*offset).cast::<i32>().read_unaligned());
                    for (sum, weights) in sums.iter_mut().zip(loaded) {
                        *sum = sum.dot(values, weights);
                    }
                }
                weights = weights.add(VECTORS * width * STEP);
            }
            // Arrays that loops index stay in memory: only this copy, not the sums above.
            let sums = std::hint::black_box(sums);
            let columns = (panel.column..b.columns).step_by(width).take(VECTORS);
            for (vector, column) in columns.enumerate() {
                let count = width.min(b.columns - column);
                match output {
                    Output::Pixels(residual) => {
                        for (i, sums) in sums.iter().enumerate() {
                            let at = (row + i) * b.columns + column;
                            let mut values = rounding.apply::<M>(sums[vector], column);
                            if let Some((residual, addition)) = residual {
                                let mut others = [0; LANES];
                                others.as_mut_ptr().copy_from_nonoverlapping(residual.as_ptr().add(at), count);
                                values = values.map(|lane, value| addition.sum(i32::from(others[lane]), value));
                            }
                            values.store_bytes(self.out.0.add(at), count);
                        }
                    }
                    Output::Sums => {
                        for (i, sums) in sums.iter().enumerate() {
                            let at = (row + i) * b.columns + column;
                            sums[vector].store_first(self.out.0.add(at * size_of::<i32>()), count);
                        }
                    }
                    Output::Quads { width, line } => {
                        for (quad, sums) in sums.chunks_exact(STEP).enumerate() {
                            let row = row + quad * STEP;
                            let at = row / width * line + (row % width * b.columns) + column * STEP;
                            let parts = std::array::from_fn(|i| rounding.apply::<M>(sums[i][vector], column));
                            M::Vector::join(parts).store_first(self.out.0.add(at), count);
                        }
                    }
                }
            }
        }
    }
}
