//! The color map of heatmaps.

/// Coefficients of red, green and blue, from x⁰ to x⁵: the polynomial approximation of Turbo
/// (Mikhailov 2019,
/// <https://research.google/blog/turbo-an-improved-rainbow-colormap-for-visualization/>).
const TURBO: [[f32; 6]; 3] = [
    [0.135_721_38, 4.615_392_6, -42.660_323, 132.131_08, -152.942_4, 59.286_38],
    [0.091_402_61, 2.194_188_4, 4.842_967, -14.185_033, 4.277_298_6, 2.829_566],
    [0.106_673_3, 12.641_946, -60.582_048, 110.362_77, -89.903_11, 27.348_25],
];

/// Returns the color of a value from 0, dark blue, to 1, dark red.
pub fn turbo(value: f32) -> [f32; 3] {
    let color = |coefficients: [f32; 6]| {
        let sum = coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * value + coefficient);
        255.0 * sum.clamp(0.0, 1.0)
    };
    TURBO.map(color)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_agree_with_the_published_table() {
        // Entries 0, 64, 128, 192 and 255. The polynomial differs most at the dark end.
        for (value, expected) in [
            (0.0, [48.0, 18.0, 59.0]),
            (64.0 / 255.0, [40.0, 188.0, 235.0]),
            (128.0 / 255.0, [164.0, 252.0, 60.0]),
            (192.0 / 255.0, [251.0, 126.0, 33.0]),
            (1.0, [122.0, 4.0, 3.0]),
        ] {
            for (found, expected) in turbo(value).into_iter().zip(expected) {
                assert!((found - expected).abs() < 33.0, "{value}: {found} {expected}");
            }
        }
    }
}
