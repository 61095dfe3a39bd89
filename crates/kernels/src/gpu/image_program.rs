//! Encoding of a batch's image operations as numbers, which the kernels read.

use crate::types::image::blur::BoxBlur;
use crate::types::image::enhance::hue_steps;
use crate::types::image::operation::{Area, Operation};
use crate::types::image::sampling::{Interpolation, Sampling};

/// Numbers per image in `codes`: the kind of operation, the kind of histogram table, a rectangle
/// (4), a color, and the start of its noise. Hue operations store their shift in place of the
/// rectangle.
pub const CODES: usize = 8;
/// Numbers per image in `numbers`: a matrix, or a factor.
pub const NUMBERS: usize = 6;
/// Number of values of a byte.
pub const VALUES: usize = 256;
// Kinds of operations; 0 leaves the image unchanged.
pub const NEAREST: u32 = 1;
pub const BILINEAR: u32 = 2;
pub const BICUBIC: u32 = 3;
pub const TABLE: u32 = 4;
pub const COLOR: u32 = 5;
pub const SHARPNESS: u32 = 6;
pub const HUE: u32 = 7;
pub const PAINT: u32 = 8;
pub const NOISE: u32 = 9;

// Kinds of tables that are computed from the image's histogram.
pub const AUTO_CONTRAST: u32 = 1;
pub const EQUALIZE: u32 = 2;
pub const CONTRAST: u32 = 3;

/// The operations of a batch, as kernels read them.
#[derive(Default)]
pub struct ImageProgram {
    /// `[N, CODES]`
    pub codes: Vec<u32>,
    /// `[N, NUMBERS]`
    pub numbers: Vec<f32>,
    /// `[N, VALUES]`: for each byte value a pixel with the new value of each channel. Empty if no
    /// image uses a table.
    pub tables: Vec<u32>,
    /// The pixels of all noise operations.
    pub noise: Vec<u32>,
    /// Whether any table is computed from a histogram.
    pub measured: bool,
    /// For each blurred image its index and the three numbers of its [`BoxBlur`].
    pub blurs: Vec<u32>,
}

impl ImageProgram {
    pub fn new(operations: &[(Operation, Sampling)], width: usize, height: usize) -> Self {
        let mut program = Self::default();
        for (image, (operation, sampling)) in operations.iter().enumerate() {
            let (codes, numbers) = program.encode(image, operation, *sampling, width, height);
            program.codes.extend(codes);
            program.numbers.extend(numbers);
        }
        if !program.tables.is_empty() {
            program.tables.resize(operations.len() * VALUES, 0);
        }
        program
    }

    fn encode(
        &mut self,
        image: usize,
        operation: &Operation,
        Sampling { interpolation, fill }: Sampling,
        width: usize,
        height: usize,
    ) -> ([u32; CODES], [f32; NUMBERS]) {
        let (mut codes, mut numbers) = ([0; CODES], [0.0; NUMBERS]);
        let mut warp = |kind: u32, [a, b, c, d, e, f]: [f64; 6], fill: [u8; 3]| {
            // Pixel centers are at half-integer coordinates.
            let from_first = [a, b, 0.5 * (a + b) + c, d, e, 0.5 * (d + e) + f];
            numbers = from_first.map(|number| number as f32);
            (codes[0], codes[6]) = (kind, pixel(fill));
        };
        match *operation {
            Operation::Identity => {}
            Operation::ShearX(_)
            | Operation::ShearY(_)
            | Operation::TranslateX(_)
            | Operation::TranslateY(_)
            | Operation::Rotate(_) => {
                let kind = match interpolation {
                    Interpolation::Nearest => NEAREST,
                    Interpolation::Bilinear => BILINEAR,
                    Interpolation::Bicubic => BICUBIC,
                };
                if let Some(matrix) = operation.matrix(width, height) {
                    warp(kind, matrix, fill);
                }
            }
            Operation::Window { left, top, mirrored, upside_down } => {
                let line = |start: isize, length: usize, turned: bool| {
                    if turned { (-1.0, length as f64 + start as f64) } else { (1.0, start as f64) }
                };
                let ((a, c), (e, f)) = (line(left, width, mirrored), line(top, height, upside_down));
                warp(NEAREST, [a, 0.0, c, 0.0, e, f], [0; 3]);
            }
            Operation::Brightness(_)
            | Operation::Posterize(_)
            | Operation::Solarize(_)
            | Operation::SolarizeAdd(_)
            | Operation::Invert => {
                if let Some(table) = operation.table() {
                    codes[0] = TABLE;
                    self.tables.resize(image * VALUES, 0);
                    self.tables.extend(table.map(|value| pixel([value; 3])));
                }
            }
            Operation::AutoContrast => codes[..2].copy_from_slice(&[TABLE, AUTO_CONTRAST]),
            Operation::Equalize => codes[..2].copy_from_slice(&[TABLE, EQUALIZE]),
            Operation::Contrast(factor) => {
                codes[..2].copy_from_slice(&[TABLE, CONTRAST]);
                numbers[0] = factor as f32;
            }
            Operation::Color(factor) => (codes[0], numbers[0]) = (COLOR, factor as f32),
            Operation::Sharpness(factor) => (codes[0], numbers[0]) = (SHARPNESS, factor as f32),
            Operation::Hue(turn) => codes[..3].copy_from_slice(&[HUE, 0, u32::from(hue_steps(turn))]),
            Operation::Blur(deviation) => {
                if let Some(BoxBlur { whole, weight, edge_weight }) = BoxBlur::of_gaussian(deviation) {
                    self.blurs.extend([image as u32, whole, weight, edge_weight]);
                }
            }
            Operation::Paint(area, color) => {
                (codes[0], codes[6]) = (PAINT, pixel(color));
                codes[2..6].copy_from_slice(&rectangle(area));
            }
            Operation::Noise(area, ref pixels) => {
                (codes[0], codes[7]) = (NOISE, self.noise.len() as u32);
                codes[2..6].copy_from_slice(&rectangle(area));
                self.noise.extend(pixels.iter().map(|color| pixel(*color)));
            }
        }
        if codes[1] != 0 {
            self.measured = true;
            self.tables.resize((image + 1) * VALUES, 0);
        }
        (codes, numbers)
    }
}

fn pixel([red, green, blue]: [u8; 3]) -> u32 {
    u32::from_le_bytes([red, green, blue, 0])
}

fn rectangle(Area { left, top, width, height }: Area) -> [u32; 4] {
    [left, top, width, height].map(|number| number as u32)
}
