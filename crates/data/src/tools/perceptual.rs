//! Perceptual hashes of images, and the search for pairs of similar hashes.

use std::collections::HashMap;
use std::f64::consts::PI;

use rayon::prelude::*;

use mbconv_image::resize::resize;
use mbconv_image::{Interpolation, RgbPixels};

/// Side of the grayscale image that is transformed, in pixels.
const SIDE: usize = 32;
/// Number of lowest frequencies used in each direction.
const LOW: usize = 8;
/// Minimum difference between the lightest and the darkest pixel; with less, noise would determine
/// the hash.
const MIN_CONTRAST: u8 = 16;

/// Maximum distance that [`near_pairs`] supports. Larger distances match unrelated images.
pub const MAX_DISTANCE: u32 = 15;

/// Returns the 64-bit "pHash" of Zauner 2010, as computed by the Python package `imagehash`: the
/// image is reduced to 32×32 gray pixels and transformed by the DCT; each bit states whether one of
/// the 8×8 lowest frequencies is above their median. Scale, compression and brightness hardly
/// change the hash; mirroring and rotation do.
///
/// Returns `None` for images with too little contrast.
pub fn perceptual_hash(image: &RgbPixels) -> Option<u64> {
    let small = resize(image, SIDE, SIDE, Interpolation::Bilinear);
    let (pixels, _) = small.data.as_chunks::<3>();
    // Pillow's weights for red, green and blue.
    let gray = |&[r, g, b]: &[u8; 3]| {
        (((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471) + 0x8000) >> 16) as u8
    };
    let gray: Vec<u8> = pixels.iter().map(gray).collect();
    let (darkest, lightest) = (gray.iter().min()?, gray.iter().max()?);
    if lightest - darkest < MIN_CONTRAST {
        return None;
    }
    let basis = dct_basis();
    let mut across = [[0.0; LOW]; SIDE];
    for (row, line) in across.iter_mut().zip(gray.chunks_exact(SIDE)) {
        for (sum, wave) in row.iter_mut().zip(&basis) {
            *sum = wave.iter().zip(line).map(|(wave, &value)| wave * f64::from(value)).sum();
        }
    }
    let mut low = [0.0; LOW * LOW];
    for (place, sum) in low.iter_mut().enumerate() {
        let (down, column) = (place / LOW, place % LOW);
        *sum = basis[down].iter().zip(&across).map(|(wave, row)| wave * row[column]).sum();
    }
    let mut sorted = low;
    sorted.sort_by(f64::total_cmp);
    let median = (sorted[LOW * LOW / 2 - 1] + sorted[LOW * LOW / 2]) / 2.0;
    Some(low.iter().fold(0, |bits, &value| bits << 1 | u64::from(value > median)))
}

/// Returns the cosines of the type-II DCT, `[frequency][position]`.
fn dct_basis() -> [[f64; SIDE]; LOW] {
    std::array::from_fn(|frequency| {
        std::array::from_fn(|place| (PI * frequency as f64 * (2 * place + 1) as f64 / (2 * SIDE) as f64).cos())
    })
}

/// Returns all pairs of hashes that differ in at most `distance` bits (at most [`MAX_DISTANCE`]),
/// as ascending indices with their distance.
///
/// Two such hashes differ in at most a quarter of `distance` bits (rounded down) in at least one of
/// their four 16-bit words, so only hashes with such a word in common are compared. Of equal
/// hashes, one is compared with the others.
pub fn near_pairs(hashes: &[u64], distance: u32) -> Vec<(usize, usize, u32)> {
    const WORDS: u32 = 4;
    let distance = distance.min(MAX_DISTANCE);
    let mut owners: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, &hash) in hashes.iter().enumerate() {
        owners.entry(hash).or_default().push(index);
    }
    let mut unique: Vec<u64> = owners.keys().copied().collect();
    unique.sort_unstable();
    let word = |hash: u64, number: u32| (hash >> (16 * number)) as u16;
    let flips: Vec<u16> = (0..=u16::MAX).filter(|flip| flip.count_ones() <= distance / WORDS).collect();
    let mut found: Vec<(u64, u64)> = Vec::new();
    for number in 0..WORDS {
        let mut buckets = vec![Vec::new(); 1 << 16];
        unique.iter().for_each(|&hash| buckets[usize::from(word(hash, number))].push(hash));
        let pairs = unique.par_iter().flat_map_iter(|&hash| {
            let buckets = &buckets;
            flips.iter().flat_map(move |flip| {
                let bucket = &buckets[usize::from(word(hash, number) ^ flip)];
                let close = move |&&other: &&u64| hash < other && (hash ^ other).count_ones() <= distance;
                bucket.iter().filter(close).map(move |&other| (hash, other))
            })
        });
        found.par_extend(pairs);
    }
    found.par_sort_unstable();
    found.dedup();
    let mut pairs: Vec<(usize, usize, u32)> = Vec::new();
    for members in owners.values() {
        // Link equal hashes in a chain; one chain suffices to group them.
        pairs.extend(members.windows(2).map(|pair| (pair[0], pair[1], 0)));
    }
    for (a, b) in found {
        let (first, second) = (owners[&a][0], owners[&b][0]);
        pairs.push((first.min(second), first.max(second), (a ^ b).count_ones()));
    }
    pairs.sort_unstable();
    pairs
}

/// Disjoint sets (union-find).
pub(crate) struct DisjointSets(Vec<usize>);

impl DisjointSets {
    /// Creates `count` sets of one member each.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    /// Returns the representative of a member's set, which is its smallest member.
    pub(crate) fn root(&mut self, member: usize) -> usize {
        let mut root = member;
        while self.0[root] != root {
            self.0[root] = self.0[self.0[root]];
            root = self.0[root];
        }
        root
    }

    /// Merges the sets of two members.
    pub(crate) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use mbconv_image::Interpolation;
    use mbconv_image::resize::resize;

    fn picture(width: usize, height: usize, at: impl Fn(f64, f64) -> f64) -> RgbPixels {
        let data = (0..width * height)
            .flat_map(|i| {
                let (x, y) = ((i % width) as f64 / width as f64, (i / width) as f64 / height as f64);
                [(at(x, y) * 255.0).clamp(0.0, 255.0) as u8; 3]
            })
            .collect();
        RgbPixels { width, height, data }
    }

    fn scene(x: f64, y: f64) -> f64 {
        0.5 + 0.3 * (9.0 * x + 4.0 * y * y).sin() + 0.2 * (17.0 * y * x).cos()
    }

    #[test]
    fn hash_depends_on_content_but_hardly_on_scale_and_brightness() {
        let original = perceptual_hash(&picture(300, 200, scene)).unwrap();
        let distance = |image: &RgbPixels| (perceptual_hash(image).unwrap() ^ original).count_ones();
        assert!(distance(&resize(&picture(300, 200, scene), 120, 80, Interpolation::Bicubic)) <= 4);
        assert!(distance(&picture(300, 200, |x, y| 0.8 * scene(x, y) + 0.05)) <= 4);
        assert!(distance(&picture(300, 200, |x, y| scene(1.0 - x, y))) > 15);
        assert_eq!(perceptual_hash(&picture(30, 20, |_, _| 0.4)), None);
    }

    /// Reference values of `imagehash.phash` 4.3.2 for the same 32×32 pixels, which need no
    /// resizing.
    #[test]
    fn hashes_match_imagehash() {
        for (k, expected) in [(0, 0xd200_0200_afff_f57f_u64), (1, 0xde42_f612_00a7_a7b7), (2, 0xe6f9_c2ff_d2a0_8209)] {
            let pixel = |i: usize| {
                let (x, y) = (i % 32, i / 32);
                let v = (x * x * 3 / (k + 1) + y * 7 + x * y * 5 / 4 + k * 31) % 256;
                [v as u8, (v * 2 % 256) as u8, 255 - v as u8]
            };
            let image = RgbPixels { width: 32, height: 32, data: (0..32 * 32).flat_map(pixel).collect() };
            assert_eq!(perceptual_hash(&image), Some(expected));
        }
    }

    proptest! {
        /// The groups of the search equal those of an exhaustive comparison.
        #[test]
        fn all_near_pairs_are_found(seeds in prop::collection::vec((0u64..6, 0u64..u64::MAX), 0..40), distance in 0u32..=15) {
            // Clusters of hashes that differ from a few centers in a few bits.
            let hashes: Vec<u64> = seeds.iter().map(|&(center, bits)| {
                let noise = (0..7).fold(0, |noise, i| noise | 1 << (bits >> (6 * i) & 63));
                (center.wrapping_mul(0x9E37_79B9_7F4A_7C15)) ^ noise
            }).collect();
            let found = near_pairs(&hashes, distance);
            for &(a, b, apart) in &found {
                prop_assert!(a < b && (hashes[a] ^ hashes[b]).count_ones() == apart && apart <= distance);
            }
            let mut sets = DisjointSets::new(hashes.len());
            found.iter().for_each(|&(a, b, _)| sets.join(a, b));
            for a in 0..hashes.len() {
                for b in 0..a {
                    if (hashes[a] ^ hashes[b]).count_ones() <= distance {
                        prop_assert_eq!(sets.root(a), sets.root(b));
                    }
                }
            }
        }
    }
}
