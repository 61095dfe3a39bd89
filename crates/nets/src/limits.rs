//! Limits of the values of stage tables and of a network's options.

/// Largest number of rows of a stage table.
pub(crate) const MAX_STAGES: usize = 64;
/// Largest number of blocks per stage before scaling.
pub(crate) const MAX_REPEATS: usize = 256;
/// Largest number of channels of a layer before scaling.
pub(crate) const MAX_CHANNELS: usize = 65_536;
/// Largest expansion factor.
pub(crate) const MAX_EXPANSION: usize = 64;
/// Largest `divisor`.
pub(crate) const MAX_DIVISOR: usize = 64;
/// Largest kernel size.
pub(crate) const MAX_KERNEL: usize = 15;
/// Largest stride of the stem or a stage.
pub(crate) const MAX_STRIDE: usize = 4;
/// Smallest width or depth multiplier.
pub(crate) const MIN_MULTIPLIER: f64 = 0.01;
/// Largest width or depth multiplier.
pub(crate) const MAX_MULTIPLIER: f64 = 20.0;
/// Largest image side that a network can be made for.
pub(crate) const MAX_RESOLUTION: usize = 8192;
