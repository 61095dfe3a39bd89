//! Ranges of feature maps, from the distribution of their values.

use std::collections::HashMap;

use burn::tensor::Tensor;
use mbconv_kernels::quantized::Quantizer;
use mbconv_kernels::quantized::feature_map::{channel_ranges, histogram};

use super::layerwise::{Visitor, observe};

/// Choice of the range of a feature map. Values outside are clipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangeMethod {
    /// The range with the smallest mean squared error of the quantized values.
    #[default]
    Mse,
    /// All but 0.01 % of the values on each side.
    Percentile,
    /// All values.
    MinMax,
}

impl RangeMethod {
    /// Returns the name, as in model files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mse => "mse",
            Self::Percentile => "percentile",
            Self::MinMax => "minmax",
        }
    }
}

/// Part of the values that [`RangeMethod::Percentile`] clips on each side.
const CLIPPED: f64 = 1e-4;

/// Lowest and highest value of each channel of each feature map.
pub type ChannelRanges = HashMap<String, Vec<[f32; 2]>>;

/// Returns the range of all channels.
pub fn whole(channels: &[[f32; 2]]) -> [f32; 2] {
    channels.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], [a, b]| [low.min(*a), high.max(*b)])
}

/// Observes the ranges of feature maps.
#[derive(Default)]
pub struct RangeObserver {
    pub ranges: ChannelRanges,
    /// Name of a feature map with values that are not finite.
    pub overflow: Option<String>,
}

impl Visitor for RangeObserver {
    fn feature_map(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
        observe(x, |values, channels| {
            let found = channel_ranges(values, channels);
            if self.overflow.is_none() && found.iter().flatten().any(|end| !end.is_finite()) {
                self.overflow = Some(name.into());
            }
            let ranges = self.ranges.entry(name.into()).or_insert_with(|| found.clone());
            ranges.iter_mut().zip(found).for_each(|(range, found)| *range = whole(&[*range, found]));
        })
    }
}

/// Number of bins of a histogram.
const BINS: usize = 2048;

/// Numbers of values in bins of equal width. Zeros, which are always exact, are not counted.
pub struct Histogram {
    low: f32,
    width: f32,
    counts: Vec<u64>,
}

impl Histogram {
    fn new([low, high]: [f32; 2]) -> Self {
        Self { low, width: ((high - low) / BINS as f32).max(f32::MIN_POSITIVE), counts: vec![0; BINS] }
    }

    fn extend(&mut self, values: &[f32]) {
        let found = histogram(values, self.low, self.width, BINS);
        self.counts.iter_mut().zip(found).for_each(|(count, found)| *count += found);
    }

    /// Returns the middle of a bin.
    fn value(&self, bin: usize) -> f64 {
        f64::from(self.low) + f64::from(self.width) * (bin as f64 + 0.5)
    }

    /// Returns the value below which `part` of the values lie.
    fn quantile(&self, part: f64) -> f32 {
        let target = part * self.counts.iter().sum::<u64>() as f64;
        let mut sum = 0.0;
        let reached = |count: &u64| {
            sum += *count as f64;
            sum >= target
        };
        let bin = self.counts.iter().position(reached).unwrap_or(BINS - 1);
        self.low + self.width * (bin as f32 + 0.5)
    }

    /// Returns the range with the smallest mean squared error: clipped values have their distance
    /// from the range as error, the others are rounded to 1 of 255 steps.
    fn least_error(&self) -> [f32; 2] {
        const CANDIDATES: usize = 100;
        let moments = Moments::new(self);
        let high = self.low + self.width * BINS as f32;
        let shrunk = |end: f32| (1..=CANDIDATES).map(move |part| end * part as f32 / CANDIDATES as f32);
        let lows: Vec<f32> = if self.low < 0.0 { shrunk(self.low).collect() } else { vec![0.0] };
        let highs: Vec<f32> = if high > 0.0 { shrunk(high).collect() } else { vec![0.0] };
        let ranges = lows.iter().flat_map(|low| highs.iter().map(move |high| [*low, *high]));
        let error = |range: &[f32; 2]| moments.error(range.map(f64::from));
        ranges.min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or([self.low, high])
    }
}

/// Sums of the zeroth, first and second power of a histogram's values below each bin.
struct Moments<'a> {
    histogram: &'a Histogram,
    sums: Vec<[f64; 3]>,
}

impl<'a> Moments<'a> {
    fn new(histogram: &'a Histogram) -> Self {
        let mut sum = [0.0; 3];
        let mut sums = vec![sum];
        for (bin, count) in histogram.counts.iter().enumerate() {
            let (count, value) = (*count as f64, histogram.value(bin));
            sum = [sum[0] + count, sum[1] + count * value, sum[2] + count * value * value];
            sums.push(sum);
        }
        Self { histogram, sums }
    }

    /// Returns the sum of the squared errors of 8 bits with this range.
    fn error(&self, [low, high]: [f64; 2]) -> f64 {
        let Histogram { low: start, width, .. } = *self.histogram;
        let bin = |value: f64| (((value - f64::from(start)) / f64::from(width)).round() as usize).min(BINS);
        let (first, last, all) = (self.sums[bin(low)], self.sums[bin(high)], self.sums[BINS]);
        let above = [0, 1, 2].map(|power| all[power] - last[power]);
        let distance = |[count, sum, squares]: [f64; 3], end: f64| squares - 2.0 * end * sum + end * end * count;
        let step = (high - low) / 255.0;
        distance(first, low) + distance(above, high) + (last[0] - first[0]) * step * step / 12.0
    }
}

/// Counts the values of each feature map.
pub struct HistogramObserver(HashMap<String, Histogram>);

impl HistogramObserver {
    /// Creates histograms over the ranges of the feature maps.
    pub fn new(ranges: &ChannelRanges) -> Self {
        Self(ranges.iter().map(|(name, channels)| (name.clone(), Histogram::new(whole(channels)))).collect())
    }

    /// Returns the quantizer of each feature map.
    pub fn quantizers(&self, method: RangeMethod) -> HashMap<String, Quantizer> {
        let range = |histogram: &Histogram| match method {
            RangeMethod::Mse => histogram.least_error(),
            RangeMethod::Percentile => [histogram.quantile(CLIPPED), histogram.quantile(1.0 - CLIPPED)],
            RangeMethod::MinMax => [histogram.low, histogram.low + histogram.width * BINS as f32],
        };
        let quantizer = |histogram: &Histogram| {
            let [low, high] = range(histogram);
            Quantizer::of_range(low, high)
        };
        self.0.iter().map(|(name, histogram)| (name.clone(), quantizer(histogram))).collect()
    }
}

impl Visitor for HistogramObserver {
    fn feature_map(&mut self, name: &str, x: Tensor<4>) -> Tensor<4> {
        observe(x, |values, _| {
            if let Some(histogram) = self.0.get_mut(name) {
                histogram.extend(values);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the range of values by a method.
    fn range(values: &[f32], method: RangeMethod) -> [f32; 2] {
        let ranges = ChannelRanges::from([("map".to_string(), channel_ranges(values, 1))]);
        let mut observer = HistogramObserver::new(&ranges);
        observer.0.get_mut("map").unwrap().extend(values);
        let quantizer = observer.quantizers(method)["map"];
        [quantizer.real(0), quantizer.real(255)]
    }

    #[test]
    fn even_distributions_are_not_clipped() {
        let values: Vec<f32> = (0..20_000).map(|index| index as f32 / 4000.0 - 2.0).collect();
        for method in [RangeMethod::Mse, RangeMethod::Percentile, RangeMethod::MinMax] {
            let [low, high] = range(&values, method);
            assert!((low + 2.0).abs() < 0.03 && (high - 3.0).abs() < 0.03, "{method:?} {low} {high}");
        }
    }

    #[test]
    fn single_outliers_are_clipped_unless_all_values_count() {
        let mut values: Vec<f32> = (0..100_000).map(|index| (index % 1000) as f32 / 1000.0).collect();
        values.push(50.0);
        let high = |method| range(&values, method)[1];
        assert!((high(RangeMethod::MinMax) - 50.0).abs() < 0.2);
        assert!((high(RangeMethod::Percentile) - 1.0).abs() < 0.1);
        // The square of the clipped distance outweighs the finer steps here.
        let of_few = high(RangeMethod::Mse);
        assert!(of_few > 10.0, "{of_few}");
        values.extend((0..2_000_000).map(|index| (index % 1000) as f32 / 1000.0));
        assert!(range(&values, RangeMethod::Mse)[1] < of_few);
    }

    #[test]
    fn constant_maps_have_a_valid_quantizer() {
        for value in [0.0, 2.5, -1.0] {
            for method in [RangeMethod::Mse, RangeMethod::Percentile, RangeMethod::MinMax] {
                let [low, high] = range(&[value; 10], method);
                assert!(low <= value + 1e-2 && value - 1e-2 <= high, "{method:?} {value}: {low} {high}");
            }
        }
    }
}
