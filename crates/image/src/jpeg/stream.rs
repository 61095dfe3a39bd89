//! Byte and bit reader for JPEG files with libjpeg's handling of markers, restarts and damage.

/// End-of-image marker, also returned at the end of the file.
pub(crate) const END_OF_IMAGE: u8 = 0xD9;

/// Number of bits of the Huffman lookup.
const LOOKUP: u32 = 9;

/// A file and a read position.
#[derive(Clone, Copy)]
pub(crate) struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The marker at which the bits ended, or 0.
    pub marker: u8,
    /// Buffered bits, the next one topmost, followed by zeros.
    bits: u64,
    /// Number of valid bits in the buffer.
    count: u32,
    /// Number of the next restart marker.
    restart: u8,
    /// True if bits were read past the marker.
    pub insufficient: bool,
    /// True if the file ended too early.
    pub truncated: bool,
}

impl<'a> Stream<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Stream { bytes, at: 0, marker: 0, bits: 0, count: 0, restart: 0, insufficient: false, truncated: false }
    }

    /// Returns the file from the position on.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Advances past the next marker and returns it.
    pub fn next_marker(&mut self) -> u8 {
        if self.marker == 0 {
            loop {
                while self.byte().is_some_and(|byte| byte != 0xFF) {}
                let mut byte = self.byte();
                while byte == Some(0xFF) {
                    byte = self.byte();
                }
                match byte {
                    Some(0) => continue,
                    Some(marker) => self.marker = marker,
                    None => self.marker = END_OF_IMAGE,
                }
                break;
            }
        }
        self.marker
    }

    /// Reads the segment at the position and returns its content.
    pub fn segment(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let &[high, low, ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let content = rest.get(2..length)?;
        self.at += length;
        Some(content)
    }

    /// Starts a scan.
    pub fn begin(&mut self) {
        (self.marker, self.bits, self.count, self.restart, self.insufficient) = (0, 0, 0, 0, false);
    }

    /// Returns the next byte, or `None` past the end of the file, which sets `truncated`.
    #[inline(always)]
    pub fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        self.truncated |= byte.is_none();
        byte
    }

    /// Fills the buffer to at least 56 bits, or up to a marker.
    #[inline(always)]
    fn fill(&mut self) {
        if let Some(&word) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk())
            && self.marker == 0
        {
            let word = u64::from_be_bytes(word);
            // Check that no byte is 0xFF.
            let inverted = !word;
            if inverted.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 == 0 {
                let taken = (63 - self.count) / 8;
                self.count += 8 * taken;
                // Bits after the valid ones must be zero.
                self.bits |= (word >> (self.count - 8 * taken)) & !(u64::MAX >> self.count);
                self.at += taken as usize;
                return;
            }
        }
        *self = self.fill_with_care();
    }

    /// Fills the buffer like [`fill`](Self::fill) near 0xFF bytes or the end of the file.
    #[cold]
    #[inline(never)]
    fn fill_with_care(mut self) -> Self {
        while self.count <= 56 && self.marker == 0 {
            let mut byte = self.byte();
            if byte == Some(0xFF) {
                while byte == Some(0xFF) {
                    byte = self.byte();
                }
                match byte {
                    Some(0) => byte = Some(0xFF),
                    Some(marker) => self.marker = marker,
                    None => {}
                }
            }
            match byte {
                Some(byte) if self.marker == 0 => {
                    self.bits |= u64::from(byte) << (56 - self.count);
                    self.count += 8;
                }
                Some(_) => {}
                None => self.marker = END_OF_IMAGE,
            }
        }
        self
    }

    #[inline(always)]
    fn consume(&mut self, count: u32) {
        if count > self.count {
            self.insufficient = true;
            self.count = 57;
        }
        self.bits <<= count;
        self.count -= count;
    }

    /// Reads a number of `count` bits, at most 16.
    #[inline(always)]
    pub fn number(&mut self, count: u32) -> i32 {
        if self.count < count {
            self.fill();
        }
        let number = (self.bits >> 32 >> (32 - count)) as i32;
        self.consume(count);
        number
    }

    /// Reads a signed number of `size` bits; the lower half of the range encodes negative numbers.
    #[inline(always)]
    pub fn signed(&mut self, size: u32) -> i32 {
        let number = self.number(size);
        if size > 0 && number >> (size - 1) == 0 { number - (1 << size) + 1 } else { number }
    }

    /// Reads the symbol of the next Huffman code; invalid codes give 0.
    #[inline(always)]
    pub fn symbol(&mut self, codes: &Codes) -> u8 {
        if self.count < 32 {
            self.fill();
        }
        let entry = codes.lookup[(self.bits >> (64 - LOOKUP)) as usize];
        let (length, symbol) =
            if entry != 0 { (u32::from(entry >> 8), entry as u8) } else { codes.long((self.bits >> 48) as u32) };
        self.consume(length);
        symbol
    }

    /// Skips the expected restart marker, or resynchronizes like `jpeg_resync_to_restart`.
    pub fn pass_restart(&mut self) {
        (self.bits, self.count) = (0, 0);
        let due = self.restart;
        let near = |by: u8| 0xD0 + (due.wrapping_add(by) & 7);
        let mut found = self.next_marker();
        if found == near(0) {
            self.marker = 0;
        } else {
            while !self.truncated {
                if found < 0xC0 || found == near(7) || found == near(6) {
                    // Damage, or an earlier restart: advance to the next marker.
                    self.marker = 0;
                    found = self.next_marker();
                } else if !(0xD0..=0xD7).contains(&found) || found == near(1) || found == near(2) {
                    // The data of this interval are missing.
                    break;
                } else {
                    self.marker = 0;
                    break;
                }
            }
        }
        self.restart = (due + 1) & 7;
        self.insufficient &= self.marker != 0;
    }

    /// Returns whether this scan cannot have further data.
    pub fn is_exhausted(&self, restarts: bool) -> bool {
        // Restart markers, and damage that looks like a marker, can be skipped.
        let final_marker = self.marker >= 0xC0 && !(0xD0..=0xD7).contains(&self.marker);
        self.truncated || self.insufficient && (!restarts || final_marker)
    }

    /// Advances to the end of the image; returns false if the file ends before it.
    pub fn reaches_end(&mut self) -> bool {
        loop {
            let marker = self.next_marker();
            self.marker = 0;
            match marker {
                END_OF_IMAGE => return !self.truncated,
                0x01 | 0xD0..=0xD8 => {}
                _ => drop(self.segment()),
            }
        }
    }
}

/// A Huffman table.
pub(crate) struct Codes {
    /// Indexed by the next bits: length and symbol, or 0 for a longer code.
    lookup: [u16; 1 << LOOKUP],
    /// For each length, the upper bound of its codes, left-aligned in 16 bits.
    limits: [u32; 17],
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Codes {
    /// Builds a table from the number of codes of each length and their symbols. Returns `None` if
    /// they are not a prefix code.
    pub fn new(lengths: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut codes = Codes { lookup: [0; 1 << LOOKUP], limits: [0; 17], offsets: [0; 17], symbols: [0; 256] };
        codes.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..=16).zip(lengths) {
            codes.offsets[length as usize] = index as i32 - code as i32;
            for &symbol in symbols.get(index..index + usize::from(count))? {
                // The all-ones code is reserved.
                if code + 1 >= 1 << length {
                    return None;
                }
                if length <= LOOKUP {
                    let spare = LOOKUP - length;
                    codes.lookup[(code << spare) as usize..][..1 << spare]
                        .fill((length as u16) << 8 | u16::from(symbol));
                }
                code += 1;
            }
            index += usize::from(count);
            codes.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(codes)
    }

    /// Returns length and symbol of a code longer than the lookup.
    #[cold]
    fn long(&self, bits: u32) -> (u32, u8) {
        match (LOOKUP + 1..=16).find(|&length| bits < self.limits[length as usize]) {
            Some(length) => {
                let index = (bits >> (16 - length)) as i32 + self.offsets[length as usize];
                (length, self.symbols[index as usize & 255])
            }
            None => (17, 0),
        }
    }
}
