//! Image augmentation on packed pixels. Each image has its own operation, and one pass performs
//! those of the whole batch. Operations that depend on a histogram need a second pass that counts,
//! and blurs need six.
//!
//! The cube's position along the second axis is the index of the image, so that the units of a cube
//! perform the same operation.

use burn::{
    backend::{TensorMetadata, ops::IntTensorOps},
    tensor::{DType, Shape, TensorData},
};
use burn_cubecl::{
    CubeBackend,
    cubecl::{self, client::Client, prelude::*},
    kernel::into_contiguous,
    ops::numeric::zeros_client,
    tensor::CubeTensor,
};

use super::image_program::{
    AUTO_CONTRAST, BILINEAR, CODES, COLOR, CONTRAST, HUE, ImageProgram, NEAREST, NOISE, NUMBERS, PAINT, SHARPNESS,
    TABLE, VALUES,
};
use super::tensors::{address, empty, empty_single};
use crate::types::image::blur::PASSES;
use crate::types::image::operation::Operation;
use crate::types::image::sampling::Sampling;

/// Units in a cube.
const UNITS: usize = 256;
/// Minimum number of pixels per unit.
const PIXELS: usize = 4;
/// Maximum number of images, limited by the number of cubes along an axis, and of pixels per image,
/// so that their sum fits into 32 bits.
const MOST: [usize; 2] = [65_535, 1 << 24];

/// Number of channels with a histogram: red, green, blue and gray.
const COUNTED: usize = 4;

/// Returns whether the tensor has 32-bit integers and is not empty.
pub fn are_words(numbers: &CubeTensor) -> bool {
    matches!(numbers.dtype, DType::I32 | DType::U32) && numbers.shape().num_elements() > 0
}

/// Returns whether the kernels support this number and size of images.
pub fn takes(batch: &CubeTensor) -> bool {
    let [images, height, width] = batch.shape().dims();
    are_words(batch) && images <= MOST[0] && height * width <= MOST[1]
}

/// Returns the cubes, and their units, that process `items` items of each of `batch` images.
fn cubes(client: &Client, items: usize, batch: usize) -> (CubeCount, CubeDim) {
    let units = UNITS.min(client.properties().hardware.max_units_per_cube as usize).max(1);
    let cubes = items.div_ceil(units * PIXELS).min(MOST[0]);
    (CubeCount::Static(cubes as u32, batch as u32, 1), CubeDim::new_1d(units as u32))
}

/// Unpacks bytes into one integer per pixel.
pub fn unpack(words: CubeTensor, size: [usize; 3]) -> CubeTensor {
    let words = into_contiguous(words);
    let batch = empty(&words, Shape::new(size));
    let pixels: usize = size.iter().product();
    let (count, dim) = cubes(&words.client, pixels.div_ceil(4), 1);
    unpack_kernel::launch(
        &words.client.clone(),
        count,
        dim,
        address(&[&words, &batch]),
        words.into_buffer_arg(),
        batch.clone().into_buffer_arg(),
        pixels,
    );
    batch
}

/// Returns the bytes of all pixels as f32, [N, H, W, 3].
pub fn channels(batch: CubeTensor) -> CubeTensor {
    let batch = into_contiguous(batch);
    let [images, height, width] = batch.shape().dims();
    let channels = empty_single(&batch, Shape::new([images, height, width, 3]));
    let pixels = images * height * width;
    let (count, dim) = cubes(&batch.client, pixels, 1);
    channels_kernel::launch(
        &batch.client.clone(),
        count,
        dim,
        address(&[&batch, &channels]),
        batch.into_buffer_arg(),
        channels.clone().into_buffer_arg(),
        pixels,
    );
    channels
}

/// Applies each image's operation to `batch`, `[N, H, W]`.
pub fn perform(batch: CubeTensor, operations: &[(Operation, Sampling)]) -> CubeTensor {
    let batch = into_contiguous(batch);
    let [images, height, width] = batch.shape().dims();
    let (client, address_type) = (batch.client.clone(), address(&[&batch]));
    let program = ImageProgram::new(operations, width, height);
    let device = batch.device.clone();
    // Buffers may not be empty.
    let upload = |mut numbers: Vec<u32>| {
        numbers.resize(numbers.len().max(1), 0);
        let count = numbers.len();
        CubeBackend::int_from_data(TensorData::new(numbers, [count]), &device)
    };
    let bits = program.numbers.into_iter().map(f32::to_bits).collect();
    let [codes, numbers, tables, noise] = [program.codes, bits, program.tables, program.noise].map(upload);
    let (count, dim) = cubes(&client, height * width, images);
    if program.measured {
        let counts = zeros_client(client.clone(), device.clone(), Shape::new([images * COUNTED * VALUES]), DType::U32);
        count_kernel::launch(
            &client,
            count.clone(),
            dim,
            address_type,
            batch.clone().into_buffer_arg(),
            codes.clone().into_buffer_arg(),
            counts.clone().into_buffer_arg(),
            height * width,
        );
        table_kernel::launch(
            &client,
            CubeCount::Static(1, images as u32, 1),
            dim,
            address_type,
            counts.into_buffer_arg(),
            codes.clone().into_buffer_arg(),
            numbers.clone().into_buffer_arg(),
            tables.clone().into_buffer_arg(),
            (height * width) as u32,
        );
    }
    let done = empty(&batch, batch.shape());
    perform_kernel::launch(
        &client,
        count,
        dim,
        address_type,
        batch.clone().into_buffer_arg(),
        codes.into_buffer_arg(),
        numbers.into_buffer_arg(),
        tables.into_buffer_arg(),
        noise.into_buffer_arg(),
        done.clone().into_buffer_arg(),
        width as u32,
        height as u32,
    );
    let blurred = program.blurs.len() / 4;
    if blurred > 0 {
        let blurs = upload(program.blurs);
        let between = empty(&done, done.shape());
        // An even number of passes leaves the result in `done`.
        let there_and_back = [(&done, &between), (&between, &done)];
        for pass in 0..2 * PASSES as usize {
            let (from, to) = there_and_back[pass % 2];
            blur_kernel::launch(
                &client,
                cubes(&client, height * width, blurred).0,
                dim,
                address_type,
                from.clone().into_buffer_arg(),
                blurs.clone().into_buffer_arg(),
                to.clone().into_buffer_arg(),
                width as u32,
                height as u32,
                pass >= PASSES as usize,
            );
        }
    }
    done
}

/// Unpacks four pixels from every three words.
#[cube(launch, address_type = "dynamic")]
fn unpack_kernel(words: &[u32], batch: &mut [u32], pixels: usize) {
    let mut first = 4 * ABSOLUTE_POS_X as usize;
    while first < pixels {
        let word = first / 4 * 3;
        #[unroll]
        for index in 0..4usize {
            if first + index < pixels {
                // The pixel's first byte; its bytes are in this word and possibly the next.
                let byte = comptime!(3 * index as u32);
                let (at, shift) = comptime!(((byte / 4) as usize, 8 * (byte % 4)));
                let mut pixel = words[word + at] >> shift;
                if comptime!(shift > 8) {
                    pixel |= words[word + at + 1] << comptime!(32 - shift);
                }
                batch[first + index] = pixel & 0xff_ffff;
            }
        }
        first += 4 * (CUBE_COUNT_X * CUBE_DIM_X) as usize;
    }
}

#[cube(launch, address_type = "dynamic")]
fn channels_kernel(batch: &[u32], channels: &mut [f32], pixels: usize) {
    let mut at = ABSOLUTE_POS_X as usize;
    while at < pixels {
        let pixel = batch[at];
        #[unroll]
        for channel in 0..3usize {
            channels[3 * at + channel] = value(pixel, channel) as f32;
        }
        at += (CUBE_COUNT_X * CUBE_DIM_X) as usize;
    }
}

/// Computes histograms, `[N, COUNTED, VALUES]`, of the images whose table depends on them.
#[cube(launch, address_type = "dynamic")]
fn count_kernel(batch: &[u32], codes: &[u32], counts: &mut [Atomic<u32>], pixels: usize) {
    let image = CUBE_POS_Y as usize;
    let measure = codes[image * CODES + 1];
    if measure != 0 {
        let first = image * comptime!(COUNTED * VALUES);
        let mut at = ABSOLUTE_POS_X as usize;
        while at < pixels {
            let pixel = batch[image * pixels + at];
            if measure == CONTRAST {
                counts[first + comptime!(3 * VALUES) + gray(pixel) as usize].fetch_add(1);
            } else {
                #[unroll]
                for channel in 0..3usize {
                    counts[first + channel * VALUES + value(pixel, channel) as usize].fetch_add(1);
                }
            }
            at += (CUBE_COUNT_X * CUBE_DIM_X) as usize;
        }
    }
}

/// Computes the tables that depend on histograms, one value per unit at a time.
#[cube(launch, address_type = "dynamic")]
fn table_kernel(counts: &[u32], codes: &[u32], numbers: &[u32], tables: &mut [u32], pixels: u32) {
    let image = CUBE_POS_Y as usize;
    let measure = codes[image * CODES + 1];
    let first = image * comptime!(COUNTED * VALUES);
    if measure != 0 {
        let mut own = UNIT_POS_X as usize;
        while own < VALUES {
            let mut entry = 0u32;
            if measure == CONTRAST {
                let factor = f32::reinterpret(numbers[image * NUMBERS]);
                let mean = mean_gray(counts, first + comptime!(3 * VALUES), pixels);
                entry = blended(mean, own as u32, factor) * 0x01_0101;
            } else {
                #[unroll]
                for channel in 0..3usize {
                    let counted = first + channel * VALUES;
                    let new = if measure == AUTO_CONTRAST {
                        stretched(counts, counted, own as u32)
                    } else {
                        equalized(counts, counted, own as u32, pixels)
                    };
                    entry |= new << comptime!(8 * channel as u32);
                }
            }
            tables[image * VALUES + own] = entry;
            own += CUBE_DIM_X as usize;
        }
    }
}

/// Returns the mean, rounded, of the gray values whose histogram starts at `first`.
#[cube]
fn mean_gray(counts: &[u32], first: usize, pixels: u32) -> u32 {
    let mut sum = 0u32;
    for value in 0..VALUES {
        sum += counts[first + value] * value as u32;
    }
    let (mean, rest) = (sum / pixels, sum % pixels);
    select(2 * rest >= pixels, mean + 1, mean)
}

/// Returns the value after auto-contrast.
#[cube]
fn stretched(counts: &[u32], first: usize, own: u32) -> u32 {
    let mut lowest = 255u32;
    let mut highest = 0u32;
    for value in 0..VALUES {
        if counts[first + value] > 0 {
            lowest = min(lowest, value as u32);
            highest = max(highest, value as u32);
        }
    }
    let mut new = own;
    if highest > lowest {
        // No pixel is below the lowest or above the highest value.
        new = (max(own, lowest) - lowest) * 255 / (highest - lowest);
    }
    min(new, 255)
}

/// Returns the value after histogram equalization.
#[cube]
fn equalized(counts: &[u32], first: usize, own: u32, pixels: u32) -> u32 {
    let mut below = 0u32;
    let mut last = 0u32;
    for value in 0..VALUES {
        let count = counts[first + value];
        below += select((value as u32) < own, count, 0);
        last = select(count > 0, count, last);
    }
    let step = (pixels - last) / 255;
    select(step == 0, own, min((step / 2 + below) / max(step, 1), 255))
}

#[cube(launch, address_type = "dynamic")]
fn perform_kernel(
    batch: &[u32],
    codes: &[u32],
    numbers: &[u32],
    tables: &[u32],
    noise: &[u32],
    done: &mut [u32],
    width: u32,
    height: u32,
) {
    let image = CUBE_POS_Y as usize;
    let pixels = (width * height) as usize;
    let first = image * pixels;
    let own = image * CODES;
    let (kind, left, top) = (codes[own], codes[own + 2], codes[own + 3]);
    let (area_width, area_height, color) = (codes[own + 4], codes[own + 5], codes[own + 6]);
    let mut matrix = Array::<f32>::new(NUMBERS);
    #[unroll]
    for index in 0..NUMBERS {
        matrix[index] = f32::reinterpret(numbers[image * NUMBERS + index]);
    }
    let factor = matrix[0];

    let mut at = ABSOLUTE_POS_X as usize;
    while at < pixels {
        let (x, y) = (at as u32 % width, at as u32 / width);
        let old = batch[first + at];
        let mut new = old;
        if kind != 0 && kind < TABLE {
            let from_x = matrix[0] * x as f32 + matrix[1] * y as f32 + matrix[2];
            let from_y = matrix[3] * x as f32 + matrix[4] * y as f32 + matrix[5];
            let inside = from_x >= 0.0 && from_x < width as f32 && from_y >= 0.0 && from_y < height as f32;
            new = color;
            if inside {
                if kind == NEAREST {
                    new = between(batch, first, from_x, from_y, width, height, 1usize);
                } else if kind == BILINEAR {
                    new = between(batch, first, from_x, from_y, width, height, 2usize);
                } else {
                    new = between(batch, first, from_x, from_y, width, height, 4usize);
                }
            }
        } else if kind == TABLE {
            let table = image * VALUES;
            let red = tables[table + value(old, 0usize) as usize] & 0xff;
            let green = tables[table + value(old, 1usize) as usize] & 0xff00;
            let blue = tables[table + value(old, 2usize) as usize] & 0xff_0000;
            new = red | green | blue;
        } else if kind == COLOR {
            let gray = gray(old);
            new = 0u32;
            #[unroll]
            for channel in 0..3usize {
                new |= blended(gray, value(old, channel), factor) << comptime!(8 * channel as u32);
            }
        } else if kind == SHARPNESS {
            // The outermost pixels stay unchanged.
            if x > 0 && y > 0 && x + 1 < width && y + 1 < height {
                new = sharpened(batch, first + at, width as usize, factor);
            }
        } else if kind == HUE {
            new = turned(old, left);
        } else if kind == PAINT || kind == NOISE {
            let inside = x >= left && x - left < area_width && y >= top && y - top < area_height;
            if inside {
                new = color;
                if kind == NOISE {
                    new = noise[codes[own + 7] as usize + ((y - top) * area_width + x - left) as usize];
                }
            }
        }
        done[first + at] = new;
        at += (CUBE_COUNT_X * CUBE_DIM_X) as usize;
    }
}

/// Returns a channel of a pixel.
#[cube]
fn value(pixel: u32, #[comptime] channel: usize) -> u32 {
    (pixel >> comptime!(8 * channel as u32)) & 0xff
}

/// Converts a number to a byte: truncates and saturates.
#[cube]
fn byte(number: f32) -> u32 {
    u32::cast_from(min(max(number, 0.0), 255.0))
}

/// Interpolates from `a` (`factor` 0) to `b` (`factor` 1), or extrapolates beyond.
#[cube]
fn blended(a: u32, b: u32, factor: f32) -> u32 {
    byte(a as f32 + factor * (b as f32 - a as f32))
}

/// Returns the gray value: ITU-R 601-2 luma in 16-bit fixed point.
#[cube]
fn gray(pixel: u32) -> u32 {
    (value(pixel, 0usize) * 19595 + value(pixel, 1usize) * 38470 + value(pixel, 2usize) * 7471 + 0x8000) >> 16
}

/// Interpolates the pixel at `(x, y)` from `taps`×`taps` neighbors; edge pixels are repeated
/// outside of the image.
#[cube]
fn between(batch: &[u32], first: usize, x: f32, y: f32, width: u32, height: u32, #[comptime] taps: usize) -> u32 {
    let half = comptime!(if taps == 1 { 0.0f32 } else { 0.5 });
    let before = comptime!(if taps == 4 { 1i32 } else { 0 });
    let (left, top) = ((x - half).floor(), (y - half).floor());
    let (across, down) = (x - half - left, y - half - top);
    let (left, top) = (i32::cast_from(left) - before, i32::cast_from(top) - before);
    let mut pixels = Array::<u32>::new(comptime!(taps * taps));
    #[unroll]
    for row in 0..taps {
        let y = min(max(top + comptime!(row as i32), 0), height as i32 - 1) as usize;
        #[unroll]
        for column in 0..taps {
            let x = min(max(left + comptime!(column as i32), 0), width as i32 - 1) as usize;
            pixels[row * taps + column] = batch[first + y * width as usize + x];
        }
    }
    let mut new = 0u32;
    #[unroll]
    for channel in 0..3usize {
        let mut rows = Array::<f32>::new(taps);
        #[unroll]
        for row in 0..taps {
            let mut values = Array::<f32>::new(taps);
            #[unroll]
            for column in 0..taps {
                values[column] = value(pixels[row * taps + column], channel) as f32;
            }
            rows[row] = interpolated(&values, across, taps);
        }
        new |= byte(interpolated(&rows, down, taps)) << comptime!(8 * channel as u32);
    }
    new
}

/// Interpolates between the two middle values, at the fraction `at` of the way.
#[cube]
fn interpolated(values: &Array<f32>, at: f32, #[comptime] taps: usize) -> f32 {
    if comptime!(taps == 1) {
        values[0]
    } else if comptime!(taps == 2) {
        values[0] + (values[1] - values[0]) * at
    } else {
        // Pillow's bicubic filter, a = -1.
        let p2 = values[2] - values[0];
        let p3 = 2.0 * (values[0] - values[1]) + values[2] - values[3];
        let p4 = values[1] - values[0] - values[2] + values[3];
        values[1] + at * (p2 + at * (p3 + at * p4))
    }
}

/// Blends the pixel with the mean of its neighborhood, weighted by 1 1 1, 1 5 1, 1 1 1.
#[cube]
fn sharpened(batch: &[u32], at: usize, width: usize, factor: f32) -> u32 {
    let mut new = 0u32;
    #[unroll]
    for channel in 0..3usize {
        let own = value(batch[at], channel);
        let mut sum = 4 * own;
        #[unroll]
        for row in 0..3usize {
            #[unroll]
            for column in 0..3usize {
                sum += value(batch[at + row * width + column - width - 1], channel);
            }
        }
        // sum / 13, rounded; 13 is odd, so a tie cannot occur.
        new |= blended((2 * sum + 13) / 26, own, factor) << comptime!(8 * channel as u32);
    }
    new
}

/// Adds `turn` to the pixel's hue, in Pillow's 8-bit HSV.
#[cube]
fn turned(pixel: u32, turn: u32) -> u32 {
    let (r, g, b) = (value(pixel, 0usize), value(pixel, 1usize), value(pixel, 2usize));
    let greatest = max(max(r, g), b);
    let least = min(min(r, g), b);
    let mut new = pixel;
    if greatest > least {
        let chroma = (greatest - least) as f32;
        let saturation = byte(chroma / greatest as f32 * 255.0);
        let rc = (greatest - r) as f32 / chroma;
        let gc = (greatest - g) as f32 / chroma;
        let bc = (greatest - b) as f32 / chroma;
        let of_blue = 4.0 + gc - rc;
        let of_green = 2.0 + rc - bc;
        let sixths = select(r == greatest, bc - gc, select(g == greatest, of_green, of_blue));
        let part = sixths / 6.0;
        let hue = (byte(select(part < 0.0, part + 1.0, part) * 255.0) + turn) & 0xff;
        new = from_hsv(hue, saturation, greatest);
    }
    new
}

#[cube]
fn from_hsv(hue: u32, saturation: u32, value: u32) -> u32 {
    let sector = hue * 6 / 255;
    let f = (hue * 6 - sector * 255) as f32 / 255.0;
    let s = saturation as f32 / 255.0;
    let full = value as f32;
    let p = byte(full * (1.0 - s) + 0.5);
    let q = byte(full * (1.0 - s * f) + 0.5);
    let t = byte(full * (1.0 - s * (1.0 - f)) + 0.5);
    let sector = sector % 6;
    let red = select(sector == 0 || sector == 5, value, select(sector == 1, q, select(sector == 4, t, p)));
    let green = select(sector == 1 || sector == 2, value, select(sector == 0, t, select(sector == 3, q, p)));
    let blue = select(sector == 3 || sector == 4, value, select(sector == 2, t, select(sector == 5, q, p)));
    let gray = value * 0x01_0101;
    select(saturation == 0, gray, red | (green << 8) | (blue << 16))
}

/// Applies one box blur, horizontal or vertical, to the images listed in `blurs`.
#[cube(launch, address_type = "dynamic")]
fn blur_kernel(from: &[u32], blurs: &[u32], to: &mut [u32], width: u32, height: u32, #[comptime] down: bool) {
    let blur = 4 * CUBE_POS_Y as usize;
    let pixels = (width * height) as usize;
    let first = blurs[blur] as usize * pixels;
    let whole = blurs[blur + 1] as i32;
    let (weight, edge_weight) = (blurs[blur + 2], blurs[blur + 3]);
    let mut at = ABSOLUTE_POS_X as usize;
    while at < pixels {
        let (x, y) = (at as u32 % width, at as u32 / width);
        // The pixel's position in its line, the line's length, and the distance between its pixels.
        let place = if comptime!(down) { y } else { x };
        let length = if comptime!(down) { height } else { width };
        let step = if comptime!(down) { width } else { 1u32.runtime() };
        let line = first + at - (place * step) as usize;
        let mut sums = Array::<u32>::new(3usize);
        let mut edges = Array::<u32>::new(3usize);
        #[unroll]
        for channel in 0..3usize {
            sums[channel] = 0u32;
            edges[channel] = 0u32;
        }
        for offset in -whole - 1..whole + 2 {
            let neighbor = min(max(place as i32 + offset, 0), length as i32 - 1) as u32;
            let pixel = from[line + (neighbor * step) as usize];
            let beyond = offset < -whole || offset > whole;
            #[unroll]
            for channel in 0..3usize {
                let value = value(pixel, channel);
                sums[channel] += select(beyond, 0u32, value);
                edges[channel] += select(beyond, value, 0u32);
            }
        }
        let mut new = 0u32;
        #[unroll]
        for channel in 0..3usize {
            let total = sums[channel] * weight + edges[channel] * edge_weight + comptime!(1u32 << 23);
            new |= (total >> 24) << comptime!(8 * channel as u32);
        }
        to[first + at] = new;
        at += (CUBE_COUNT_X * CUBE_DIM_X) as usize;
    }
}
