//! Conversion of planes to RGB: libjpeg's "fancy" upsampling (`jdsample.c`) and color conversion
//! (`jdcolor.c`).
// Loops by index over slices of equal length are vectorized.
#![allow(clippy::needless_range_loop)]

/// The samples of a component.
pub(crate) struct Plane {
    /// Rows of samples, `stride` apart.
    pub data: Vec<u8>,
    pub stride: usize,
    /// Size of the part that belongs to the image, in samples.
    pub width: usize,
    pub height: usize,
    /// Image pixels per sample, horizontally and vertically.
    pub expand: (usize, usize),
}

/// Color space of the components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Gray,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

impl Space {
    /// Returns the number of components.
    pub fn components(self) -> usize {
        match self {
            Space::Gray => 1,
            Space::Rgb | Space::YCbCr => 3,
            Space::Cmyk | Space::Ycck => 4,
        }
    }
}

/// Buffers for a row at image resolution.
#[derive(Default)]
struct Row {
    samples: Vec<u8>,
    sums: Vec<u16>,
}

impl Plane {
    #[inline(always)]
    fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride..][..self.width]
    }

    /// Returns row `y` of the image: a row of this plane, or an upsampled one in `row`.
    #[inline(always)]
    fn upsampled<'a>(&'a self, y: usize, row: &'a mut Row) -> &'a [u8] {
        let (across, down) = self.expand;
        let near = self.row(y / down);
        // The second nearest row to an image row.
        let far = |y: usize| match (y % 2, y / 2) {
            (0, y) => self.row(y.saturating_sub(1)),
            (_, y) => self.row((y + 1).min(self.height - 1)),
        };
        let out = &mut row.samples;
        out.resize(self.width * across, 0);
        match (across, down) {
            (1, 1) => return near,
            (2, 1) if self.width > 2 => widen(near, out),
            (1, 2) => blend(near, far(y), 1 + (y % 2) as u16, out),
            (2, 2) if self.width > 2 => {
                row.sums.resize(self.width, 0);
                add(near, far(y), &mut row.sums);
                widen_sums(&row.sums, out);
            }
            _ => {
                for (out, &sample) in out.chunks_exact_mut(across).zip(near) {
                    out.fill(sample);
                }
            }
        }
        out
    }
}

/// Doubles a row of at least two samples: each output is 3/4 of a sample plus 1/4 of its neighbor.
#[inline(always)]
fn widen(row: &[u8], out: &mut [u8]) {
    let n = row.len();
    let (row, out) = (&row[..n], &mut out[..2 * n]);
    let mix = |near: u8, far: u8, round: u16| ((3 * u16::from(near) + u16::from(far) + round) >> 2) as u8;
    out[0] = row[0];
    out[1] = mix(row[0], row[1], 2);
    let pairs = out[2..2 * n - 2].as_chunks_mut::<2>().0;
    for (((pair, &left), &own), &right) in pairs.iter_mut().zip(row).zip(&row[1..]).zip(&row[2..]) {
        *pair = [mix(own, left, 1), mix(own, right, 2)];
    }
    out[2 * n - 2] = mix(row[n - 1], row[n - 2], 1);
    out[2 * n - 1] = row[n - 1];
}

/// Blends 3/4 of one row with 1/4 of the other.
#[inline(always)]
fn blend(near: &[u8], far: &[u8], round: u16, out: &mut [u8]) {
    for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
        *out = ((3 * u16::from(near) + u16::from(far) + round) >> 2) as u8;
    }
}

/// Blends as [`blend`], scaled by 4.
#[inline(always)]
fn add(near: &[u8], far: &[u8], out: &mut [u16]) {
    for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
        *out = 3 * u16::from(near) + u16::from(far);
    }
}

/// Doubles a row of at least two values as [`widen`], for values scaled by 4.
#[inline(always)]
fn widen_sums(sums: &[u16], out: &mut [u8]) {
    let n = sums.len();
    let (sums, out) = (&sums[..n], &mut out[..2 * n]);
    let mix = |near: u16, far: u16, round: u16| ((3 * near + far + round) >> 4) as u8;
    out[0] = mix(sums[0], sums[0], 8);
    out[1] = mix(sums[0], sums[1], 7);
    let pairs = out[2..2 * n - 2].as_chunks_mut::<2>().0;
    for (((pair, &left), &own), &right) in pairs.iter_mut().zip(sums).zip(&sums[1..]).zip(&sums[2..]) {
        *pair = [mix(own, left, 8), mix(own, right, 7)];
    }
    out[2 * n - 2] = mix(sums[n - 1], sums[n - 2], 8);
    out[2 * n - 1] = mix(sums[n - 1], sums[n - 1], 7);
}

/// Converts planes to an image of `width`×`height` pixels.
#[inline(always)]
pub(crate) fn to_rgb(planes: &[Plane], space: Space, width: usize, height: usize) -> Vec<u8> {
    let mut rgb = vec![0; width * height * 3];
    let mut rows: [Row; 4] = std::array::from_fn(|_| Row::default());
    for (y, out) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let out = out.as_chunks_mut::<3>().0;
        let mut sources: [&[u8]; 4] = [&[]; 4];
        for ((source, plane), row) in sources.iter_mut().zip(planes).zip(&mut rows) {
            *source = &plane.upsampled(y, row)[..width];
        }
        let [a, b, c, k] = sources;
        match space {
            Space::Gray => {
                for (out, &gray) in out.iter_mut().zip(a) {
                    *out = [gray; 3];
                }
            }
            Space::Rgb => {
                for (((out, &a), &b), &c) in out.iter_mut().zip(a).zip(b).zip(c) {
                    *out = [a, b, c];
                }
            }
            Space::YCbCr => {
                for (((out, &a), &b), &c) in out.iter_mut().zip(a).zip(b).zip(c) {
                    *out = ycc_to_rgb(a, b, c);
                }
            }
            Space::Cmyk | Space::Ycck => {
                for ((((out, &a), &b), &c), &k) in out.iter_mut().zip(a).zip(b).zip(c).zip(k) {
                    let ink = if space == Space::Ycck { ycc_to_rgb(a, b, c).map(|v| 255 - v) } else { [a, b, c] };
                    *out = ink_to_rgb(ink, k);
                }
            }
        }
    }
    rgb
}

/// Converts YCbCr to RGB in 16-bit fixed point, as libjpeg does.
#[inline(always)]
pub(crate) fn ycc_to_rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (y as i32, cb as i32 - 128, cr as i32 - 128);
    let half = 1 << 15;
    let red = y + ((91881 * cr + half) >> 16);
    let green = y + ((-22554 * cb - 46802 * cr + half) >> 16);
    let blue = y + ((116130 * cb + half) >> 16);
    [red.clamp(0, 255) as u8, green.clamp(0, 255) as u8, blue.clamp(0, 255) as u8]
}

/// Converts CMYK to RGB, as Pillow does, for ink that is stored inverted. Adobe stores it so, and
/// Pillow assumes this of every CMYK JPEG.
#[inline(always)]
pub(crate) fn ink_to_rgb(ink: [u8; 3], key: u8) -> [u8; 3] {
    let white = u32::from(key);
    ink.map(|ink| {
        // Pillow's MULDIV255: the product divided by 255, rounded.
        let product = u32::from(255 - ink) * white + 128;
        (white - (((product >> 8) + product) >> 8)) as u8
    })
}
