//! The settings in a policy's name, such as `m9-mstd0.5-inc1`.

use std::ops::RangeInclusive;

/// The reason why a policy name is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// Unknown policy.
    #[error(
        "no such policy: expected rand-m9-mstd0.5-inc1, v0, v0r, original, originalr, 3a, augmix-m3-w3, ra, ta_wide, \
         imagenet, cifar10 or svhn"
    )]
    Unknown,
    /// A setting that the policy lacks, or a repeated one.
    #[error("the policy has no setting `{0}`, or it is given twice")]
    UnknownSetting(String),
    /// A setting out of range.
    #[error("the policy's setting `{key}` is `{value}`, but must be {expected}")]
    Setting {
        /// Key of the setting.
        key: String,
        /// Given value.
        value: String,
        /// Allowed values.
        expected: String,
    },
}

impl PolicyError {
    pub(crate) fn setting(key: &str, value: &str, expected: &str) -> Self {
        Self::Setting { key: key.into(), value: value.into(), expected: expected.into() }
    }
}

/// Settings that are not consumed yet.
pub(crate) struct Settings(Vec<(String, String)>);

impl Settings {
    /// Splits `m9-mstd0.5-inc1-tweights` into keys and values.
    pub(crate) fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut settings = Self(Vec::new());
        for part in text.split('-').filter(|part| !part.is_empty()) {
            // `t` is followed by a name, `mstd` possibly by `inf`, all others by a number.
            let at = match part {
                _ if part.starts_with('t') => 1,
                "mstdinf" => 4,
                _ => part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len()),
            };
            let (key, value) = part.split_at(at);
            if settings.0.iter().any(|(known, _)| known == key) {
                return Err(PolicyError::UnknownSetting(part.into()));
            }
            settings.0.push((key.into(), value.into()));
        }
        Ok(settings)
    }

    pub(crate) fn take_text(&mut self, key: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(index).1)
    }

    /// Removes and returns a number, or `default` if it is missing.
    pub(crate) fn take(&mut self, key: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64, PolicyError> {
        let Some(text) = self.take_text(key) else { return Ok(default) };
        match text.parse() {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => {
                let expected = format!("a number between {} and {}", range.start(), range.end());
                Err(PolicyError::setting(key, &text, &expected))
            }
        }
    }

    /// Removes and returns `mstd`; as in timm, more than 100 means a uniform magnitude.
    pub(crate) fn deviation(&mut self, default: f64) -> Result<f64, PolicyError> {
        let deviation = self.take("mstd", default, 0.0..=f64::INFINITY)?;
        Ok(if deviation > 100.0 { f64::INFINITY } else { deviation })
    }

    /// Fails if settings remain.
    pub(crate) fn finish(self) -> Result<(), PolicyError> {
        match self.0.into_iter().next() {
            Some((key, value)) => Err(PolicyError::UnknownSetting(key + &value)),
            None => Ok(()),
        }
    }
}
