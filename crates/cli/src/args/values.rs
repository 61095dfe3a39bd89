//! Parsers of argument values.

use mbconv_train::data::ImageSize;

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..1e6).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds".into()),
    }
}

pub(super) fn distance(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(bits @ 0..=mbconv_train::data::tools::perceptual::MAX_DISTANCE) => Ok(bits),
        _ => {
            Err(format!("expected a number of bits from 0 to {}", mbconv_train::data::tools::perceptual::MAX_DISTANCE))
        }
    }
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("expected a whole number above 0".into()),
        Ok(number) => Ok(number),
    }
}

/// Parses the side of a square, or height and width: `HxW`, `H,W` or, as in a recipe, `[H, W]`.
pub(super) fn image_size(text: &str) -> Result<ImageSize, String> {
    let sides: Result<Vec<usize>, _> = text.trim_matches(['[', ']']).split(['x', '×', ',']).map(positive).collect();
    match sides.as_deref() {
        Ok([side]) => Ok(ImageSize::square(*side)),
        Ok([height, width]) => Ok([*height, *width].into()),
        _ => Err("expected a size in pixels such as 224, or height and width such as 192x320".into()),
    }
}

/// Parses a number of images per batch, or `auto`, as a recipe's value.
pub(super) fn batch_size(text: &str) -> Result<String, String> {
    match text {
        "auto" => Ok(text.into()),
        text => positive(text).map(|images| images.to_string()).map_err(|message| message + ", or auto"),
    }
}

pub(super) fn coefficient(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.1..=10.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0.1 to 10".into()),
    }
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
}

/// Parses a whole number with an optional k (thousand), M (million), or G or B (billion).
pub(super) fn quantity(text: &str) -> Result<u64, String> {
    with_unit(text, &[("", 1.0), ("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9), ("B", 1e9), ("T", 1e12)])
        .filter(|value| (1.0..1e18).contains(value))
        .map(|value| value as u64)
        .ok_or_else(|| "expected a number such as 600M or 1.5G".into())
}

/// Parses bytes with decimal or binary units.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    const KIBI: f64 = 1024.0;
    let units = [("", 1.0), ("B", 1.0), ("kB", 1e3), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)];
    let binary = [("KiB", KIBI), ("MiB", KIBI * KIBI), ("GiB", KIBI * KIBI * KIBI)];
    with_unit(text, &[&units[..], &binary].concat())
        .filter(|value| (1.0..1e18).contains(value))
        .map(|value| value as u64)
        .ok_or_else(|| "expected a size such as 10MB or 16GB".into())
}

pub(super) fn milliseconds(text: &str) -> Result<f64, String> {
    with_unit(text, &[("ms", 1.0), ("s", 1e3), ("us", 1e-3), ("µs", 1e-3)])
        .filter(|value| *value > 0.0 && value.is_finite())
        .ok_or_else(|| "expected a time such as 20ms".into())
}

/// Parses a number and its unit, which a space may separate.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = (text[..end].parse::<f64>().ok()?, text[end..].trim());
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_sizes_are_a_side_or_height_and_width() {
        assert_eq!(image_size("224").unwrap(), ImageSize::square(224));
        for text in ["192x320", "192,320", "[192, 320]", "192×320"] {
            assert_eq!(image_size(text).unwrap(), ImageSize::from([192, 320]), "{text}");
        }
        assert!(
            ["", "0", "192x", "x", "0x5", "-1", "1x2x3", "3x192x320", "a"].iter().all(|text| image_size(text).is_err())
        );
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(
            ["1G", "600M", "1.5G", "42", "5 M"].map(|text| quantity(text).unwrap()),
            [1_000_000_000, 600_000_000, 1_500_000_000, 42, 5_000_000]
        );
        assert_eq!(["10MB", "1KiB", "7"].map(|text| bytes(text).unwrap()), [10_000_000, 1024, 7]);
        assert_eq!(["20ms", "1.5s"].map(|text| milliseconds(text).unwrap()), [20.0, 1500.0]);
        assert!(["", "G", "-1", "1X", "0", "1e30", "nan"].iter().all(|text| quantity(text).is_err()));
        assert!(["20", "0ms", "ms"].iter().all(|text| milliseconds(text).is_err()));
    }
}
