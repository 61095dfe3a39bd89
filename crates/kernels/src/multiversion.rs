//! Loops over bytes and integers, compiled for the vector instructions of the CPU.

/// A piece of work for [`run`].
pub trait Work {
    /// The result.
    type Output;

    /// Does the work. Mark the body and the functions that its loops call as `#[inline(always)]`:
    /// only inlined code is compiled for the CPU's instructions.
    fn run(self) -> Self::Output;
}

/// Runs `work` with the widest supported vectors (AVX2) and bit-manipulation instructions of the
/// CPU. Results, including floating-point numbers, are the same on all CPUs, because nothing is
/// fused or reordered.
///
/// The environment variable `MBCONV_CPU=portable` disables these instructions here, too.
pub fn run<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::OnceLock;

        static WIDE: OnceLock<bool> = OnceLock::new();
        let detected = || {
            let bits = is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
            bits && is_x86_feature_detected!("avx2") && std::env::var("MBCONV_CPU").as_deref() != Ok("portable")
        };
        if *WIDE.get_or_init(detected) {
            // SAFETY: the features were detected.
            return unsafe { run_avx2(work) };
        }
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn run_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}
