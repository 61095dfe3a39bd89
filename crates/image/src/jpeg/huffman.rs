//! Huffman codes and the bits of a scan.
// Loops by index over arrays of equal length are vectorized. Iterator closures would be compiled as
// separate functions for the baseline processor.
#![allow(clippy::needless_range_loop)]

/// Bits of the first lookup of a Huffman code. Most codes fit, often together with their number.
pub(crate) const LOOKUP: u32 = 10;

/// Flag of an entry: the number follows; the upper half of the entry is its number of bits.
pub(crate) const NUMBER_FOLLOWS: u32 = 0x80;
/// Flag of an entry: the code is longer than the lookup.
pub(crate) const LONG: u32 = 0x40;
/// Run value of the end-of-block code.
pub(crate) const END_OF_BLOCK: usize = 127;

/// Position in the row-major block of each coefficient in zigzag order.
#[rustfmt::skip]
pub(crate) const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Copies the scan without stuffed zero bytes and without restart markers; `ends` receives the end
/// of each restart interval.
///
/// Returns `None` if the scan is not followed by the end-of-image marker.
#[inline(always)]
pub(crate) fn unstuff(scan: &[u8], data: &mut Vec<u8>, ends: &mut Vec<usize>) -> Option<()> {
    const STEP: usize = 32;
    data.clear();
    ends.clear();
    data.reserve(scan.len() + 64);
    let mut rest = scan;
    loop {
        // Copy whole steps without 0xFF.
        while let Some(step) = rest.first_chunk::<STEP>() {
            let mut found = 0;
            for &byte in step {
                found |= u8::from(byte == 0xFF);
            }
            if found > 0 {
                break;
            }
            data.extend_from_slice(step);
            rest = &rest[STEP..];
        }
        let plain = rest.iter().position(|&byte| byte == 0xFF)?;
        data.extend_from_slice(&rest[..plain]);
        rest = &rest[plain + 1..];
        match *rest.first()? {
            0x00 => data.push(0xFF),
            marker @ 0xD0..=0xD7 if usize::from(marker & 7) == ends.len() % 8 => ends.push(data.len()),
            // A fill byte; the next byte belongs to a marker.
            0xFF => continue,
            0xD9 => {
                ends.push(data.len());
                // Padding, because codes are read ahead.
                data.extend([0; 16]);
                return Some(());
            }
            _ => return None,
        }
        rest = &rest[1..];
    }
}

/// A Huffman table.
pub(crate) struct Huffman {
    /// Indexed by the next [`LOOKUP`] bits: length of the code, including the number if it fits;
    /// the run of zeros before; the number or its length.
    entries: Box<[u32; 1 << LOOKUP]>,
    /// For each length, the upper bound of its codes, left-aligned in 16 bits, and the offset from
    /// code to symbol index.
    limits: [u32; 17],
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Huffman {
    /// Builds a table from the number of codes of each length and their symbols. Returns `None` for
    /// invalid tables.
    pub(crate) fn new(lengths: &[u8; 16], symbols: &[u8], runs: bool) -> Option<Self> {
        let mut table =
            Huffman { entries: Box::new([LONG; 1 << LOOKUP]), limits: [0; 17], offsets: [0; 17], symbols: [0; 256] };
        table.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        // A number has at most 10 bits, a DC difference 11, so that a refill is enough for two
        // codes with numbers.
        let most = if runs { 10 } else { 11 };
        if symbols.iter().any(|symbol| if runs { symbol & 15 > most } else { *symbol > most }) {
            return None;
        }
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..=16).zip(lengths) {
            let count = usize::from(count);
            table.offsets[length as usize] = index as i32 - code as i32;
            for &symbol in &symbols[index..index + count] {
                // The all-ones code is reserved.
                if code + 1 >= 1 << length {
                    return None;
                }
                if length <= LOOKUP {
                    table.enter(code, length, symbol, runs);
                }
                code += 1;
            }
            index += count;
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// Returns the run of zeros and the number's length encoded by a symbol.
    #[inline(always)]
    pub(crate) fn meaning(symbol: u8, runs: bool) -> (u32, u32) {
        match symbol {
            _ if !runs => (0, symbol.into()),
            0xF0 => (15, 0),
            // Encoders only write run 0, but libjpeg accepts any run as end of block.
            _ if symbol & 15 == 0 => (END_OF_BLOCK as u32, 0),
            _ => (u32::from(symbol >> 4), u32::from(symbol & 15)),
        }
    }

    /// Enters a code at all lookup indices that begin with it.
    pub(crate) fn enter(&mut self, code: u32, length: u32, symbol: u8, runs: bool) {
        let (run, size) = Self::meaning(symbol, runs);
        let spare = LOOKUP - length;
        let places = &mut self.entries[(code << spare) as usize..][..1 << spare];
        if size > spare {
            places.fill(size << 16 | run << 8 | NUMBER_FOLLOWS | (length + size));
            return;
        }
        for (follows, place) in places.iter_mut().enumerate() {
            let number = number(follows as u64 >> (spare - size), size);
            *place = (number as u32) << 16 | run << 8 | (length + size);
        }
    }

    /// Returns the symbol and length of a code longer than the lookup, or `None` for an invalid
    /// code.
    #[cold]
    pub(crate) fn long(&self, bits: u64) -> Option<(u8, u32)> {
        let code = (bits >> 48) as u32;
        let length = (LOOKUP + 1..=16).find(|&length| code < self.limits[length as usize])?;
        let index = (code >> (16 - length)) as i32 + self.offsets[length as usize];
        Some((self.symbols[index as usize & 255], length))
    }
}

/// Decodes a JPEG number of `size` bits; the lower half of the range encodes negative numbers.
#[inline(always)]
pub(crate) fn number(bits: u64, size: u32) -> i32 {
    let bits = bits as i32;
    if size > 0 && bits >> (size - 1) == 0 { bits - (1 << size) + 1 } else { bits }
}

/// Bit reader of the scan.
pub(crate) struct Bits<'a> {
    data: &'a [u8],
    /// Index of the next byte to load.
    at: usize,
    /// Buffered bits, the next one topmost.
    bits: u64,
    /// Number of valid bits in the buffer.
    count: u32,
    /// True if all codes so far were valid.
    sound: bool,
}

impl<'a> Bits<'a> {
    /// Creates a reader of data from byte `at`.
    #[inline(always)]
    pub(crate) fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at, bits: 0, count: 0, sound: true }
    }

    /// Returns whether all codes were valid and within `end`.
    #[inline(always)]
    pub(crate) fn ended_at(&self, end: usize) -> bool {
        self.sound && self.at - (self.count / 8) as usize <= end
    }

    /// Refills the buffer to at least 56 bits, with zeros past the end.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        let word =
            self.data.get(self.at..).and_then(|rest| rest.first_chunk()).map_or(0, |&word| u64::from_be_bytes(word));
        self.bits |= word >> self.count;
        self.at += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
    }

    #[inline(always)]
    pub(crate) fn consume(&mut self, count: u32) {
        self.bits <<= count;
        self.count -= count;
    }

    /// Returns run and number of the next code.
    #[inline(always)]
    pub(crate) fn code(&mut self, table: &Huffman, runs: bool) -> (usize, i32) {
        let entry = table.entries[(self.bits >> (64 - LOOKUP)) as usize];
        if entry & (LONG | NUMBER_FOLLOWS) == 0 {
            self.consume(entry & 0x3F);
            return ((entry >> 8 & 0xFF) as usize, entry as i32 >> 16);
        }
        let (run, size, length) = if entry & LONG == 0 {
            (entry >> 8 & 0xFF, entry >> 16, (entry & 0x3F) - (entry >> 16))
        } else {
            let (symbol, length) = table.long(self.bits).unwrap_or_else(|| {
                self.sound = false;
                (0, 16)
            });
            let (run, size) = Huffman::meaning(symbol, runs);
            (run, size, length)
        };
        self.consume(length);
        let value = number((self.bits >> 32) >> (32 - size), size);
        self.consume(size);
        (run as usize, value)
    }

    /// Reads a block's coefficients; returns the zigzag index of the last one.
    #[inline(always)]
    pub(crate) fn block(
        &mut self,
        dc: &Huffman,
        ac: &Huffman,
        mean: &mut i32,
        coefficients: &mut [i16; 64],
    ) -> Option<usize> {
        let mut bits = Bits { ..*self };
        bits.refill();
        *mean = mean.wrapping_add(bits.code(dc, false).1);
        coefficients[0] = *mean as i16;
        let (mut place, mut last) = (1, 0);
        // The DC code used one of the two codes that a refill allows.
        let mut spare = true;
        let sound = loop {
            if !spare {
                bits.refill();
            }
            spare = !spare;
            let (run, value) = bits.code(ac, true);
            place += run;
            if place > 63 {
                break run == END_OF_BLOCK;
            }
            coefficients[usize::from(ZIGZAG[place])] = value as i16;
            last = place;
            place += 1;
            if place == 64 {
                break true;
            }
        };
        *self = bits;
        sound.then_some(last)
    }

    /// Skips a block, updating the DC prediction.
    #[inline(always)]
    pub(crate) fn skip(&mut self, dc: &Huffman, ac: &Huffman, mean: &mut i32) -> Option<()> {
        let mut bits = Bits { ..*self };
        bits.refill();
        *mean = mean.wrapping_add(bits.code(dc, false).1);
        let mut place = 1;
        let mut spare = true;
        let sound = loop {
            if !spare {
                bits.refill();
            }
            spare = !spare;
            let entry = ac.entries[(bits.bits >> (64 - LOOKUP)) as usize];
            let run = if entry & LONG == 0 {
                bits.consume(entry & 0x3F);
                (entry >> 8 & 0xFF) as usize
            } else {
                bits.code(ac, true).0
            };
            place += run + 1;
            if place > 63 {
                break place == 64 || run == END_OF_BLOCK;
            }
        };
        *self = bits;
        sound.then_some(())
    }
}
