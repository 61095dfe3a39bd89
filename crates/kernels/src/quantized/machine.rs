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
    /// True if sums of four products saturate unless the weights of each pair add up to ±128 at
    /// most.
    const SATURATES: bool;
    /// Number of bytes of one channel's weights for four pixels in a depthwise convolution.
    const QUAD: usize;
}

/// A vector register of 32-bit integers.
///
/// The functions that create a vector are unsafe: the CPU must have the vector's instructions,
/// which a value of its [`Machine`] proves. A vector is therefore a proof, too.
pub trait Vector: Copy {
    /// Number of integers.
    const WIDTH: usize;
    /// Four values per lane, prepared for [`dot_quad`](Self::dot_quad).
    type Quad: Copy;

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

    /// Adds the products of four values without sign and four weights with sign in each lane.
    fn dot(self, values: Self, weights: Self) -> Self;

    /// Prepares values for [`dot_quad`](Self::dot_quad).
    fn quad(self) -> Self::Quad;

    /// Adds the products of four values and four weights in each lane, exactly for any weights.
    ///
    /// # Safety
    /// [`Machine::QUAD`] bytes per lane must exist, as packed by [`pack_quads`].
    unsafe fn dot_quad(self, values: Self::Quad, weights: *const u8) -> Self;

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

/// Packs the weights of four pixels for one lane into [`Machine::QUAD`] bytes per lane: either as
/// they are, or as 16-bit numbers, those of the even pixels of all lanes before those of the odd.
pub fn pack_quads<M: Machine>(weights: &[[i8; 4]], to: &mut [i8]) {
    let width = M::Vector::WIDTH;
    for (lane, quad) in weights.iter().enumerate() {
        if M::QUAD == 4 {
            to[4 * lane..][..4].copy_from_slice(quad);
            continue;
        }
        for (half, pair) in [[quad[0], quad[2]], [quad[1], quad[3]]].into_iter().enumerate() {
            let bytes = pair.map(|weight| i16::from(weight).to_ne_bytes());
            let bytes = [bytes[0][0], bytes[0][1], bytes[1][0], bytes[1][1]].map(|byte| byte as i8);
            to[4 * (half * width + lane)..][..4].copy_from_slice(&bytes);
        }
    }
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
    const SATURATES: bool = false;
    const QUAD: usize = 4;
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx2 {
    type Vector = x86::Eight;
    type Real = simd::Avx2;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;
    const SATURATES: bool = true;
    const QUAD: usize = 8;
}

#[cfg(target_arch = "x86_64")]
impl Machine for AvxVnni {
    type Vector = x86::EightVnni;
    type Real = simd::Avx2;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;
    const SATURATES: bool = false;
    const QUAD: usize = 4;
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx512Vnni {
    type Vector = x86::SixteenVnni;
    type Real = simd::Avx512;
    const ROWS: usize = 8;
    const VECTORS: usize = 2;
    const SATURATES: bool = false;
    const QUAD: usize = 4;
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
    type Quad = Self;

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
    fn quad(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn dot_quad(self, values: Self, weights: *const u8) -> Self {
        // SAFETY: the caller's promise.
        self.dot(values, unsafe { Self::load(weights) })
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
        ($(#[$doc:meta])* $name:ident, $quad:ty, dot: $dot:expr, quad: $prepare:expr, dot_quad: $dot_quad:expr) => {
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
                type Quad = $quad;

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
                fn dot(self, values: Self, weights: Self) -> Self {
                    Self(unsafe { $dot(self.0, values.0, weights.0) })
                }

                #[inline(always)]
                fn quad(self) -> $quad {
                    unsafe { $prepare(self.0) }
                }

                #[inline(always)]
                unsafe fn dot_quad(self, values: $quad, weights: *const u8) -> Self {
                    Self(unsafe { $dot_quad(self.0, values, weights) })
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
        /// AVX2. Products of 8-bit numbers are added in pairs with 16 bits.
        Eight, [__m256i; 2],
        dot: |sums, values, weights| {
            let pairs = _mm256_maddubs_epi16(values, weights);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        },
        quad: |values| [_mm256_and_si256(values, _mm256_set1_epi16(0xFF)), _mm256_srli_epi16::<8>(values)],
        dot_quad: |sums, [even, odd]: [__m256i; 2], weights: *const u8| {
            let [even_weights, odd_weights] = [0, 32].map(|at| _mm256_loadu_si256(weights.add(at).cast()));
            let sums = _mm256_add_epi32(sums, _mm256_madd_epi16(even, even_weights));
            _mm256_add_epi32(sums, _mm256_madd_epi16(odd, odd_weights))
        }
    );
    eight!(
        /// AVX2 with AVX-VNNI.
        EightVnni, __m256i,
        dot: |sums, values, weights| _mm256_dpbusd_avx_epi32(sums, values, weights),
        quad: |values| values,
        dot_quad: |sums, values, weights: *const u8| {
            _mm256_dpbusd_avx_epi32(sums, values, _mm256_loadu_si256(weights.cast()))
        }
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
        type Quad = Self;

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
        fn quad(self) -> Self {
            self
        }

        #[inline(always)]
        unsafe fn dot_quad(self, values: Self, weights: *const u8) -> Self {
            self.dot(values, unsafe { Self::load(weights) })
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
