//! Loops compiled once for any machine and once for the widest instructions this one has.

/// An instruction set that loops are compiled for. A value of it proves that the processor has the
/// instructions: those beyond the architecture's baseline are only created by their `detect`.
pub trait Machine: Copy {
    /// The widest register.
    type Vector: Vector;
    /// Whether a fused multiply-add is a single instruction.
    const FMA: bool;
    /// Columns of a matrix product's tile: whole vectors, at least two.
    const LANES: usize;
    /// Its rows: as many as leave registers for the operands, and enough to hide the latency of an addition.
    const ROWS: usize;

    /// Rounds `count` numbers to bf16 and lays them in pairs, the first of a pair in the low half: `count / 2` elements, and one more
    /// if there is an odd one, whose other half is zero.
    ///
    /// # Safety
    /// The processor must have the instructions, the numbers must be there, and room for the pairs.
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

    /// `sums + a₀ * b₀ + a₁ * b₁` of numbers in bf16 that stand in pairs where one number of 32 bits would.
    ///
    /// # Safety
    /// The processor must have the instructions.
    #[inline(always)]
    unsafe fn add_pair_products(sums: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let low = |pairs: Self::Vector| pairs.map(|pair| f32::from_bits(pair.to_bits() << 16));
        let high = |pairs: Self::Vector| pairs.map(|pair| f32::from_bits(pair.to_bits() & 0xFFFF_0000));
        sums.add_product(low(a), low(b)).add_product(high(a), high(b))
    }
}

/// Two numbers in bf16, each the nearest one, the even one of two as near; NaN stays NaN.
#[inline(always)]
pub fn pair_of(low: f32, high: f32) -> f32 {
    let round = |value: f32| {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
        if value.is_nan() { bits >> 16 | 0x40 } else { rounded }
    };
    f32::from_bits(round(low) | round(high) << 16)
}

/// What every processor of the architecture has.
#[derive(Clone, Copy)]
pub struct Portable;
/// x86-64 with AVX2 and FMA: 16 registers of 8 numbers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2(());
/// x86-64 with AVX-512: 32 registers of 16 numbers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512(());
/// AVX-512 with products of bf16.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512Bf16(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Returns the instruction set if the processor has it.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// Returns the instruction set if the processor has it.
    pub fn detect() -> Option<Self> {
        let Avx2(()) = Avx2::detect()?;
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")).then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    /// Returns the instruction set if the processor has it.
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
    // Every 64-bit Arm has both the vectors, 32 registers of 4, and the fused multiply-add.
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

/// A register of numbers, for loops that the compiler would not make of vector instructions, or not well.
///
/// The functions that create one are unsafe: the processor must have the vector's instructions,
/// which a value of its [`Machine`] proves. So a vector proves it too, and its methods are safe.
pub trait Vector: Copy {
    /// How many numbers.
    const WIDTH: usize;

    /// The same number throughout.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// The processor must have the instructions, and `WIDTH` numbers must be there.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `count` numbers, and zeros behind them.
    ///
    /// # Safety
    /// The processor must have the instructions, and `count` numbers must be there, at most
    /// `WIDTH`.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;

    /// # Safety
    /// There must be room for `WIDTH` numbers.
    unsafe fn store(self, to: *mut f32);

    /// # Safety
    /// There must be room for `count` numbers, at most `WIDTH`.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// `self + other`
    fn add(self, other: Self) -> Self;

    /// `a * b + self`
    fn add_product(self, a: Self, b: Self) -> Self;

    /// Each number by itself.
    fn map(self, function: impl Fn(f32) -> f32) -> Self;
}

/// Implements a [`Vector`] by its instructions. The field is private to the module, so that only its
/// own functions create one.
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

        // SAFETY: callers of the unsafe functions guarantee the instructions and the memory. The
        // other functions take a vector, which only these create. An array of numbers has the size
        // of a vector, and all bit patterns are valid.
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

/// The first `count` of four numbers, and zeros.
///
/// # Safety
/// They must be there, at most four.
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

    /// Numbers that count, by their sign, and numbers that do not.
    static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    /// Returns the mask of the first `count` of eight numbers.
    ///
    /// # Safety
    /// The processor must have AVX.
    #[inline(always)]
    unsafe fn first(count: usize) -> __m256i {
        assert!(count <= 8);
        // SAFETY: the caller's promise; eight numbers from one of the first nine on.
        unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()) }
    }

    vector!(
        /// Of SSE, which every x86-64 has.
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
        /// Of AVX2 with FMA.
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
        /// Of AVX-512.
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
        /// Rounds both vectors to bf16 and joins them, `self` first.
        ///
        /// # Safety
        /// The processor must have AVX512-BF16.
        #[inline(always)]
        pub unsafe fn paired_with(self, other: Self) -> Self {
            // SAFETY: the caller's promise; a vector is as large as one of pairs.
            Self(unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(other.0, self.0)) })
        }

        /// See [`Machine::add_pair_products`](super::Machine::add_pair_products).
        ///
        /// # Safety
        /// The processor must have AVX512-BF16.
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
        /// Of NEON, which every 64-bit Arm has.
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
        // SAFETY: the caller's promise; an array is aligned as its elements.
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

/// A loop over slices, written once.
///
/// Implementations mark `run` `#[inline(always)]`: only then is the body compiled with the instructions of its caller.
pub trait Loop {
    /// What the loop leaves behind.
    type Output;

    /// Runs it with the instructions of `machine`.
    fn run<M: Machine>(self, machine: M) -> Self::Output;
}

/// Runs `body` with the best instructions at hand, and with numbers too small for full precision taken as zero: on
/// most processors each of them costs a hundred times an ordinary one, and dying activations make many.
pub fn run<L: Loop>(body: L) -> L::Output {
    let _flushed = FlushDenormals::new();
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        // SAFETY: `machine` proves that the processor has the features.
        Instructions::Avx512(machine) | Instructions::Avx512Bf16(machine, _) => {
            return unsafe { run_avx512(body, machine) };
        }
        // SAFETY: as above.
        Instructions::Avx2(machine) => return unsafe { run_avx2(body, machine) },
        Instructions::Portable => {}
    }
    body.run(Portable)
}

/// As [`run`], for loops over pairs of bf16: with instructions for them, where there are.
pub fn run_paired<L: Loop>(body: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    if let Instructions::Avx512Bf16(_, machine) = instructions() {
        let _flushed = FlushDenormals::new();
        // SAFETY: `machine` proves that the processor has the features.
        return unsafe { run_avx512_bf16(body, machine) };
    }
    run(body)
}

/// Whether there are instructions for products of bf16.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(instructions(), Instructions::Avx512Bf16(..));
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// [`Machine::LANES`] of the machine that [`run`] and [`run_paired`] choose.
pub fn lanes() -> usize {
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        Instructions::Avx512(_) | Instructions::Avx512Bf16(..) => return Avx512::LANES,
        Instructions::Avx2(_) => return Avx2::LANES,
        Instructions::Portable => {}
    }
    Portable::LANES
}

/// What [`run`] chooses, as users know it.
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

/// The instruction set that loops run with.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
enum Instructions {
    Portable,
    Avx2(Avx2),
    Avx512(Avx512),
    /// The second is only used by loops over pairs.
    Avx512Bf16(Avx512, Avx512Bf16),
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Instructions {
    static CHOICE: std::sync::OnceLock<Instructions> = std::sync::OnceLock::new();
    *CHOICE.get_or_init(|| {
        // To compare them, and to keep clear of a processor that slows down under wide vectors.
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

/// While it lives, this thread's denormal numbers count as zero.
struct FlushDenormals {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    before: u32,
}

impl FlushDenormals {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn new() -> Self {
        /// Denormals are zeros, and results flush to zero.
        const FLUSH: u32 = 1 << 6 | 1 << 15;
        let mut before = 0u32;
        // SAFETY: every x86-64 has the register, and the result has room for its 32 bits.
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
        // SAFETY: only the two bits above change, and `drop` restores the old value, also when the
        // loop panics. Rust assumes that these bits are clear when it evaluates constants, so where
        // denormal numbers occur, a result may depend on optimization; no index or address does.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        Self::set(self.before);
    }
}

/// `a * b + c`.
#[inline(always)]
pub fn multiply_add<M: Machine>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction, `mul_add` is a library call.
    if M::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `1 / (1 + exp(-x))`, with a relative error below 3e-7, except below -87, where it stays near 1e-38.
#[inline(always)]
pub fn sigmoid<M: Machine>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<M>(-x))
}

/// `exp(x)` for x within ±87, and the value at the nearer bound beyond; relative error below 2e-7. Branch-free, so that a
/// loop over it becomes vector instructions.
#[inline(always)]
pub fn exp<M: Machine>(x: f32) -> f32 {
    const BOUND: f32 = 87.0;
    // Adding and subtracting 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    // ln 2 in two parts: the first is exact in few bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // exp(r) for |r| < ln 2 / 2 within 5e-9, from the highest power down; the last two are 1.
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
    // The integer that stands in the low bits goes into the exponent; ROUNDER's own low bits are zeros.
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
    fn sigmoid_agrees_with_double_precision() {
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
        /// All pairs of the first, and the sum of all products.
        type Output = (Vec<u32>, f32);

        #[inline(always)]
        fn run<M: Machine>(self, _: M) -> Self::Output {
            let count = self.0.len().div_ceil(2);
            let (mut left, mut right) = (vec![f32::NAN; count], vec![f32::NAN; count]);
            let width = M::Vector::WIDTH;
            let mut lanes = vec![0.0; width];
            // SAFETY: the machine argument proves the instructions, and all buffers are long enough.
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
    fn pairs_round_to_even_and_multiply() {
        // In 8 bits of precision: exact; a tie towards even, down and up; just above a tie; large, negative.
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
        // Products and sums that are exact in any order.
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
