//! Loops compiled once for any machine and once for the widest instructions this one has.

/// A loop over slices, written once; `FMA` says whether a fused multiply-add is a single instruction.
///
/// Implementations mark `run` `#[inline(always)]`: only then is the body compiled with the instructions of its caller.
pub trait Loop {
    /// What the loop leaves behind.
    type Output;

    /// Runs it.
    fn run<const FMA: bool>(self) -> Self::Output;
}

/// Runs `body` with the best instructions at hand.
pub fn run<L: Loop>(body: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the two features were just detected.
            return unsafe { run_avx2(body) };
        }
    }
    // Every 64-bit Arm has both the vectors and the fused multiply-add.
    #[cfg(target_arch = "aarch64")]
    return body.run::<true>();
    #[cfg(not(target_arch = "aarch64"))]
    body.run::<false>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<L: Loop>(body: L) -> L::Output {
    body.run::<true>()
}

/// `a * b + c`.
#[inline(always)]
pub fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction, `mul_add` is a library call.
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `1 / (1 + exp(-x))`, with a relative error below 3e-7, except below -87, where it stays near 1e-38.
#[inline(always)]
pub fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// `exp(x)` for x within ±87, and the value at the nearer bound beyond; relative error below 2e-7. Branch-free, so that a
/// loop over it becomes vector instructions.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    const BOUND: f32 = 87.0;
    // Adding and subtracting 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    // ln 2 in two parts: the first is exact in few bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Cephes: exp(r) = 1 + r + r^2 * polynomial(r) for |r| < ln 2 / 2, from the highest power down.
    const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

    let x = x.clamp(-BOUND, BOUND);
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUNDER);
    let power = shifted - ROUNDER;
    let r = multiply_add::<FMA>(power, -LN2_HIGH, x);
    let r = multiply_add::<FMA>(power, -LN2_LOW, r);
    let mut p = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        p = multiply_add::<FMA>(p, r, *coefficient);
    }
    let mantissa = multiply_add::<FMA>(p, r * r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127) << 23;
    mantissa * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sigmoids(Vec<f32>);

    impl Loop for Sigmoids {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<const FMA: bool>(self) -> Vec<f32> {
            self.0.iter().map(|&x| sigmoid::<FMA>(x)).collect()
        }
    }

    #[test]
    fn sigmoid_agrees_with_double_precision() {
        let points: Vec<f32> = (-86_000..=86_000).map(|i| i as f32 * 1e-3).collect();
        for (path, values) in
            [run(Sigmoids(points.clone())), Sigmoids(points.clone()).run::<false>()].iter().enumerate()
        {
            for (x, y) in points.iter().zip(values) {
                let exact = 1.0 / (1.0 + (-f64::from(*x)).exp());
                let error = (f64::from(*y) - exact).abs() / exact;
                assert!(error < 3e-7, "path {path}: sigmoid({x}) = {y}, not {exact}: relative error {error:e}");
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
