//! Loops over bytes and integers, compiled for the processor at hand.

/// What [`run`] runs.
pub trait Work {
    /// What comes of it.
    type Output;

    /// Does it. Mark the body, and what its loops call, `#[inline(always)]`: only what is inlined is compiled for the processor.
    fn run(self) -> Self::Output;
}

/// Does `work` with the widest vectors and the bit instructions of the processor at hand. Integers come out the same on all
/// processors, and so do floating-point numbers: nothing is fused or reordered.
///
/// The environment's `MBCONV_CPU=portable` holds here too.
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
