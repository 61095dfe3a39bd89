//! Inverse DCT, bit-identical to libjpeg's accurate integer transform (`jidctint.c`, "islow").
//!
//! Sums wrap and intermediate results saturate at 16 bits, as in libjpeg-turbo's SIMD code.
// Loops by index over arrays of equal length are vectorized.
#![allow(clippy::needless_range_loop)]

type Lines = [[i32; 8]; 8];

/// Fractional bits of the constants.
const CONSTANT: u32 = 13;
/// Additional fractional bits after the first pass.
const FIRST_PASS: u32 = 2;

/// Transforms a row-major block of coefficients to 8 rows of 8 samples, `stride` apart.
///
/// `last` is 0 if only the first coefficient can be nonzero.
#[inline(always)]
pub(crate) fn inverse(block: &[i16; 64], last: usize, table: &[i16; 64], out: &mut [u8], stride: usize) {
    if last == 0 {
        let mean = i32::from(block[0].wrapping_mul(table[0]));
        let value = to_byte(saturate(mean << FIRST_PASS), 1 << (FIRST_PASS + 2), FIRST_PASS + 3);
        for row in out.chunks_mut(stride).take(8) {
            row[..8].fill(value);
        }
        return;
    }
    let mut lines = [[0; 8]; 8];
    for row in 0..8 {
        for i in 0..8 {
            lines[row][i] = i32::from(block[row * 8 + i].wrapping_mul(table[row * 8 + i]));
        }
    }
    let columns = pass(&lines);
    for x in 0..8 {
        for y in 0..8 {
            let shift = CONSTANT - FIRST_PASS;
            lines[x][y] = saturate(columns[y][x].wrapping_add(1 << (shift - 1)) >> shift);
        }
    }
    let columns = pass(&lines);
    let shift = CONSTANT + FIRST_PASS + 3;
    let mut bytes = [[0; 8]; 8];
    for x in 0..8 {
        for y in 0..8 {
            bytes[x][y] = to_byte(columns[x][y], 1 << (shift - 1), shift);
        }
    }
    for (y, row) in out.chunks_mut(stride).take(8).enumerate() {
        let row: &mut [u8; 8] = match row.first_chunk_mut() {
            Some(row) => row,
            None => return,
        };
        for x in 0..8 {
            row[x] = bytes[x][y];
        }
    }
}

#[inline(always)]
fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// Rounds, scales and level-shifts to a byte.
#[inline(always)]
fn to_byte(value: i32, half: i32, shift: u32) -> u8 {
    ((value.wrapping_add(half) >> shift).clamp(-128, 127) + 128) as u8
}

/// One-dimensional transform across 8 lines, elementwise.
#[inline(always)]
fn pass(lines: &Lines) -> Lines {
    let mut out = [[0i32; 8]; 8];
    for i in 0..8 {
        let mul = |a: i32, b: i32| a.wrapping_mul(b);
        let add = |a: i32, b: i32| a.wrapping_add(b);
        let sub = |a: i32, b: i32| a.wrapping_sub(b);

        let (z2, z3) = (lines[2][i], lines[6][i]);
        let z1 = mul(add(z2, z3), 4433);
        let (t2, t3) = (add(z1, mul(z3, -15137)), add(z1, mul(z2, 6270)));
        let (z2, z3) = (lines[0][i], lines[4][i]);
        let (t0, t1) = (add(z2, z3) << CONSTANT, sub(z2, z3) << CONSTANT);
        let even = [add(t0, t3), add(t1, t2), sub(t1, t2), sub(t0, t3)];

        let (t0, t1, t2, t3) = (lines[7][i], lines[5][i], lines[3][i], lines[1][i]);
        let (z1, z2, z3, z4) = (add(t0, t3), add(t1, t2), add(t0, t2), add(t1, t3));
        let z5 = mul(add(z3, z4), 9633);
        let (z1, z2) = (mul(z1, -7373), mul(z2, -20995));
        let (z3, z4) = (add(mul(z3, -16069), z5), add(mul(z4, -3196), z5));
        let odd = [
            add(mul(t3, 12299), add(z1, z4)),
            add(mul(t2, 25172), add(z2, z3)),
            add(mul(t1, 16819), add(z2, z4)),
            add(mul(t0, 2446), add(z1, z3)),
        ];
        for k in 0..4 {
            out[k][i] = add(even[k], odd[k]);
            out[7 - k][i] = sub(even[k], odd[k]);
        }
    }
    out
}
