//! Rounding of scaled widths and depths.

/// Rounds channels to a multiple of 8, and never below 0.9 times `channels`
/// (`_make_divisible` in the MobileNet authors' code and in every peer).
pub fn round_channels(channels: f64) -> usize {
    round_channels_to(channels, 8)
}

/// Rounds channels to a multiple of `divisor`, which must be positive, as [`round_channels`] does.
pub fn round_channels_to(channels: f64, divisor: usize) -> usize {
    let rounded = ((channels + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
    if (rounded as f64) < 0.9 * channels { rounded + divisor } else { rounded }
}

/// Scales the repeats of a stage by a depth multiplier: ⌈depth · repeats⌉.
pub fn round_repeats(repeats: usize, depth: f64) -> usize {
    (depth * repeats as f64).ceil() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rounded_channels_are_multiples_of_8_and_not_much_less(channels in 0.1f64..5000.0) {
            let rounded = round_channels(channels);
            prop_assert_eq!(rounded % 8, 0);
            prop_assert!(rounded as f64 >= 0.9 * channels);
            prop_assert!(rounded as f64 <= channels + 8.0);
        }
    }
}
