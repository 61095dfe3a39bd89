//! The most similar images by the cosine of their features.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// Rows and columns of a block of the matrix of similarities, which limit its memory to 8 MiB.
const ROWS: usize = 512;
const COLUMNS: usize = 4096;

/// Features of images, in rows of unit length.
pub struct Features {
    width: usize,
    rows: Vec<f32>,
}

/// A similar image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Row of the image.
    pub row: usize,
    /// Cosine of the angle between the features, at most 1.
    pub similarity: f32,
}

impl Features {
    /// Creates an empty list of rows with `width` features.
    pub fn new(width: usize) -> Self {
        Self { width, rows: Vec::new() }
    }

    /// Appends a row, scaled to unit length. A row of zeros is similar to nothing.
    pub fn push(&mut self, features: &[f32]) {
        let norm = features.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 };
        self.rows.extend(features.iter().map(|value| value * scale));
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.rows.len() / self.width.max(1)
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the `count` most similar other rows of each row, the most similar first.
    pub fn nearest(&self, count: usize, device: &Device) -> Vec<Vec<Neighbor>> {
        self.search(self, count, true, device)
    }

    /// Returns the `count` rows that are most similar to each row of `queries`, the most similar
    /// first.
    pub fn nearest_to(&self, queries: &Self, count: usize, device: &Device) -> Vec<Vec<Neighbor>> {
        self.search(queries, count, false, device)
    }

    fn search(&self, queries: &Self, count: usize, skip_self: bool, device: &Device) -> Vec<Vec<Neighbor>> {
        let mut all = Vec::with_capacity(queries.len());
        for first in (0..queries.len()).step_by(ROWS) {
            let block = queries.block(first, ROWS, device);
            let mut best = vec![Vec::new(); block.dims()[0]];
            for start in (0..self.len()).step_by(COLUMNS) {
                let others = self.block(start, COLUMNS, device);
                let columns = others.dims()[0];
                let products: Vec<f32> = block.clone().matmul(others.transpose()).into_data().iter().collect();
                best.par_iter_mut().zip(products.par_chunks(columns)).enumerate().for_each(|(row, (best, line))| {
                    let own = skip_self.then_some(first + row);
                    let found = line
                        .iter()
                        .enumerate()
                        .map(|(column, &similarity)| Neighbor { row: start + column, similarity });
                    keep_best(best, found.filter(|neighbor| Some(neighbor.row) != own), count);
                });
            }
            all.extend(best);
        }
        all
    }

    /// Returns up to `count` rows from `first` on.
    fn block(&self, first: usize, count: usize, device: &Device) -> Tensor<2> {
        let count = count.min(self.len() - first);
        let values = self.rows[first * self.width..][..count * self.width].to_vec();
        Tensor::from_data(TensorData::new(values, [count, self.width]), device)
    }
}

/// Merges neighbors into a list sorted by similarity, then row, and keeps the first `count`. Those
/// whose similarity is not a number are left out.
fn keep_best(best: &mut Vec<Neighbor>, found: impl Iterator<Item = Neighbor>, count: usize) {
    for mut neighbor in found.filter(|neighbor| !neighbor.similarity.is_nan()) {
        neighbor.similarity = neighbor.similarity.min(1.0);
        let place = best.partition_point(|other| other.similarity >= neighbor.similarity);
        if place < count {
            best.truncate(count - 1);
            best.insert(place, neighbor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: &[[f32; 2]]) -> Features {
        let mut features = Features::new(2);
        rows.iter().for_each(|row| features.push(row));
        features
    }

    #[test]
    fn neighbors_are_sorted_by_cosine() {
        let device = Device::default();
        let all = features(&[[1.0, 0.0], [0.0, 5.0], [3.0, 3.0], [2.0, 0.0], [0.0, 0.0]]);
        let found = all.nearest(2, &device);
        let rows = |list: &[Neighbor]| list.iter().map(|neighbor| neighbor.row).collect::<Vec<_>>();
        assert_eq!(rows(&found[0]), [3, 2]);
        assert_eq!(rows(&found[1]), [2, 0]);
        assert_eq!(rows(&found[2]), [0, 1]);
        assert!((found[0][0].similarity - 1.0).abs() < 1e-6);
        assert!((found[0][1].similarity - 0.5f32.sqrt()).abs() < 1e-6);
        // More neighbors than rows, and queries that are not among the rows.
        assert_eq!(all.nearest(10, &device)[0].len(), 4);
        let query = features(&[[-1.0, 4.0]]);
        assert_eq!(rows(&all.nearest_to(&query, 3, &device)[0]), [1, 2, 4]);
        assert!(Features::new(2).nearest(1, &device).is_empty());
    }

    #[test]
    fn blocks_do_not_change_the_result() {
        let device = Device::default();
        let count = COLUMNS + 100;
        let angle = |index: usize| (index * 7919 % count) as f64 / count as f64 * std::f64::consts::PI;
        let rows: Vec<[f32; 2]> =
            (0..count).map(|index| [angle(index).cos() as f32, angle(index).sin() as f32]).collect();
        let all = features(&rows);
        let query = features(&rows[..ROWS + 5]);
        for (index, found) in all.nearest_to(&query, 1, &device).iter().enumerate() {
            assert!((angle(found[0].row) - angle(index)).abs() < 2e-3, "{index}: {found:?}");
        }
        assert_eq!(all.nearest_to(&query, 1, &device).len(), ROWS + 5);
    }
}
