//! Loops compiled for every machine of the architecture and for wider instructions, selected at run
//! time.

/// A set of instructions for which loops are compiled. A value of this type proves that the CPU has
/// them: values of sets beyond the architecture's baseline are only created by their `detect`.
pub trait Machine: Copy {
    /// The widest register.
    type Vector: Vector;
    /// Whether a fused multiply-add is a single instruction.
    const FMA: bool;
    /// Number of columns in a tile of a matrix multiplication: whole vectors, at least two.
    const LANES: usize;
    /// Number of rows in a tile: few enough to leave registers for the operands, and enough to hide
    /// the latency of an addition.
    const ROWS: usize;

    /// Rounds `count` values to bf16 and stores them in pairs, with the first value of a pair in
    /// the low half: `count / 2` elements, and for an odd `count` one more whose other half is
    /// zero.
    ///
    /// # Safety
    /// The CPU must have the instructions, the values must exist, and there must be room for the
    /// pairs.
    #[inline(always)]
    unsafe fn pair(from: *const f32, count: usize, to: *mut f32) {
        for pair in 0..count / 2 {
            // SAFETY: the caller's promise.
            unsafe { *to.add(pair) = pair_of(*from.add(2 * pair), *from.add(2 * pair + 1)) };
        }
        if count % 2 == 1 {
            // SAFETY: as above.
            unsafe { *to.add(count / 2) = pair_of(*from.add(count - 1), 0.0) };
        }
    }

    /// Returns `sums + a₀ * b₀ + a₁ * b₁`, where each 32-bit element of `a` and `b` is a pair of
    /// bf16 values.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    #[inline(always)]
    unsafe fn add_pair_products(sums: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let low = |pairs: Self::Vector| pairs.map(|pair| f32::from_bits(pair.to_bits() << 16));
        let high = |pairs: Self::Vector| pairs.map(|pair| f32::from_bits(pair.to_bits() & 0xFFFF_0000));
        sums.add_product(low(a), low(b)).add_product(high(a), high(b))
    }
}

/// Rounds two values to bf16, to nearest with ties to even; NaN stays NaN.
#[inline(always)]
pub fn pair_of(low: f32, high: f32) -> f32 {
    let round = |value: f32| {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
        if value.is_nan() { bits >> 16 | 0x40 } else { rounded }
    };
    f32::from_bits(round(low) | round(high) << 16)
}

/// The baseline instructions of the architecture.
#[derive(Clone, Copy)]
pub struct Portable;
/// x86-64 with AVX2 and FMA: 16 registers of 8 values.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2(());
/// x86-64 with AVX-512: 32 registers of 16 values.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512(());
/// AVX-512 with bf16 multiplication.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512Bf16(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Returns a value if the CPU has the instructions.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// Returns a value if the CPU has the instructions.
    pub fn detect() -> Option<Self> {
        let Avx2(()) = Avx2::detect()?;
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")).then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    /// Returns a value if the CPU has the instructions.
    pub fn detect() -> Option<Self> {
        let Avx512(()) = Avx512::detect()?;
        is_x86_feature_detected!("avx512bf16").then_some(Self(()))
    }
}

impl Machine for Portable {
    #[cfg(target_arch = "x86_64")]
    type Vector = x86::Four;
    #[cfg(target_arch = "aarch64")]
    type Vector = neon::Four;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    type Vector = [f32; 4];
    // Every 64-bit Arm CPU has 32 vector registers of 4 values, and fused multiply-add.
    const FMA: bool = cfg!(target_arch = "aarch64");
    const LANES: usize = 16;
    const ROWS: usize = if Self::FMA { 6 } else { 2 };
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx2 {
    type Vector = x86::Eight;
    const FMA: bool = true;
    const LANES: usize = 16;
    const ROWS: usize = 6;
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx512 {
    type Vector = x86::Sixteen;
    const FMA: bool = true;
    const LANES: usize = 32;
    const ROWS: usize = 12;
}

/// A vector register of f32 values, for loops that the compiler would not vectorize, or not well.
///
/// The functions that create a vector are unsafe: the CPU must have the vector's instructions,
/// which a value of its [`Machine`] proves. A vector is therefore a proof, too, and arithmetic with
/// vectors is safe.
pub trait Vector: Copy {
    /// Number of values.
    const WIDTH: usize;

    /// Returns a vector with the same value in all lanes.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// The CPU must have the instructions, and `WIDTH` values must exist.
    unsafe fn load(from: *const f32) -> Self;

    /// Loads the first `count` values; the rest is zero.
    ///
    /// # Safety
    /// The CPU must have the instructions, and `count` values must exist, at most `WIDTH`.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;

    /// # Safety
    /// There must be room for `WIDTH` values.
    unsafe fn store(self, to: *mut f32);

    /// # Safety
    /// There must be room for `count` values, at most `WIDTH`.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// Returns `self + other`.
    fn add(self, other: Self) -> Self;

    /// Returns `a * b + self`.
    fn add_product(self, a: Self, b: Self) -> Self;

    /// Applies a function to each value.
    fn map(self, function: impl Fn(f32) -> f32) -> Self;
}

/// Defines a [`Vector`] by the instructions of its operations. Only its own functions create one:
/// the field is private to the module.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! vector {
    (
        $(#[$doc:meta])* $name:ident, $vector:ty, $width:literal,
        splat: $splat:expr, load: $load:expr, load_first: $load_first:expr, store: $store:expr,
        store_first: $store_first:expr, add: $add:expr, add_product: $add_product:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub struct $name($vector);

        // SAFETY: the callers of the unsafe functions promise the instructions and the memory. The
        // other functions take a vector, which only those functions create. An array of values has
        // the size of a vector, and any bits are a valid value.
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl super::Vector for $name {
            const WIDTH: usize = $width;

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                Self(unsafe { $load(from) })
            }

            #[inline(always)]
            unsafe fn load_first(from: *const f32, count: usize) -> Self {
                Self(unsafe { $load_first(from, count) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { $store(to, self.0) }
            }

            #[inline(always)]
            unsafe fn store_first(self, to: *mut f32, count: usize) {
                unsafe { $store_first(self.0, to, count) }
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                Self(unsafe { $add(self.0, other.0) })
            }

            #[inline(always)]
            fn add_product(self, a: Self, b: Self) -> Self {
                Self(unsafe { $add_product(self.0, a.0, b.0) })
            }

            #[inline(always)]
            fn map(self, function: impl Fn(f32) -> f32) -> Self {
                let mut numbers = unsafe { std::mem::transmute::<$vector, [f32; $width]>(self.0) };
                numbers.iter_mut().for_each(|number| *number = function(*number));
                Self(unsafe { std::mem::transmute::<[f32; $width], $vector>(numbers) })
            }
        }
    };
}

/// Loads the first `count` of four values; the rest is zero.
///
/// # Safety
/// The values must exist, at most four.
#[inline(always)]
unsafe fn some_of_four(from: *const f32, count: usize) -> [f32; 4] {
    let mut numbers = [0.0; 4];
    debug_assert!(count <= numbers.len());
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, numbers.as_mut_ptr(), count) };
    numbers
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::{mem::transmute, ptr::copy_nonoverlapping};

    use super::some_of_four;

    /// A mask that selects by the sign: eight selected values, then eight others.
    static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    /// Returns the mask of the first `count` of eight values.
    ///
    /// # Safety
    /// The CPU must have AVX.
    #[inline(always)]
    unsafe fn first(count: usize) -> __m256i {
        assert!(count <= 8);
        // SAFETY: the caller's promise; loads eight values, starting at one of the first nine.
        unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()) }
    }

    vector!(
        /// SSE, which every x86-64 CPU has.
        Four, __m128, 4,
        splat: _mm_set1_ps,
        load: _mm_loadu_ps,
        load_first: |from, count| _mm_loadu_ps(some_of_four(from, count).as_ptr()),
        store: _mm_storeu_ps,
        store_first: |vector: __m128, to, count| copy_nonoverlapping((&raw const vector).cast(), to, count),
        add: _mm_add_ps,
        add_product: |sum, a, b| _mm_add_ps(_mm_mul_ps(a, b), sum)
    );
    vector!(
        /// AVX2 with FMA.
        Eight, __m256, 8,
        splat: _mm256_set1_ps,
        load: _mm256_loadu_ps,
        load_first: |from, count| _mm256_maskload_ps(from, first(count)),
        store: _mm256_storeu_ps,
        store_first: |vector, to, count| _mm256_maskstore_ps(to, first(count), vector),
        add: _mm256_add_ps,
        add_product: |sum, a, b| _mm256_fmadd_ps(a, b, sum)
    );
    vector!(
        /// AVX-512.
        Sixteen, __m512, 16,
        splat: _mm512_set1_ps,
        load: _mm512_loadu_ps,
        load_first: |from, count| _mm512_maskz_loadu_ps(((1u32 << count) - 1) as u16, from),
        store: _mm512_storeu_ps,
        store_first: |vector, to, count| _mm512_mask_storeu_ps(to, ((1u32 << count) - 1) as u16, vector),
        add: _mm512_add_ps,
        add_product: |sum, a, b| _mm512_fmadd_ps(a, b, sum)
    );

    impl Sixteen {
        /// Rounds both vectors to bf16; `self` comes first.
        ///
        /// # Safety
        /// The CPU must have AVX512-BF16.
        #[inline(always)]
        pub unsafe fn paired_with(self, other: Self) -> Self {
            // SAFETY: the caller's promise; a vector and a vector of pairs have the same size.
            Self(unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(other.0, self.0)) })
        }

        /// Implements [`super::Machine::add_pair_products`].
        ///
        /// # Safety
        /// The CPU must have AVX512-BF16.
        #[inline(always)]
        pub unsafe fn add_pair_products(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe {
                let [a, b] = [a, b].map(|pairs| transmute::<__m512, __m512bh>(pairs.0));
                _mm512_dpbf16_ps(self.0, a, b)
            })
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;
    use std::ptr::copy_nonoverlapping;

    use super::some_of_four;

    vector!(
        /// NEON, which every 64-bit Arm CPU has.
        Four, float32x4_t, 4,
        splat: vdupq_n_f32,
        load: vld1q_f32,
        load_first: |from, count| vld1q_f32(some_of_four(from, count).as_ptr()),
        store: vst1q_f32,
        store_first: |vector: float32x4_t, to, count| copy_nonoverlapping((&raw const vector).cast(), to, count),
        add: vaddq_f32,
        add_product: vfmaq_f32
    );
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl Vector for [f32; 4] {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array has the alignment of its elements.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { some_of_four(from, count) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(self.as_ptr(), to, count) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|lane| multiply_add::<Portable>(a[lane], b[lane], self[lane]))
    }

    #[inline(always)]
    fn map(self, function: impl Fn(f32) -> f32) -> Self {
        self.map(function)
    }
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx512Bf16 {
    type Vector = <Avx512 as Machine>::Vector;
    const FMA: bool = Avx512::FMA;
    const LANES: usize = Avx512::LANES;
    const ROWS: usize = Avx512::ROWS;

    #[inline(always)]
    unsafe fn pair(from: *const f32, count: usize, to: *mut f32) {
        for start in (0..count).step_by(32) {
            let counts = [(count - start).min(16), (count - start).saturating_sub(16).min(16)];
            // SAFETY: the caller's promise.
            unsafe {
                let [low, high] = [0, 1].map(|half| match counts[half] {
                    0 => Self::Vector::splat(0.0),
                    count => Self::Vector::load_first(from.add(start + 16 * half), count),
                });
                low.paired_with(high).store_first(to.add(start / 2), (counts[0] + counts[1]).div_ceil(2));
            }
        }
    }

    #[inline(always)]
    unsafe fn add_pair_products(sums: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe { sums.add_pair_products(a, b) }
    }
}

/// A loop over slices that is compiled for several instruction sets.
///
/// Implementations mark `run` as `#[inline(always)]`: only then is the body compiled with the
/// instructions of its caller.
pub trait Loop {
    /// The result of the loop.
    type Output;

    /// Runs the loop with the instructions of `machine`.
    fn run<M: Machine>(self, machine: M) -> Self::Output;
}

/// Runs `body` with the widest instructions of the CPU, and treats denormal numbers as zero. On
/// most CPUs, arithmetic with a denormal number takes a hundred times as long, and vanishing
/// activations produce many of them.
pub fn run<L: Loop>(body: L) -> L::Output {
    let _flushed = FlushDenormals::new();
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        Instructions::Avx512(machine) | Instructions::Avx512Bf16(machine, _) => {
            // SAFETY: `machine` proves that the CPU has the features.
            return unsafe { run_avx512(body, machine) };
        }
        // SAFETY: as above.
        Instructions::Avx2(machine) => return unsafe { run_avx2(body, machine) },
        Instructions::Portable => {}
    }
    body.run(Portable)
}

/// Runs a loop over pairs of bf16 values, with bf16 instructions if available, else as [`run`].
pub fn run_paired<L: Loop>(body: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    if let Instructions::Avx512Bf16(_, machine) = instructions() {
        let _flushed = FlushDenormals::new();
        // SAFETY: `machine` proves that the CPU has the features.
        return unsafe { run_avx512_bf16(body, machine) };
    }
    run(body)
}

/// Returns whether the CPU has instructions for bf16 multiplication.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(instructions(), Instructions::Avx512Bf16(..));
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Returns [`Machine::LANES`] of the machine that [`run`] and [`run_paired`] choose.
pub fn lanes() -> usize {
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        Instructions::Avx512(_) | Instructions::Avx512Bf16(..) => return Avx512::LANES,
        Instructions::Avx2(_) => return Avx2::LANES,
        Instructions::Portable => {}
    }
    Portable::LANES
}

/// Returns the name of the instruction set that [`run`] and [`run_paired`] choose, for users.
pub fn name() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        Instructions::Avx512(_) => return "AVX-512",
        Instructions::Avx512Bf16(..) => return "AVX-512 with bf16",
        Instructions::Avx2(_) => return "AVX2 and FMA",
        Instructions::Portable => {}
    }
    if cfg!(target_arch = "aarch64") { "NEON" } else { "portable" }
}

/// The machine on which loops run.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
enum Instructions {
    Portable,
    Avx2(Avx2),
    Avx512(Avx512),
    /// Only loops over pairs use the second machine.
    Avx512Bf16(Avx512, Avx512Bf16),
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Instructions {
    static CHOICE: std::sync::OnceLock<Instructions> = std::sync::OnceLock::new();
    *CHOICE.get_or_init(|| {
        // For comparisons, and for CPUs that lower their clock under wide vectors.
        let limit = match std::env::var("MBCONV_CPU").as_deref() {
            Ok("portable") => 0,
            Ok("avx2") => 1,
            Ok("avx512") => 2,
            _ => 3,
        };
        match (Avx2::detect(), Avx512::detect(), Avx512Bf16::detect()) {
            (_, Some(wide), Some(paired)) if limit >= 3 => Instructions::Avx512Bf16(wide, paired),
            (_, Some(wide), _) if limit >= 2 => Instructions::Avx512(wide),
            (Some(machine), ..) if limit >= 1 => Instructions::Avx2(machine),
            _ => Instructions::Portable,
        }
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<L: Loop>(body: L, machine: Avx2) -> L::Output {
    body.run(machine)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn run_avx512<L: Loop>(body: L, machine: Avx512) -> L::Output {
    body.run(machine)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f,avx512vl,avx2,fma")]
fn run_avx512_bf16<L: Loop>(body: L, machine: Avx512Bf16) -> L::Output {
    body.run(machine)
}

/// Makes this thread treat denormal numbers as zero until it is dropped.
struct FlushDenormals {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    before: u32,
}

impl FlushDenormals {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn new() -> Self {
        /// Treats denormal operands as zero, and flushes denormal results to zero.
        const FLUSH: u32 = 1 << 6 | 1 << 15;
        let mut before = 0u32;
        // SAFETY: every x86-64 CPU has the register, and `before` has room for its 32 bits.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut before, options(nostack, preserves_flags)) };
        Self::set(before | FLUSH);
        Self { before }
    }

    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    fn new() -> Self {
        Self {}
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn set(value: u32) {
        // SAFETY: only the two bits above ever change, and the previous value is restored when
        // `self` is dropped, also if the loop panics. Rust assumes these bits to be clear when it
        // evaluates constants, so a loop's result may depend on the compiler if a number is
        // denormal. No index or address depends on such numbers.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        Self::set(self.before);
    }
}

/// Returns `a * b + c`.
#[inline(always)]
pub fn multiply_add<M: Machine>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction, `mul_add` is a library call.
    if M::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Returns `1 / (1 + exp(-x))` with a relative error below 3e-7; below -87 the result stays near
/// 1e-38.
#[inline(always)]
pub fn sigmoid<M: Machine>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<M>(-x))
}

/// Returns `exp(x)` for x within ±87 with a relative error below 2e-7; beyond, x is clamped.
/// Branch-free, so that a loop over it is vectorized.
#[inline(always)]
pub fn exp<M: Machine>(x: f32) -> f32 {
    const BOUND: f32 = 87.0;
    // Adding and subtracting 1.5 * 2^23 rounds to an integer, which is then in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    // ln 2 in two parts, the first of which has few bits and is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // exp(r) for |r| < ln 2 / 2 with an error of 5e-9, from the highest power down; the last two
    // are 1.
    const POLYNOMIAL: [f32; 7] = [1.394_645_8e-3, 8.369_159e-3, 4.166_626e-2, 1.666_651_7e-1, 0.5, 1.0, 1.0];

    let x = x.clamp(-BOUND, BOUND);
    let shifted = multiply_add::<M>(x, std::f32::consts::LOG2_E, ROUNDER);
    let power = shifted - ROUNDER;
    let r = multiply_add::<M>(power, -LN2_HIGH, x);
    let r = multiply_add::<M>(power, -LN2_LOW, r);
    let mut p = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        p = multiply_add::<M>(p, r, *coefficient);
    }
    // Add the integer in the low bits to the exponent; ROUNDER's own low bits are zero.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sigmoids(Vec<f32>);

    impl Loop for Sigmoids {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<M: Machine>(self, _: M) -> Vec<f32> {
            self.0.iter().map(|&x| sigmoid::<M>(x)).collect()
        }
    }

    #[test]
    fn sigmoid_matches_double_precision() {
        let points: Vec<f32> = (-86_000..=86_000).map(|i| i as f32 * 1e-3).collect();
        for (path, values) in [run(Sigmoids(points.clone())), Sigmoids(points.clone()).run(Portable)].iter().enumerate()
        {
            for (x, y) in points.iter().zip(values) {
                let exact = 1.0 / (1.0 + (-f64::from(*x)).exp());
                let error = (f64::from(*y) - exact).abs() / exact;
                assert!(error < 3e-7, "path {path}: sigmoid({x}) = {y}, not {exact}: relative error {error:e}");
            }
        }
    }

    struct PairProducts<'a>(&'a [f32], &'a [f32]);

    impl Loop for PairProducts<'_> {
        /// All pairs of the first slice, and the sum of all products.
        type Output = (Vec<u32>, f32);

        #[inline(always)]
        fn run<M: Machine>(self, _: M) -> Self::Output {
            let count = self.0.len().div_ceil(2);
            let (mut left, mut right) = (vec![f32::NAN; count], vec![f32::NAN; count]);
            let width = M::Vector::WIDTH;
            let mut lanes = vec![0.0; width];
            // SAFETY: the machine argument proves the instructions, there is room for `count` pairs
            // and for a vector, and `valid` pairs exist.
            unsafe {
                M::pair(self.0.as_ptr(), self.0.len(), left.as_mut_ptr());
                M::pair(self.1.as_ptr(), self.1.len(), right.as_mut_ptr());
                let mut sums = M::Vector::splat(0.0);
                for start in (0..count).step_by(width) {
                    let valid = width.min(count - start);
                    let [a, b] = [&left, &right].map(|pairs| M::Vector::load_first(pairs.as_ptr().add(start), valid));
                    sums = M::add_pair_products(sums, a, b);
                }
                sums.store(lanes.as_mut_ptr());
            }
            (left.iter().map(|pair| pair.to_bits()).collect(), lanes.iter().sum())
        }
    }

    #[test]
    fn bf16_pairs_round_to_even_and_multiply_exactly() {
        // With 8 bits of precision: exact; ties to even, down and up; just above a tie; large;
        // negative.
        let values = [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0 + 1.01 / 256.0, 3e38, -0.3, f32::INFINITY];
        let expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F62, 0xBE9A, 0x7F80];
        let expected: Vec<u32> = expected.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 16).collect();
        for (path, (pairs, _)) in
            [run_paired(PairProducts(&values, &values)), PairProducts(&values, &values).run(Portable)]
                .iter()
                .enumerate()
        {
            assert_eq!(pairs, &expected, "path {path}: {pairs:x?}");
        }
        assert!(f32::from_bits(pair_of(0.0, f32::NAN).to_bits() & 0xFFFF_0000).is_nan());
        // These products and sums are exact in any order.
        for count in [1, 2, 3, 15, 16, 31, 32, 33, 64, 65, 101] {
            let values: Vec<f32> = (0..count).map(|i| (i % 7) as f32 - 3.0).collect();
            let others: Vec<f32> = (0..count).map(|i| (i % 5) as f32 - 2.0).collect();
            let exact: f32 = values.iter().zip(&others).map(|(a, b)| a * b).sum();
            for (_, sum) in [run_paired(PairProducts(&values, &others)), PairProducts(&values, &others).run(Portable)] {
                assert_eq!(sum, exact, "{count} numbers");
            }
        }
    }

    #[test]
    fn sigmoid_saturates_without_overflow() {
        for (x, bounds) in
            [(1e30, 1.0..=1.0), (f32::INFINITY, 1.0..=1.0), (-1e30, 0.0..=1e-37), (f32::NEG_INFINITY, 0.0..=1e-37)]
        {
            assert!(bounds.contains(&run(Sigmoids(vec![x]))[0]), "sigmoid({x})");
        }
    }
}
