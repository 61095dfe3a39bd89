//! Huffman-coded blocks, sequential and progressive, as read by libjpeg's `jdhuff.c` and
//! `jdphuff.c`.

use crate::jpeg::huffman::ZIGZAG;
use crate::jpeg::stream::{Codes, Stream};

/// Decoder for the blocks of a scan.
pub(crate) trait Entropy {
    /// Starts a restart interval.
    fn restart(&mut self);

    /// Returns whether the rest of the interval does not change any block.
    fn is_over(&self, stream: &Stream) -> bool;

    /// Reads a block of the scan's component `member`.
    fn block(&mut self, stream: &mut Stream, member: usize, block: &mut [i16; 64]);
}

/// The coefficients and bits contained in a scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Band {
    /// First and last coefficient in zigzag order.
    pub first: usize,
    pub last: usize,
    /// Point transforms: bit position of the previous scan, 0 if there was none, and of this one.
    pub high: u32,
    pub low: u32,
}

/// Returns the position of coefficient `k`, clamped because damaged data may exceed the last.
#[inline(always)]
pub(crate) fn place(k: usize) -> usize {
    usize::from(ZIGZAG[k.min(63)])
}

/// Decoder for sequential scans.
pub(crate) struct Sequential {
    /// Tables for each component of the scan.
    pub dc: Vec<Codes>,
    pub ac: Vec<Codes>,
    pub means: [i32; 4],
}

impl Entropy for Sequential {
    fn restart(&mut self) {
        self.means = [0; 4];
    }

    fn is_over(&self, stream: &Stream) -> bool {
        stream.insufficient
    }

    #[inline(always)]
    fn block(&mut self, stream: &mut Stream, member: usize, block: &mut [i16; 64]) {
        // A local copy stays in registers.
        let mut bits = *stream;
        let (kept, stream) = (stream, &mut bits);
        let size = stream.symbol(&self.dc[member]);
        self.means[member] = self.means[member].wrapping_add(stream.signed(size.into()));
        block[0] = self.means[member] as i16;
        let codes = &self.ac[member];
        let mut k = 1;
        while k < 64 {
            let symbol = stream.symbol(codes);
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                k += run;
                block[place(k)] = stream.signed(size) as i16;
            } else if run == 15 {
                k += 15;
            } else {
                break;
            }
            k += 1;
        }
        *kept = *stream;
    }
}

/// Decoder for progressive scans.
pub(crate) struct Progressive {
    pub band: Band,
    /// Table for each component of the scan; empty for refinement of DC coefficients.
    pub codes: Vec<Codes>,
    pub means: [i32; 4],
    /// Number of blocks without new coefficients, including the current one.
    pub blank: u32,
}

impl Entropy for Progressive {
    fn restart(&mut self) {
        (self.means, self.blank) = ([0; 4], 0);
    }

    fn is_over(&self, stream: &Stream) -> bool {
        stream.insufficient
    }

    #[inline(always)]
    fn block(&mut self, stream: &mut Stream, member: usize, block: &mut [i16; 64]) {
        let Band { first, high, low, .. } = self.band;
        match (first, high) {
            (0, 0) => {
                let size = stream.symbol(&self.codes[member]);
                self.means[member] = self.means[member].wrapping_add(stream.signed(size.into()));
                block[0] = (self.means[member] << low) as i16;
            }
            (0, _) => block[0] |= (stream.number(1) << low) as i16,
            (_, 0) => self.first_bits(stream, block),
            _ => self.next_bit(stream, block),
        }
    }
}

impl Progressive {
    /// Reads the number of blocks in an end-of-band run.
    #[inline(always)]
    fn end_of_band(stream: &mut Stream, run: usize) -> u32 {
        (1 << run) + stream.number(run as u32) as u32
    }

    #[inline(always)]
    fn first_bits(&mut self, stream: &mut Stream, block: &mut [i16; 64]) {
        if self.blank > 0 {
            self.blank -= 1;
            return;
        }
        let codes = &self.codes[0];
        // A local copy stays in registers.
        let mut bits = *stream;
        let (kept, stream) = (stream, &mut bits);
        let mut k = self.band.first;
        while k <= self.band.last {
            let symbol = stream.symbol(codes);
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                k += run;
                block[place(k)] = (stream.signed(size) << self.band.low) as i16;
            } else if run == 15 {
                k += 15;
            } else {
                self.blank = Self::end_of_band(stream, run) - 1;
                break;
            }
            k += 1;
        }
        *kept = *stream;
    }

    #[inline(always)]
    fn next_bit(&mut self, stream: &mut Stream, block: &mut [i16; 64]) {
        let Band { first, last, low, .. } = self.band;
        let bit = 1i16 << low;
        // Refines a nonzero coefficient by one bit.
        let correct = |stream: &mut Stream, coefficient: &mut i16| {
            if stream.number(1) == 1 && *coefficient & bit == 0 {
                *coefficient = coefficient.wrapping_add(if *coefficient >= 0 { bit } else { -bit });
            }
        };
        // A local copy stays in registers.
        let mut bits = *stream;
        let (kept, stream) = (stream, &mut bits);
        let mut k = first;
        if self.blank == 0 {
            while k <= last {
                let symbol = stream.symbol(&self.codes[0]);
                let (mut run, size) = (usize::from(symbol >> 4), symbol & 15);
                let mut new = 0;
                if size > 0 {
                    new = if stream.number(1) == 1 { bit } else { -bit };
                } else if run != 15 {
                    self.blank = Self::end_of_band(stream, run);
                    break;
                }
                // Advance past `run` zeros, refining nonzero coefficients.
                while k <= last {
                    let coefficient = &mut block[place(k)];
                    if *coefficient != 0 {
                        correct(stream, coefficient);
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    k += 1;
                }
                if new != 0 {
                    block[place(k)] = new;
                }
                k += 1;
            }
        }
        if self.blank > 0 {
            for k in k..=last {
                let coefficient = &mut block[place(k)];
                if *coefficient != 0 {
                    correct(stream, coefficient);
                }
            }
            self.blank -= 1;
        }
        *kept = *stream;
    }
}
