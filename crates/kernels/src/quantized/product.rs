//! Multiplication of a tall matrix of 8-bit values by a weight that was packed for it.
//!
//! As in single precision, a tile of the product stays in registers over the whole depth. Each step
//! broadcasts neighboring values of every row and multiplies them by as many weights of each
//! column: four values of 8 bits, or on machines without exact sums of their products, two of 16
//! bits, to which the rows of a tile are extended first.

use std::ops::Range;

use super::{
    finish::{Addition, LANES, Rounding},
    machine::{self, Loop, Machine, Vector, pack_lane},
};
use crate::cpu::{buffer::Aligned, gemm::Rows, thread_pool::ThreadPool};

/// Number of neighboring values of a row that a step multiplies, and of pixels that are
/// interleaved.
pub const STEP: usize = 4;
/// Number of bytes of a lane.
pub const LANE: usize = 4;
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
        let factors = M::Vector::FACTORS;
        let padded = length.next_multiple_of(STEP);
        let (mut panels, mut data) = (Vec::new(), Vec::new());
        let mut column = 0;
        while column < columns {
            let vectors = if columns - column > width { M::VECTORS } else { 1 };
            let end = column + vectors * width;
            panels.push(Panel { column, vectors, start: data.len() });
            for (run, at) in (0..runs).flat_map(|run| (0..padded).step_by(factors).map(move |at| (run, at))) {
                data.extend((column..end).flat_map(|column| {
                    pack_lane::<M::Vector>(|i| match column < columns && at + i < length {
                        true => matrix[(column * runs + run) * length + at + i],
                        false => 0,
                    })
                }));
            }
            column = end;
        }
        Self { data: data[..].into(), panels, runs, length, columns }
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

/// The parts of a row that a tile reads.
#[derive(Clone, Copy)]
struct Runs {
    count: usize,
    /// Number of steps of each run.
    steps: usize,
    /// Distance of the runs in bytes.
    apart: usize,
}

impl Loop for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        let Packed { runs, length, panels, .. } = self.product.b;
        let padded = runs * length.next_multiple_of(STEP);
        let mut memory = if M::Vector::FACTORS == 2 { vec![0; TILE * padded] } else { vec![] };
        let mut first = self.panels[0];
        while first < self.panels[1] {
            // As many panels as fit the cache, of one width.
            let mut end = first;
            let mut bytes = 0;
            while end < self.panels[1]
                && panels[end].vectors == panels[first].vectors
                && (end == first || bytes < GROUP)
            {
                bytes += padded / M::Vector::FACTORS * panels[end].vectors * M::Vector::WIDTH * LANE;
                end += 1;
            }
            let mut row = self.rows[0];
            // SAFETY: the machine argument proves the instructions, and the panels exist and have
            // as many vectors.
            unsafe {
                match (panels[first].vectors, M::ROWS) {
                    (1, _) => {
                        self.tiles::<8, 1, M>(&mut row, first..end, &mut memory);
                        self.tiles::<4, 1, M>(&mut row, first..end, &mut memory);
                        self.tiles::<1, 1, M>(&mut row, first..end, &mut memory);
                    }
                    (_, 8) => {
                        self.tiles::<8, 2, M>(&mut row, first..end, &mut memory);
                        self.tiles::<4, 2, M>(&mut row, first..end, &mut memory);
                        self.tiles::<1, 2, M>(&mut row, first..end, &mut memory);
                    }
                    _ => {
                        self.tiles::<4, 2, M>(&mut row, first..end, &mut memory);
                        self.tiles::<1, 2, M>(&mut row, first..end, &mut memory);
                    }
                }
            }
            first = end;
        }
    }
}

/// Copies values as numbers of 16 bits.
///
/// # Safety
/// The CPU must have V's instructions.
#[inline(always)]
unsafe fn extend<V: Vector>(from: &[u8], to: &mut [u16]) {
    let count = from.len().min(to.len());
    if count < 16 {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = u16::from(*from));
        return;
    }
    // The last block overlaps the one before.
    for block in 0..count.div_ceil(16) {
        let at = (16 * block).min(count - 16);
        // SAFETY: the block is inside of both slices, and the caller's promise.
        unsafe { V::extend(from.as_ptr().add(at), to.as_mut_ptr().add(at)) };
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
        memory: &mut [u16],
    ) {
        let Product { a, a_rows, b, apart, output, .. } = self.product;
        if *row + ROWS > self.rows[1] {
            return;
        }
        let mut sources = a_rows.from(*row);
        while *row + ROWS <= self.rows[1] {
            // SAFETY: `check` found all rows inside the operand.
            let from = sources.next::<ROWS>().map(|at| unsafe { a.as_ptr().add(at) });
            let steps = b.length.div_ceil(STEP);
            let (from, runs) = match M::Vector::FACTORS {
                // SAFETY: as above, and `run` made room for them.
                2 => (
                    unsafe { self.extend::<ROWS, M>(from, memory) },
                    Runs { count: 1, steps: b.runs * steps, apart: 0 },
                ),
                _ => (from, Runs { count: b.runs, steps, apart: *apart }),
            };
            // Hide the constant distance between rows from the compiler, which would recompute
            // their addresses in each step.
            let from = std::hint::black_box(from);
            let places = std::array::from_fn(|quad| match output {
                Output::Quads { width, line } => {
                    let row = *row + quad * STEP;
                    row / width * line + row % width * b.columns
                }
                _ => 0,
            });
            for panel in &b.panels[panels.clone()] {
                // SAFETY: as above, and the caller's promise.
                unsafe { self.tile::<ROWS, VECTORS, M>(*row, places, panel, from, runs) };
            }
            *row += ROWS;
        }
    }

    /// Copies rows as numbers of 16 bits, run after run, each padded to whole steps.
    ///
    /// # Safety
    /// The CPU must have M's instructions, and `from` must point to rows of the operand.
    #[inline(always)]
    unsafe fn extend<const ROWS: usize, M: Machine>(
        &self,
        from: [*const u8; ROWS],
        memory: &mut [u16],
    ) -> [*const u8; ROWS] {
        let Product { b, apart, .. } = self.product;
        let padded = b.length.next_multiple_of(STEP);
        let mut rows = memory.chunks_exact_mut((b.runs * padded).max(1));
        let mut extended = from;
        for from in &mut extended {
            let row = rows.next().expect("room for the rows of a tile");
            for (run, to) in row.chunks_exact_mut(padded).enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let from = std::slice::from_raw_parts(from.add(run * apart), b.length);
                    extend::<M::Vector>(from, &mut to[..b.length]);
                }
            }
            *from = row.as_ptr().cast();
        }
        extended
    }

    /// Computes one tile. `places` are the positions of its interleaved rows.
    ///
    /// # Safety
    /// The CPU must have M's instructions. `from` must point to rows with `runs`, and the panel
    /// have `VECTORS` vectors and as many steps.
    #[inline(always)]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize, M: Machine>(
        &self,
        row: usize,
        places: [usize; TILE / STEP],
        panel: &Panel,
        from: [*const u8; ROWS],
        runs: Runs,
    ) {
        let Product { b, start, rounding, .. } = self.product;
        let width = M::Vector::WIDTH;
        // SAFETY: a row has values for all steps, a panel four bytes of each lane for each step,
        // and there are initial sums and multipliers for all its lanes, of which at least one of
        // each vector is a column.
        unsafe {
            let load = |from: *const u8| -> [M::Vector; VECTORS] {
                std::array::from_fn(|vector| M::Vector::load(from.add(vector * width * LANE)))
            };
            let mut sums = [load(start.as_ptr().add(panel.column).cast()); ROWS];
            let mut weights = b.data.as_ptr().add(panel.start).cast::<u8>();
            let parts = STEP / M::Vector::FACTORS;
            for run in 0..runs.count {
                for step in 0..runs.steps {
                    for part in 0..parts {
                        let loaded = load(weights);
                        let at = run * runs.apart + (step * parts + part) * LANE;
                        for (from, sums) in from.iter().zip(&mut sums) {
                            let values = M::Vector::splat(from.add(at).cast::<i32>().read_unaligned());
                            for (sum, weights) in sums.iter_mut().zip(loaded) {
                                *sum = sum.dot(values, weights);
                            }
                        }
                        weights = weights.add(VECTORS * width * LANE);
                    }
                }
            }
            let column = |vector: usize| panel.column + vector * width;
            let count = |vector: usize| width.min(b.columns - column(vector));
            let place = |i: usize, vector: usize| (row + i) * b.columns + column(vector);
            let out = self.out.0;
            if !matches!(self.product.output, Output::Sums) {
                rounding.apply::<ROWS, VECTORS, M>(&mut sums, panel.column);
            }
            match &self.product.output {
                Output::Quads { .. } => {
                    for quad in 0..ROWS / STEP {
                        for vector in 0..VECTORS {
                            let parts = std::array::from_fn(|i| {
                                let sums: [M::Vector; VECTORS] = sums[quad * STEP + i];
                                sums[vector]
                            });
                            let to = out.add(places[quad] + column(vector) * STEP);
                            M::Vector::join(parts).store_first(to, count(vector));
                        }
                    }
                }
                Output::Pixels(None) => {
                    for (i, values) in sums.iter().enumerate() {
                        for (vector, values) in values.iter().enumerate() {
                            values.store_bytes(out.add(place(i, vector)), count(vector));
                        }
                    }
                }
                Output::Pixels(Some((residual, addition))) => {
                    // Arrays that loops index stay in memory: only a copy.
                    for (i, values) in { sums }.into_iter().enumerate() {
                        for (vector, values) in values.into_iter().enumerate() {
                            let mut others = [0; LANES];
                            let from = residual.as_ptr().add(place(i, vector));
                            others.as_mut_ptr().copy_from_nonoverlapping(from, count(vector));
                            values
                                .map(|lane, value| addition.sum(i32::from(others[lane]), value))
                                .store_bytes(out.add(place(i, vector)), count(vector));
                        }
                    }
                }
                Output::Sums => {
                    for (i, sums) in sums.iter().enumerate() {
                        for (vector, sums) in sums.iter().enumerate() {
                            let to = out.add(place(i, vector) * size_of::<i32>());
                            sums.store_first(to, count(vector));
                        }
                    }
                }
            }
        }
    }
}
