//! Smoothing between blocks of truncated progressive files: libjpeg's estimates of missing
//! coefficients from the DC coefficients around a block (`decompress_smooth_data`).

use crate::jpeg::entropy::{Band, place};
use crate::jpeg::header::Component;

/// Number of coefficients, in zigzag order, that can be estimated; the first is DC itself.
const ESTIMATED: usize = 10;

/// Weights of the DC coefficients of 5×5 blocks in the estimates of coefficients 1 to 9 and then of
/// DC, in units of 1/256, if only DC is known.
#[rustfmt::skip]
const OF_MEANS: [[i64; 25]; 10] = [
    [-1, -1, 0, 1, 1, -3, 13, 0, -13, 3, -3, 38, 0, -38, 3, -3, 13, 0, -13, 3, -1, -1, 0, 1, 1],
    [-1, -3, -3, -3, -1, -1, 13, 38, 13, -1, 0, 0, 0, 0, 0, 1, -13, -38, -13, 1, 1, 3, 3, 3, 1],
    [0, 0, 1, 0, 0, 0, 2, 7, 2, 0, 0, -5, -14, -5, 0, 0, 2, 7, 2, 0, 0, 0, 1, 0, 0],
    [-1, 0, 0, 0, 1, 0, 9, 0, -9, 0, 0, 0, 0, 0, 0, 0, -9, 0, 9, 0, 1, 0, 0, 0, -1],
    [0, 0, 0, 0, 0, 0, 2, -5, 2, 0, 1, 7, -14, 7, 1, 0, 2, -5, 2, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, 2, 0, -2, 0, 0, 1, 0, -1, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, -3, 1, 0, 0, 0, 0, 0, 0, 0, -1, 3, -1, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, -3, 0, 3, 0, 0, 1, 0, -1, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, -1, -2, -1, 0, 0, 0, 0, 0, 0],
    [-2, -6, -8, -6, -2, -6, 6, 42, 6, -6, -8, 42, 152, 42, -8, -6, 6, 42, 6, -6, -2, -6, -8, -6, -2],
];

/// The weights for coefficients 1 to 5 otherwise.
#[rustfmt::skip]
const OF_OTHERS: [[i64; 25]; 5] = [
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -7, 50, 0, -50, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, -7, 0, 0, 0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, -50, 0, 0, 0, 0, 7, 0, 0],
    [0, 0, -1, 0, 0, 0, 0, 13, 0, 0, 0, 0, -24, 0, 0, 0, 0, 13, 0, 0, 0, 0, -1, 0, 0],
    [0, -1, 0, 1, 0, -1, 10, 0, -10, 1, 0, 0, 0, 0, 0, 1, -10, 0, 10, -1, 0, 1, 0, -1, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 13, -24, 13, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];

/// Number of missing bits of a component's first coefficients: 0 if complete, -1 if all are
/// missing.
#[derive(Clone, Copy)]
pub(crate) struct Accuracy {
    /// After and before the last scan.
    now: [i8; ESTIMATED],
    before: [i8; ESTIMATED],
}

impl Accuracy {
    /// The state before the first scan.
    pub const NONE: Accuracy = Accuracy { now: [-1; ESTIMATED], before: [-1; ESTIMATED] };

    /// Records a scan of the component; `first_scan` for the file's first scan.
    pub fn note(&mut self, band: Band, first_scan: bool) {
        self.before[1..].copy_from_slice(&self.now[1..]);
        if first_scan {
            self.before[1..].fill(0);
        }
        let end = (band.last + 1).min(ESTIMATED);
        self.now.get_mut(band.first..end).unwrap_or_default().fill(band.low as i8);
    }

    /// Returns whether DC is known, and whether other coefficients are incomplete.
    fn gaps(&self) -> (bool, bool) {
        (self.now[0] >= 0, self.now[1..].iter().any(|&missing| missing != 0))
    }
}

/// Returns whether libjpeg estimates coefficients of these components.
pub(crate) fn is_useful(components: &[Component], accuracies: &[Accuracy]) -> bool {
    let usable = components.iter().zip(accuracies).all(|(component, accuracy)| {
        let divisors = component.table.is_some_and(|table| (0..ESTIMATED).all(|k| table[place(k)] != 0));
        divisors && accuracy.gaps().0
    });
    usable && accuracies.iter().any(|accuracy| accuracy.gaps().1)
}

/// Estimates missing coefficients of a component's `blocks` in `units` MCU rows; from row `cut_off`
/// on, the last scan has no data.
pub(crate) fn smooth(
    blocks: &mut [[i16; 64]],
    component: &Component,
    accuracy: &Accuracy,
    units: usize,
    cut_off: usize,
    only_scan: bool,
) {
    let means: Vec<i64> = blocks.iter().map(|block| block[0].into()).collect();
    let (columns, rows) = component.blocks();
    let table: [i64; 64] = component.table.unwrap_or([1; 64]).map(|value| i64::from(value as u16));
    for unit in 0..units {
        let missing = match unit < cut_off {
            true => accuracy.now,
            false if only_scan => [-1; ESTIMATED],
            false => accuracy.before,
        };
        let nothing_else = missing[1..].iter().all(|&missing| missing == -1);
        // In the last MCU row, libjpeg counts rows as if all MCU rows had the same height.
        let high = if unit + 1 < units { component.down } else { (rows - 1) % component.down + 1 };
        for inner in 0..high {
            let (row, counted) = (unit * component.down + inner, unit * high + inner);
            let above = usize::from(counted > 0);
            let below = usize::from(counted + 1 < high * units);
            let around = [
                row - above - usize::from(counted > 1),
                row - above,
                row,
                row + below,
                row + below + usize::from(counted + 2 < high * units),
            ];
            for column in 0..columns {
                let mean = |dy: usize, dx: usize| {
                    let x = (column + dx).saturating_sub(2).min(columns - 1);
                    means[around[dy] * component.columns + x]
                };
                let window: [i64; 25] = std::array::from_fn(|i| mean(i / 5, i % 5));
                let block = &mut blocks[row * component.columns + column];
                let kernels = if nothing_else { &OF_MEANS[..9] } else { &OF_OTHERS[..] };
                for (k, kernel) in (1..).zip(kernels) {
                    let coefficient = &mut block[place(k)];
                    if missing[k] != 0 && *coefficient == 0 {
                        let most = if missing[k] > 0 { (1 << missing[k]) - 1 } else { i64::MAX };
                        *coefficient = estimate(kernel, &window, table[0], table[place(k)], most);
                    }
                }
                if nothing_else {
                    block[0] = estimate(&OF_MEANS[9], &window, table[0], table[0], i64::MAX);
                }
            }
        }
    }
}

fn estimate(kernel: &[i64; 25], window: &[i64; 25], unit: i64, divisor: i64, most: i64) -> i16 {
    let sum = unit * kernel.iter().zip(window).map(|(weight, mean)| weight * mean).sum::<i64>();
    let size = (((divisor << 7) + sum.abs()) / (divisor << 8)).min(most);
    (if sum < 0 { -size } else { size }) as i16
}
