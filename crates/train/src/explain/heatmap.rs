//! Heatmaps of feature-map size.

/// Values from 0 to 1 on a grid that covers an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Heatmap {
    width: usize,
    values: Vec<f32>,
}

impl Heatmap {
    /// Divides nonnegative values, rows of `width`, by the largest one. Values that are not finite
    /// become 0, and a map of zeros stays as it is.
    pub(super) fn normalized(width: usize, mut values: Vec<f32>) -> Self {
        values.iter_mut().filter(|value| !value.is_finite()).for_each(|value| *value = 0.0);
        let highest = values.iter().copied().fold(0.0, f32::max);
        if highest > 0.0 {
            values.iter_mut().for_each(|value| *value /= highest);
        }
        Self { width, values }
    }

    /// Returns the rows, from top to bottom.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks(self.width)
    }

    /// Returns whether all values are 0: no position speaks for the class.
    pub fn is_zero(&self) -> bool {
        self.values.iter().all(|&value| value == 0.0)
    }

    /// Returns whether all values are equal: no position differs from the others.
    pub fn is_uniform(&self) -> bool {
        self.values.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// Returns the value at a position, where (0, 0) is the upper left and (1, 1) the lower right
    /// corner: bilinear between the centers of the cells, constant beyond the outermost centers.
    pub fn at(&self, x: f64, y: f64) -> f32 {
        let height = self.values.len() / self.width;
        let (left, right, across) = between(x, self.width);
        let (top, bottom, down) = between(y, height);
        let line = |row: usize| {
            let row = &self.values[row * self.width..][..self.width];
            row[left] + (row[right] - row[left]) * across
        };
        line(top) + (line(bottom) - line(top)) * down
    }
}

/// Returns the two cells whose centers surround a position from 0 to 1, and the weight of the
/// second.
fn between(position: f64, cells: usize) -> (usize, usize, f32) {
    let place = (position * cells as f64 - 0.5).clamp(0.0, (cells - 1) as f64);
    let first = place.floor();
    (first as usize, (first as usize + 1).min(cells - 1), (place - first) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_divided_by_the_largest_value() {
        let map = Heatmap::normalized(2, vec![0.0, 1.0, 4.0, f32::NAN]);
        assert_eq!(map.rows().collect::<Vec<_>>(), [[0.0, 0.25], [1.0, 0.0]]);
        assert!(!map.is_zero() && !map.is_uniform());
        let zero = Heatmap::normalized(1, vec![0.0, f32::INFINITY]);
        assert!(zero.is_zero() && zero.is_uniform());
        assert_eq!(zero.at(0.3, 0.9), 0.0);
    }

    #[test]
    fn values_between_centers_are_bilinear() {
        let map = Heatmap::normalized(2, vec![0.0, 1.0, 0.5, 1.0]);
        // Centers at 1/4 and 3/4.
        for (x, y, expected) in
            [(0.0, 0.0, 0.0), (0.25, 0.25, 0.0), (0.5, 0.25, 0.5), (0.5, 0.5, 0.625), (0.25, 1.0, 0.5), (1.0, 1.0, 1.0)]
        {
            assert_eq!(map.at(x, y), expected, "({x}, {y})");
        }
    }
}
