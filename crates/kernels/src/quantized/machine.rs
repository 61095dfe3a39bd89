//! Vectors of 32-bit integers with the instructions of 8-bit networks, selected at run time.

use crate::cpu::simd;

/// A set of instructions for which loops are compiled. A value of this type proves that the CPU has
/// them.
pub trait Machine: Copy {
    /// The widest register.
    type Vector: Vector;
    /// The instructions for real numbers.
    type Real: simd::Machine;
    /// Number of rows in a tile of a matrix multiplication, a multiple of 4.
    const ROWS: usize;
    /// Number of vectors in a tile.
    const VECTORS: usize;
}

/// A vector register of 32-bit integers.
///
/// The functions that create a vector are unsafe: the CPU must have the vector's instructions,
/// which a value of its [`Machine`] proves. A vector is therefore a proof, too.
pub trait Vector: Copy {
    /// Number of integers.
    const WIDTH: usize;
    /// Number of values that [`dot`](Self::dot) multiplies in each lane: four of 8 bits, or two of
    /// 16 bits.
    const FACTORS: usize;

    /// Returns a vector with the same integer in all lanes.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn splat(value: i32) -> Self;

    /// # Safety
    /// The CPU must have the instructions, and `4 * WIDTH` bytes must exist.
    unsafe fn load(from: *const u8) -> Self;

    /// Loads the first `count` integers; the rest is zero.
    ///
    /// # Safety
    /// The CPU must have the instructions, and `4 * count` bytes must exist, at most `4 * WIDTH`.
    unsafe fn load_first(from: *const u8, count: usize) -> Self;

    /// # Safety
    /// There must be room for `4 * count` bytes, at most `4 * WIDTH`.
    unsafe fn store_first(self, to: *mut u8, count: usize);

    /// Stores the low bytes of the first `count` integers.
    ///
    /// # Safety
    /// There must be room for `count` bytes, at most `WIDTH`.
    unsafe fn store_bytes(self, to: *mut u8, count: usize);

    /// Stores the low bytes of four vectors, `apart` bytes from each other. The integers must be
    /// from 0 to 255.
    ///
    /// # Safety
    /// There must be room for `WIDTH` bytes at each place.
    #[inline(always)]
    unsafe fn store_four(vectors: [Self; 4], to: *mut u8, apart: usize) {
        for (i, vector) in vectors.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { vector.store_bytes(to.add(i * apart), Self::WIDTH) };
        }
    }

    /// Extends 16 values to 16 bits.
    ///
    /// # Safety
    /// The CPU must have the instructions, 16 bytes must exist, and room for as many numbers.
    #[inline(always)]
    unsafe fn extend(from: *const u8, to: *mut u16) {
        for i in 0..16 {
            // SAFETY: the caller's promise.
            unsafe { to.add(i).write_unaligned(u16::from(*from.add(i))) };
        }
    }

    /// Adds the products of [`FACTORS`](Self::FACTORS) values without sign and weights with sign in
    /// each lane.
    fn dot(self, values: Self, weights: Self) -> Self;

    /// Returns a part of four 8-bit values per lane, as [`dot`](Self::dot) takes them.
    fn part(self, index: usize) -> Self;

    /// Multiplies by the lane's multiplier, limits the result, rounds it to the nearest integer
    /// with ties to even, and adds `zero`.
    ///
    /// # Safety
    /// `WIDTH` multipliers must exist.
    unsafe fn requantize(self, multipliers: *const f32, limits: [f32; 2], zero: i32) -> Self;

    /// Joins the low bytes of four vectors in each lane. All other bytes must be zero.
    fn join(parts: [Self; 4]) -> Self;

    /// Applies a function to each integer with its lane.
    fn map(self, function: impl Fn(usize, i32) -> i32) -> Self;
}

/// Returns the bytes of one lane's weights for [`Vector::dot`].
pub fn pack_lane<V: Vector>(weight: impl Fn(usize) -> i8) -> [i8; 4] {
    std::array::from_fn(|byte| match V::FACTORS {
        4 => weight(byte),
        _ => i16::from(weight(byte / 2)).to_ne_bytes()[byte % 2] as i8,
    })
}

/// The baseline instructions of the architecture.
#[derive(Clone, Copy)]
pub struct Portable;
/// x86-64 with AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2(());
/// x86-64 with AVX2 and AVX-VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct AvxVnni(());
/// x86-64 with AVX-512 and AVX512-VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512Vnni(());

impl Machine for Portable {
    type Vector = [i32; 4];
    type Real = simd::Portable;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx2 {
    type Vector = x86::Eight;
    type Real = simd::Avx2;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;
}

#[cfg(target_arch = "x86_64")]
impl Machine for AvxVnni {
    type Vector = x86::EightVnni;
    type Real = simd::Avx2;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx512Vnni {
    type Vector = x86::SixteenVnni;
    type Real = simd::Avx512;
    const ROWS: usize = 8;
    const VECTORS: usize = 2;
}

/// A loop over 8-bit numbers that is compiled for several instruction sets.
///
/// Implementations mark `run` as `#[inline(always)]`: only then is the body compiled with the
/// instructions of its caller.
pub trait Loop {
    /// The result of the loop.
    type Output;

    /// Runs the loop with the instructions of `machine`.
    fn run<M: Machine>(self, machine: M) -> Self::Output;
}

/// Runs `body` with the widest instructions of the CPU that [`simd::run`] would use, too.
pub fn run<L: Loop>(body: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        // SAFETY: the machine proves that the CPU has the features.
        Instructions::Avx512Vnni(machine) => return unsafe { run_avx512_vnni(body, machine) },
        // SAFETY: as above.
        Instructions::AvxVnni(machine) => return unsafe { run_avx_vnni(body, machine) },
        // SAFETY: as above.
        Instructions::Avx2(machine) => return unsafe { run_avx2(body, machine) },
        Instructions::Portable => {}
    }
    body.run(Portable)
}

/// Returns the name of the instruction set that [`run`] chooses, for users.
pub fn name() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        Instructions::Avx512Vnni(_) => return "AVX-512 with VNNI",
        Instructions::AvxVnni(_) => return "AVX-VNNI",
        Instructions::Avx2(_) => return "AVX2",
        Instructions::Portable => {}
    }
    "portable"
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
enum Instructions {
    Portable,
    Avx2(Avx2),
    AvxVnni(AvxVnni),
    Avx512Vnni(Avx512Vnni),
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Instructions {
    static CHOICE: std::sync::OnceLock<Instructions> = std::sync::OnceLock::new();
    *CHOICE.get_or_init(|| {
        let limit = match std::env::var("MBCONV_CPU").as_deref() {
            Ok("portable") => 0,
            Ok("avx2") => 1,
            _ => 2,
        };
        let wide = simd::Avx512::detect().is_some() && is_x86_feature_detected!("avx512vnni");
        let narrow = simd::Avx2::detect().is_some();
        if limit >= 2 && wide {
            Instructions::Avx512Vnni(Avx512Vnni(()))
        } else if limit >= 2 && narrow && is_x86_feature_detected!("avxvnni") {
            Instructions::AvxVnni(AvxVnni(()))
        } else if limit >= 1 && narrow {
            Instructions::Avx2(Avx2(()))
        } else {
            Instructions::Portable
        }
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<L: Loop>(body: L, machine: Avx2) -> L::Output {
    body.run(machine)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma")]
fn run_avx_vnni<L: Loop>(body: L, machine: AvxVnni) -> L::Output {
    body.run(machine)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512vnni,avx512f,avx512vl,avx2,fma")]
fn run_avx512_vnni<L: Loop>(body: L, machine: Avx512Vnni) -> L::Output {
    body.run(machine)
}

/// Rounds to an integer with ties to even, for numbers of less than 22 bits.
#[inline(always)]
pub fn round(number: f32) -> i32 {
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    (number + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i32
}

impl Vector for [i32; 4] {
    const WIDTH: usize = 4;
    const FACTORS: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const u8, count: usize) -> Self {
        let mut integers = [0i32; 4];
        // SAFETY: the caller's promise.
        unsafe { integers.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from, 4 * count) };
        integers
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { to.copy_from_nonoverlapping(self.as_ptr().cast(), 4 * count) };
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, count: usize) {
        let bytes = self.map(|integer| integer as u8);
        // SAFETY: the caller's promise.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), count) };
    }

    #[inline(always)]
    fn dot(self, values: Self, weights: Self) -> Self {
        std::array::from_fn(|lane| {
            let products = values[lane].to_ne_bytes().into_iter().zip(weights[lane].to_ne_bytes());
            products.fold(self[lane], |sum, (value, weight)| sum + i32::from(value) * i32::from(weight as i8))
        })
    }

    #[inline(always)]
    fn part(self, _: usize) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn requantize(self, multipliers: *const f32, [low, high]: [f32; 2], zero: i32) -> Self {
        std::array::from_fn(|lane| {
            // SAFETY: the caller's promise.
            let multiplier = unsafe { *multipliers.add(lane) };
            round((self[lane] as f32 * multiplier).clamp(low, high)) + zero
        })
    }

    #[inline(always)]
    fn join(parts: [Self; 4]) -> Self {
        std::array::from_fn(|lane| i32::from_ne_bytes(parts.map(|part| part[lane] as u8)))
    }

    #[inline(always)]
    fn map(self, function: impl Fn(usize, i32) -> i32) -> Self {
        std::array::from_fn(|lane| function(lane, self[lane]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// Lanes selected by the sign: eight selected ones, then eight others.
    static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    /// Returns the mask of the first `count` of eight lanes.
    ///
    /// # Safety
    /// The CPU must have AVX.
    #[inline(always)]
    unsafe fn first(count: usize) -> __m256i {
        assert!(count <= 8);
        // SAFETY: the caller's promise; loads eight integers, starting at one of the first nine.
        unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()) }
    }

    /// Defines a vector of eight lanes by its instructions for products.
    macro_rules! eight {
        ($(#[$doc:meta])* $name:ident, $factors:literal, dot: $dot:expr, part: $part:expr) => {
            $(#[$doc])*
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            pub struct $name(__m256i);

            // SAFETY: the callers of the unsafe functions promise the instructions and the memory.
            // The other functions take a vector, which only those functions create. An array has
            // the size of a vector, and any bits are a valid value.
            #[allow(clippy::undocumented_unsafe_blocks, unused_unsafe)]
            impl crate::quantized::machine::Vector for $name {
                const WIDTH: usize = 8;
                const FACTORS: usize = $factors;

                #[inline(always)]
                unsafe fn splat(value: i32) -> Self {
                    Self(unsafe { _mm256_set1_epi32(value) })
                }

                #[inline(always)]
                unsafe fn load(from: *const u8) -> Self {
                    Self(unsafe { _mm256_loadu_si256(from.cast()) })
                }

                #[inline(always)]
                unsafe fn load_first(from: *const u8, count: usize) -> Self {
                    Self(unsafe { _mm256_maskload_epi32(from.cast(), first(count)) })
                }

                #[inline(always)]
                unsafe fn store_first(self, to: *mut u8, count: usize) {
                    unsafe {
                        match count {
                            8 => _mm256_storeu_si256(to.cast(), self.0),
                            _ => _mm256_maskstore_epi32(to.cast(), first(count), self.0),
                        }
                    }
                }

                #[inline(always)]
                unsafe fn store_bytes(self, to: *mut u8, count: usize) {
                    unsafe {
                        // The low bytes of each half, in its first four bytes.
                        let low = _mm256_set1_epi32(0x0C08_0400);
                        let halves = _mm256_shuffle_epi8(self.0, low);
                        let bytes = _mm_unpacklo_epi32(
                            _mm256_castsi256_si128(halves),
                            _mm256_extracti128_si256::<1>(halves),
                        );
                        match count {
                            8 => _mm_storel_epi64(to.cast(), bytes),
                            _ => {
                                let bytes: [u8; 16] = transmute(bytes);
                                to.copy_from_nonoverlapping(bytes.as_ptr(), count);
                            }
                        }
                    }
                }

                #[inline(always)]
                unsafe fn store_four([a, b, c, d]: [Self; 4], to: *mut u8, apart: usize) {
                    unsafe {
                        let pairs = [_mm256_packs_epi32(a.0, b.0), _mm256_packs_epi32(c.0, d.0)];
                        // Four bytes of each vector in the first half, the others in the second.
                        let halves = _mm256_packus_epi16(pairs[0], pairs[1]);
                        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                        let bytes: [u64; 4] = transmute(_mm256_permutevar8x32_epi32(halves, order));
                        for (i, bytes) in bytes.iter().enumerate() {
                            to.add(i * apart).cast::<u64>().write_unaligned(*bytes);
                        }
                    }
                }

                #[inline(always)]
                unsafe fn extend(from: *const u8, to: *mut u16) {
                    unsafe { _mm256_storeu_si256(to.cast(), _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()))) };
                }

                #[inline(always)]
                fn dot(self, values: Self, weights: Self) -> Self {
                    Self(unsafe { $dot(self.0, values.0, weights.0) })
                }

                #[inline(always)]
                fn part(self, index: usize) -> Self {
                    Self(unsafe { $part(self.0, index) })
                }

                #[inline(always)]
                unsafe fn requantize(self, multipliers: *const f32, [low, high]: [f32; 2], zero: i32) -> Self {
                    unsafe {
                        let steps = _mm256_mul_ps(_mm256_cvtepi32_ps(self.0), _mm256_loadu_ps(multipliers));
                        let steps = _mm256_min_ps(_mm256_max_ps(steps, _mm256_set1_ps(low)), _mm256_set1_ps(high));
                        Self(_mm256_add_epi32(_mm256_cvtps_epi32(steps), _mm256_set1_epi32(zero)))
                    }
                }

                #[inline(always)]
                fn join([a, b, c, d]: [Self; 4]) -> Self {
                    unsafe {
                        let low = _mm256_or_si256(a.0, _mm256_slli_epi32::<8>(b.0));
                        let high = _mm256_or_si256(_mm256_slli_epi32::<16>(c.0), _mm256_slli_epi32::<24>(d.0));
                        Self(_mm256_or_si256(low, high))
                    }
                }

                #[inline(always)]
                fn map(self, function: impl Fn(usize, i32) -> i32) -> Self {
                    let mut integers = unsafe { transmute::<__m256i, [i32; 8]>(self.0) };
                    integers.iter_mut().enumerate().for_each(|(lane, integer)| *integer = function(lane, *integer));
                    Self(unsafe { transmute::<[i32; 8], __m256i>(integers) })
                }
            }
        };
    }

    eight!(
        /// AVX2, which adds products of 8-bit numbers only with saturation to 16 bits.
        Eight, 2,
        dot: |sums, values, weights| _mm256_add_epi32(sums, _mm256_madd_epi16(values, weights)),
        part: |values, index: usize| {
            // Two bytes of each lane, each followed by a zero.
            let two = if index == 0 { 0x8001_8000_u32 } else { 0x8003_8002 } as i32;
            let lanes = _mm_add_epi32(_mm_set1_epi32(two), _mm_setr_epi32(0, 0x4_0004, 0x8_0008, 0xC_000C));
            _mm256_shuffle_epi8(values, _mm256_broadcastsi128_si256(lanes))
        }
    );
    eight!(
        /// AVX2 with AVX-VNNI.
        EightVnni, 4,
        dot: |sums, values, weights| _mm256_dpbusd_avx_epi32(sums, values, weights),
        part: |values, _| values
    );

    /// AVX-512 with AVX512-VNNI.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub struct SixteenVnni(__m512i);

    /// Returns the mask of the first `count` of sixteen lanes.
    #[inline(always)]
    fn first_of_sixteen(count: usize) -> __mmask16 {
        ((1u32 << count) - 1) as u16
    }

    // SAFETY: as for eight lanes.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl crate::quantized::machine::Vector for SixteenVnni {
        const WIDTH: usize = 16;
        const FACTORS: usize = 4;

        #[inline(always)]
        unsafe fn splat(value: i32) -> Self {
            Self(unsafe { _mm512_set1_epi32(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const u8) -> Self {
            Self(unsafe { _mm512_loadu_si512(from.cast()) })
        }

        #[inline(always)]
        unsafe fn load_first(from: *const u8, count: usize) -> Self {
            Self(unsafe { _mm512_maskz_loadu_epi32(first_of_sixteen(count), from.cast()) })
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut u8, count: usize) {
            unsafe { _mm512_mask_storeu_epi32(to.cast(), first_of_sixteen(count), self.0) }
        }

        #[inline(always)]
        unsafe fn store_bytes(self, to: *mut u8, count: usize) {
            unsafe {
                match count {
                    16 => _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(self.0)),
                    _ => _mm512_mask_cvtepi32_storeu_epi8(to.cast(), first_of_sixteen(count), self.0),
                }
            }
        }

        #[inline(always)]
        fn dot(self, values: Self, weights: Self) -> Self {
            Self(unsafe { _mm512_dpbusd_epi32(self.0, values.0, weights.0) })
        }

        #[inline(always)]
        fn part(self, _: usize) -> Self {
            self
        }

        #[inline(always)]
        unsafe fn requantize(self, multipliers: *const f32, [low, high]: [f32; 2], zero: i32) -> Self {
            unsafe {
                let steps = _mm512_mul_ps(_mm512_cvtepi32_ps(self.0), _mm512_loadu_ps(multipliers));
                let steps = _mm512_min_ps(_mm512_max_ps(steps, _mm512_set1_ps(low)), _mm512_set1_ps(high));
                Self(_mm512_add_epi32(_mm512_cvtps_epi32(steps), _mm512_set1_epi32(zero)))
            }
        }

        #[inline(always)]
        fn join([a, b, c, d]: [Self; 4]) -> Self {
            unsafe {
                let low = _mm512_or_si512(a.0, _mm512_slli_epi32::<8>(b.0));
                let high = _mm512_or_si512(_mm512_slli_epi32::<16>(c.0), _mm512_slli_epi32::<24>(d.0));
                Self(_mm512_or_si512(low, high))
            }
        }

        #[inline(always)]
        fn map(self, function: impl Fn(usize, i32) -> i32) -> Self {
            let mut integers = unsafe { transmute::<__m512i, [i32; 16]>(self.0) };
            integers.iter_mut().enumerate().for_each(|(lane, integer)| *integer = function(lane, *integer));
            Self(unsafe { transmute::<[i32; 16], __m512i>(integers) })
        }
    }
}
