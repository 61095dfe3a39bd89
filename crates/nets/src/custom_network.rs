//! Checks of stage tables that a user wrote: every value must be in its range, and the error names
//! the row and the key.

use crate::error::{ArchitectureError, check};
use crate::limits::{
    MAX_CHANNELS, MAX_DIVISOR, MAX_EXPANSION, MAX_KERNEL, MAX_MULTIPLIER, MAX_REPEATS, MAX_STAGES, MAX_STRIDE,
    MIN_MULTIPLIER,
};
use crate::stage_table::{Stage, StageTable};

impl StageTable {
    /// Checks the range of every value.
    pub(crate) fn check(&self) -> Result<(), ArchitectureError> {
        let channels =
            |key, value: usize| check((1..=MAX_CHANNELS).contains(&value), key, value, "between 1 and 65536");
        let scale = |key, value: f64| {
            check((MIN_MULTIPLIER..=MAX_MULTIPLIER).contains(&value), key, value, "between 0.01 and 20")
        };
        let share = |key, value: f64| check((0.0..=1.0).contains(&value), key, value, "in [0, 1]");
        let probability = |key, value: f64| check((0.0..1.0).contains(&value), key, value, "in [0, 1)");
        let name = self.name.trim();
        check(!name.is_empty() && name.len() <= 100, "name", format!("{:?}", self.name), "of 1 to 100 characters")?;
        check((1..=MAX_STAGES).contains(&self.stages.len()), "stages", self.stages.len(), "1 to 64 rows")?;
        scale("width", self.width)?;
        scale("depth", self.depth)?;
        channels("stem", self.stem)?;
        channels("head", self.head)?;
        check((1..=MAX_STRIDE).contains(&self.stem_stride), "stem_stride", self.stem_stride, "between 1 and 4")?;
        check((1..=MAX_DIVISOR).contains(&self.divisor), "divisor", self.divisor, "between 1 and 64")?;
        check(self.squeeze_divisor <= MAX_CHANNELS, "squeeze_divisor", self.squeeze_divisor, "at most 65536")?;
        share("norm_epsilon", self.norm_epsilon)?;
        share("norm_momentum", self.norm_momentum)?;
        probability("dropout", self.dropout)?;
        probability("drop_path", self.drop_path)?;
        let mut input = self.stem;
        for (index, row) in self.stages.iter().enumerate() {
            row.check(index + 1, input)?;
            input = row.channels;
        }
        Ok(())
    }
}

impl Stage {
    /// Checks the range of every value of row `stage`, counted from 1, whose input has `input`
    /// channels.
    fn check(&self, stage: usize, input: usize) -> Result<(), ArchitectureError> {
        let ensure = |holds: bool, key, value: usize, expected: String| match holds {
            true => Ok(()),
            false => Err(ArchitectureError::Stage { stage, key, value: value.to_string(), expected }),
        };
        let within = |key, value: usize, most: usize| {
            ensure((1..=most).contains(&value), key, value, format!("between 1 and {most}"))
        };
        within("channels", self.channels, MAX_CHANNELS)?;
        within("repeats", self.repeats, MAX_REPEATS)?;
        within("expansion", self.expansion, MAX_EXPANSION)?;
        within("kernel", self.kernel, MAX_KERNEL)?;
        ensure(self.kernel % 2 == 1, "kernel", self.kernel, "odd".into())?;
        within("stride", self.stride, MAX_STRIDE)?;
        within("expanded_from", self.expanded_from.unwrap_or(input), MAX_CHANNELS)
    }
}

#[cfg(test)]
mod tests;
