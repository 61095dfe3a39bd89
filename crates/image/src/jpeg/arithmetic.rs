//! Arithmetic-coded blocks, sequential and progressive, as read by libjpeg's `jdarith.c`.

use crate::jpeg::entropy::{Band, Entropy, place};
use crate::jpeg::stream::Stream;

/// States of the probability estimator: size of the less probable interval, next state after a less
/// probable and after a more probable decision, and whether the former swaps the two.
/// The last state is for decisions with fixed equal probability.
#[rustfmt::skip]
const STATES: [(u16, u8, u8, u8); 114] = [
    (0x5a1d, 1, 1, 1), (0x2586, 14, 2, 0), (0x1114, 16, 3, 0), (0x080b, 18, 4, 0),
    (0x03d8, 20, 5, 0), (0x01da, 23, 6, 0), (0x00e5, 25, 7, 0), (0x006f, 28, 8, 0),
    (0x0036, 30, 9, 0), (0x001a, 33, 10, 0), (0x000d, 35, 11, 0), (0x0006, 9, 12, 0),
    (0x0003, 10, 13, 0), (0x0001, 12, 13, 0), (0x5a7f, 15, 15, 1), (0x3f25, 36, 16, 0),
    (0x2cf2, 38, 17, 0), (0x207c, 39, 18, 0), (0x17b9, 40, 19, 0), (0x1182, 42, 20, 0),
    (0x0cef, 43, 21, 0), (0x09a1, 45, 22, 0), (0x072f, 46, 23, 0), (0x055c, 48, 24, 0),
    (0x0406, 49, 25, 0), (0x0303, 51, 26, 0), (0x0240, 52, 27, 0), (0x01b1, 54, 28, 0),
    (0x0144, 56, 29, 0), (0x00f5, 57, 30, 0), (0x00b7, 59, 31, 0), (0x008a, 60, 32, 0),
    (0x0068, 62, 33, 0), (0x004e, 63, 34, 0), (0x003b, 32, 35, 0), (0x002c, 33, 9, 0),
    (0x5ae1, 37, 37, 1), (0x484c, 64, 38, 0), (0x3a0d, 65, 39, 0), (0x2ef1, 67, 40, 0),
    (0x261f, 68, 41, 0), (0x1f33, 69, 42, 0), (0x19a8, 70, 43, 0), (0x1518, 72, 44, 0),
    (0x1177, 73, 45, 0), (0x0e74, 74, 46, 0), (0x0bfb, 75, 47, 0), (0x09f8, 77, 48, 0),
    (0x0861, 78, 49, 0), (0x0706, 79, 50, 0), (0x05cd, 48, 51, 0), (0x04de, 50, 52, 0),
    (0x040f, 50, 53, 0), (0x0363, 51, 54, 0), (0x02d4, 52, 55, 0), (0x025c, 53, 56, 0),
    (0x01f8, 54, 57, 0), (0x01a4, 55, 58, 0), (0x0160, 56, 59, 0), (0x0125, 57, 60, 0),
    (0x00f6, 58, 61, 0), (0x00cb, 59, 62, 0), (0x00ab, 61, 63, 0), (0x008f, 61, 32, 0),
    (0x5b12, 65, 65, 1), (0x4d04, 80, 66, 0), (0x412c, 81, 67, 0), (0x37d8, 82, 68, 0),
    (0x2fe8, 83, 69, 0), (0x293c, 84, 70, 0), (0x2379, 86, 71, 0), (0x1edf, 87, 72, 0),
    (0x1aa9, 87, 73, 0), (0x174e, 72, 74, 0), (0x1424, 72, 75, 0), (0x119c, 74, 76, 0),
    (0x0f6b, 74, 77, 0), (0x0d51, 75, 78, 0), (0x0bb6, 77, 79, 0), (0x0a40, 77, 48, 0),
    (0x5832, 80, 81, 1), (0x4d1c, 88, 82, 0), (0x438e, 89, 83, 0), (0x3bdd, 90, 84, 0),
    (0x34ee, 91, 85, 0), (0x2eae, 92, 86, 0), (0x299a, 93, 87, 0), (0x2516, 86, 71, 0),
    (0x5570, 88, 89, 1), (0x4ca9, 95, 90, 0), (0x44d9, 96, 91, 0), (0x3e22, 97, 92, 0),
    (0x3824, 99, 93, 0), (0x32b4, 99, 94, 0), (0x2e17, 93, 86, 0), (0x56a8, 95, 96, 1),
    (0x4f46, 101, 97, 0), (0x47e5, 102, 98, 0), (0x41cf, 103, 99, 0), (0x3c3d, 104, 100, 0),
    (0x375e, 99, 93, 0), (0x5231, 105, 102, 0), (0x4c0f, 106, 103, 0), (0x4639, 107, 104, 0),
    (0x415e, 103, 99, 0), (0x5627, 105, 106, 1), (0x50e7, 108, 107, 0), (0x4b85, 109, 103, 0),
    (0x5597, 110, 109, 0), (0x504f, 111, 107, 0), (0x5a10, 110, 111, 1), (0x5522, 112, 109, 0),
    (0x59eb, 112, 111, 1), (0x5a1d, 113, 113, 0),
];

/// Conditioning parameters of the statistics (marker DAC), by table.
#[derive(Clone, Copy)]
pub(crate) struct Conditioning {
    /// Bounds of small DC differences.
    pub lower: [u8; 16],
    pub upper: [u8; 16],
    /// Index of the last low-frequency coefficient.
    pub low: [u8; 16],
}

impl Default for Conditioning {
    fn default() -> Self {
        Conditioning { lower: [0; 16], upper: [1; 16], low: [5; 16] }
    }
}

impl Conditioning {
    /// Sets the parameters of a table; DC tables come first. Returns `None` if out of range.
    pub fn set(&mut self, table: usize, value: u8) -> Option<()> {
        let (lower, upper) = (value & 15, value >> 4);
        match table {
            0..16 if lower <= upper => (self.lower[table], self.upper[table]) = (lower, upper),
            16..32 => self.low[table - 16] = value,
            _ => return None,
        }
        Some(())
    }
}

/// Decoder for the blocks of an arithmetic-coded scan.
pub(crate) struct Arithmetic {
    conditioning: Conditioning,
    /// DC and AC table of each component of the scan.
    tables: Vec<(usize, usize)>,
    /// `None` for a sequential scan.
    band: Option<Band>,
    decoder: Decoder,
    /// Statistics by table.
    dc: Vec<[u8; 64]>,
    ac: Vec<[u8; 256]>,
    even: u8,
    means: [i32; 4],
    contexts: [usize; 4],
    /// True if the data of the interval are damaged.
    failed: bool,
}

/// The code register of the decoder.
#[derive(Default)]
struct Decoder {
    code: u32,
    interval: u32,
    /// Shifts until the next byte; negative before the first two bytes.
    shifts: i32,
}

impl Decoder {
    fn new() -> Self {
        Decoder { code: 0, interval: 0, shifts: -16 }
    }

    /// Returns the next decision. `state` has the more probable symbol in its top bit and an index
    /// of [`STATES`] in the others.
    fn decide(&mut self, stream: &mut Stream, state: &mut u8) -> bool {
        while self.interval < 0x8000 {
            self.shifts -= 1;
            if self.shifts < 0 {
                self.code = self.code << 8 | u32::from(Self::byte(stream));
                self.shifts += 8;
                if self.shifts < 0 {
                    self.shifts += 1;
                    if self.shifts == 0 {
                        self.interval = 0x8000;
                    }
                }
            }
            self.interval <<= 1;
        }
        let (size, less, more, exchange) = STATES[usize::from(*state & 0x7F)];
        let (size, likely) = (u32::from(size), *state & 0x80);
        let after_less = (likely ^ exchange << 7) | less;
        let after_more = likely | more;
        self.interval -= size;
        let bound = self.interval << self.shifts;
        let (taken, next) = if self.code >= bound {
            self.code -= bound;
            let swapped = self.interval < size;
            self.interval = size;
            if swapped { (likely, after_more) } else { (likely ^ 0x80, after_less) }
        } else if self.interval >= 0x8000 {
            (likely, *state)
        } else if self.interval < size {
            (likely ^ 0x80, after_less)
        } else {
            (likely, after_more)
        };
        *state = next;
        taken != 0
    }

    /// Returns the next byte, or 0 past a marker.
    fn byte(stream: &mut Stream) -> u8 {
        if stream.marker != 0 {
            return 0;
        }
        let mut byte = stream.byte();
        if byte == Some(0xFF) {
            while byte == Some(0xFF) {
                byte = stream.byte();
            }
            match byte {
                Some(0) => return 0xFF,
                Some(marker) => {
                    stream.marker = marker;
                    return 0;
                }
                None => {}
            }
        }
        byte.unwrap_or_else(|| {
            stream.marker = crate::jpeg::stream::END_OF_IMAGE;
            0
        })
    }
}

/// Damaged data: a number is too large, or a block has too many coefficients.
struct Overflow;

impl Arithmetic {
    pub fn new(conditioning: Conditioning, tables: Vec<(usize, usize)>, band: Option<Band>) -> Self {
        Arithmetic {
            conditioning,
            tables,
            band,
            decoder: Decoder::new(),
            dc: vec![[0; 64]; 16],
            ac: vec![[0; 256]; 16],
            even: 113,
            means: [0; 4],
            contexts: [0; 4],
            failed: false,
        }
    }

    fn even(&mut self, stream: &mut Stream) -> bool {
        self.decoder.decide(stream, &mut self.even)
    }

    /// Reads the bits of a magnitude below its highest bit, `most`.
    fn magnitude(decoder: &mut Decoder, stream: &mut Stream, most: i32, state: &mut u8) -> i32 {
        let (mut value, mut bit) = (most, most >> 1);
        while bit > 0 {
            if decoder.decide(stream, state) {
                value |= bit;
            }
            bit >>= 1;
        }
        value
    }

    /// Doubles `most` while decisions are true, with statistics from index `at`. Returns the
    /// result and the final index.
    fn category<const N: usize>(
        decoder: &mut Decoder,
        stream: &mut Stream,
        states: &mut [u8; N],
        mut at: usize,
        mut most: i32,
    ) -> Result<(i32, usize), Overflow> {
        while decoder.decide(stream, &mut states[at]) {
            most <<= 1;
            if most == 0x8000 {
                return Err(Overflow);
            }
            at += 1;
        }
        Ok((most, at))
    }

    fn mean(&mut self, stream: &mut Stream, member: usize) -> Result<i32, Overflow> {
        let table = self.tables[member].0;
        let (decoder, states) = (&mut self.decoder, &mut self.dc[table]);
        let at = self.contexts[member];
        if !decoder.decide(stream, &mut states[at]) {
            self.contexts[member] = 0;
            return Ok(self.means[member]);
        }
        let negative = decoder.decide(stream, &mut states[at + 1]);
        let mut at = at + 2 + usize::from(negative);
        let mut most = i32::from(decoder.decide(stream, &mut states[at]));
        if most != 0 {
            (most, at) = Self::category(decoder, stream, states, 20, most)?;
        }
        let bound = |bits: u8| (1 << bits) >> 1;
        let side = usize::from(negative) * 4;
        self.contexts[member] = if most < bound(self.conditioning.lower[table]) {
            0
        } else if most > bound(self.conditioning.upper[table]) {
            12 + side
        } else {
            4 + side
        };
        let value = Self::magnitude(decoder, stream, most, &mut states[at + 14]) + 1;
        self.means[member] = (self.means[member] + if negative { -value } else { value }) & 0xFFFF;
        Ok(self.means[member])
    }

    fn coefficients(
        &mut self,
        stream: &mut Stream,
        member: usize,
        band: Band,
        block: &mut [i16; 64],
    ) -> Result<(), Overflow> {
        let table = self.tables[member].1;
        let mut k = band.first;
        while k <= band.last {
            let mut at = 3 * (k - 1);
            if self.decoder.decide(stream, &mut self.ac[table][at]) {
                break;
            }
            while !self.decoder.decide(stream, &mut self.ac[table][at + 1]) {
                at += 3;
                k += 1;
                if k > band.last {
                    return Err(Overflow);
                }
            }
            let negative = self.even(stream);
            let (decoder, states) = (&mut self.decoder, &mut self.ac[table]);
            at += 2;
            let mut most = i32::from(decoder.decide(stream, &mut states[at]));
            if most != 0 && decoder.decide(stream, &mut states[at]) {
                let from = if k <= usize::from(self.conditioning.low[table]) { 189 } else { 217 };
                (most, at) = Self::category(decoder, stream, states, from, 2)?;
            }
            let value = Self::magnitude(decoder, stream, most, &mut states[at + 14]) + 1;
            block[place(k)] = ((if negative { -value } else { value }) << band.low) as i16;
            k += 1;
        }
        Ok(())
    }

    fn next_bit(&mut self, stream: &mut Stream, band: Band, block: &mut [i16; 64]) -> Result<(), Overflow> {
        let table = self.tables[0].1;
        let bit = 1i16 << band.low;
        let end = (1..=band.last).rev().find(|&k| block[place(k)] != 0).unwrap_or(0);
        let mut k = band.first;
        while k <= band.last {
            let mut at = 3 * (k - 1);
            if k > end && self.decoder.decide(stream, &mut self.ac[table][at]) {
                break;
            }
            loop {
                let coefficient = &mut block[place(k)];
                if *coefficient != 0 {
                    if self.decoder.decide(stream, &mut self.ac[table][at + 2]) {
                        *coefficient = coefficient.wrapping_add(if *coefficient < 0 { -bit } else { bit });
                    }
                    break;
                }
                if self.decoder.decide(stream, &mut self.ac[table][at + 1]) {
                    *coefficient = if self.even(stream) { -bit } else { bit };
                    break;
                }
                at += 3;
                k += 1;
                if k > band.last {
                    return Err(Overflow);
                }
            }
            k += 1;
        }
        Ok(())
    }

    fn read(&mut self, stream: &mut Stream, member: usize, block: &mut [i16; 64]) -> Result<(), Overflow> {
        match self.band {
            None => {
                block[0] = self.mean(stream, member)? as i16;
                self.coefficients(stream, member, Band { first: 1, last: 63, high: 0, low: 0 }, block)
            }
            Some(Band { first: 0, high: 0, low, .. }) => {
                block[0] = (self.mean(stream, member)? << low) as i16;
                Ok(())
            }
            Some(Band { first: 0, low, .. }) => {
                if self.even(stream) {
                    block[0] |= 1 << low;
                }
                Ok(())
            }
            Some(band) if band.high == 0 => self.coefficients(stream, member, band, block),
            Some(band) => self.next_bit(stream, band, block),
        }
    }
}

impl Entropy for Arithmetic {
    fn restart(&mut self) {
        // A scan only changes the statistics that it uses, so all can be reset.
        self.dc.fill([0; 64]);
        self.ac.fill([0; 256]);
        (self.means, self.contexts, self.failed) = ([0; 4], [0; 4], false);
        self.decoder = Decoder::new();
    }

    fn is_over(&self, _: &Stream) -> bool {
        self.failed
    }

    fn block(&mut self, stream: &mut Stream, member: usize, block: &mut [i16; 64]) {
        if !self.failed {
            self.failed = self.read(stream, member, block).is_err();
        }
    }
}
