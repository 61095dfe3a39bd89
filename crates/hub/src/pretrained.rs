//! Table of known weights with their published accuracy.
//!
//! Accuracy is on ImageNet-1k validation, in percent, as measured by the publisher at the given
//! resolution: torchvision's from its `Weights` classes, timm's from its `results-imagenet.csv`
//! (rows without numbers are newer than the table, or have other classes), Google's MobileNetV2
//! from the table in TensorFlow's `slim/nets/mobilenet`, lukemelas's and d-li14's from their
//! READMEs.

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pretrained {
    /// Name, for example `torchvision/mobilenet_v2.imagenet1k_v2`.
    pub name: &'static str,
    /// Location.
    pub place: Place,
    /// Image side in pixels at which accuracy was measured.
    pub resolution: usize,
    /// Top-1 accuracy in percent.
    pub top1: Option<f64>,
    /// Top-5 accuracy in percent.
    pub top5: Option<f64>,
}

impl Pretrained {
    /// Returns the name without the tag: `torchvision/mobilenet_v2`. A tag starts with a letter;
    /// the fraction of a width does not.
    pub fn untagged(&self) -> &'static str {
        match self.name.split_once('.') {
            Some((name, tag)) if tag.starts_with(|first: char| first.is_ascii_alphabetic()) => name,
            _ => self.name,
        }
    }
}

/// Minimum similarity of a suggested name.
const SIMILAR: f64 = 0.9;

/// Returns the name in the table, with or without its tag, that is most similar to `name`, if one
/// is similar.
pub fn similar_weights(name: &str) -> Option<&'static str> {
    let wanted = name.to_ascii_lowercase();
    let names = PRETRAINED.iter().flat_map(|row| [row.untagged(), row.name]);
    let rated = names.map(|known| (strsim::jaro_winkler(&wanted, known), known));
    // The first of several equal ones is the default.
    let best = rated.reduce(|best, other| if other.0 > best.0 { other } else { best })?;
    (best.0 >= SIMILAR).then_some(best.1)
}

/// Location of a known file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A URL; the file name ends in the prefix of its SHA-256.
    Url(&'static str),
    /// A Hugging Face repository.
    HuggingFace(&'static str),
}

/// Top-1 and top-5 accuracy in percent.
type Accuracy = Option<(f64, f64)>;

const fn row(name: &'static str, place: Place, resolution: usize, accuracy: Accuracy) -> Pretrained {
    let (top1, top5) = match accuracy {
        Some((top1, top5)) => (Some(top1), Some(top5)),
        None => (None, None),
    };
    Pretrained { name, place, resolution, top1, top5 }
}

const fn url(name: &'static str, url: &'static str, resolution: usize, accuracy: Accuracy) -> Pretrained {
    row(name, Place::Url(url), resolution, accuracy)
}

const fn hub(name: &'static str, repository: &'static str, resolution: usize, accuracy: Accuracy) -> Pretrained {
    row(name, Place::HuggingFace(repository), resolution, accuracy)
}

/// Creates a row of lukemelas's weights, for which no top-5 accuracy was published.
const fn lukemelas(name: &'static str, url: &'static str, resolution: usize, top1: Option<f64>) -> Pretrained {
    Pretrained { name, place: Place::Url(url), resolution, top1, top5: None }
}

/// The table. The first row of an architecture is its publisher's default, used for the name
/// without a tag.
#[rustfmt::skip]
pub const PRETRAINED: [Pretrained; 108] = [
    url("torchvision/mobilenet_v2.imagenet1k_v2", "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth", 224, Some((72.154, 90.822))),
    url("torchvision/mobilenet_v2.imagenet1k_v1", "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth", 224, Some((71.878, 90.286))),
    url("torchvision/efficientnet_b0.imagenet1k_v1", "https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth", 224, Some((77.692, 93.532))),
    url("torchvision/efficientnet_b1.imagenet1k_v2", "https://download.pytorch.org/models/efficientnet_b1-c27df63c.pth", 240, Some((79.838, 94.934))),
    url("torchvision/efficientnet_b1.imagenet1k_v1", "https://download.pytorch.org/models/efficientnet_b1_rwightman-bac287d4.pth", 240, Some((78.642, 94.186))),
    url("torchvision/efficientnet_b2.imagenet1k_v1", "https://download.pytorch.org/models/efficientnet_b2_rwightman-c35c1473.pth", 288, Some((80.608, 95.310))),
    url("torchvision/efficientnet_b3.imagenet1k_v1", "https://download.pytorch.org/models/efficientnet_b3_rwightman-b3899882.pth", 300, Some((82.008, 96.054))),
    url("torchvision/efficientnet_b4.imagenet1k_v1", "https://download.pytorch.org/models/efficientnet_b4_rwightman-23ab8bcd.pth", 380, Some((83.384, 96.594))),
    url("torchvision/efficientnet_b5.imagenet1k_v1", "https://download.pytorch.org/models/efficientnet_b5_lukemelas-1a07897c.pth", 456, Some((83.444, 96.628))),
    url("torchvision/efficientnet_b6.imagenet1k_v1", "https://download.pytorch.org/models/efficientnet_b6_lukemelas-24a108a5.pth", 528, Some((84.008, 96.916))),
    url("torchvision/efficientnet_b7.imagenet1k_v1", "https://download.pytorch.org/models/efficientnet_b7_lukemelas-c5b4e57e.pth", 600, Some((84.122, 96.908))),
    hub("timm/mobilenetv2_050.lamb_in1k", "timm/mobilenetv2_050.lamb_in1k", 224, Some((65.950, 86.088))),
    hub("timm/mobilenetv2_100.ra_in1k", "timm/mobilenetv2_100.ra_in1k", 224, Some((72.976, 91.010))),
    hub("timm/mobilenetv2_110d.ra_in1k", "timm/mobilenetv2_110d.ra_in1k", 224, Some((75.056, 92.186))),
    hub("timm/mobilenetv2_120d.ra_in1k", "timm/mobilenetv2_120d.ra_in1k", 224, Some((77.302, 93.504))),
    hub("timm/mobilenetv2_140.ra_in1k", "timm/mobilenetv2_140.ra_in1k", 224, Some((76.520, 92.986))),
    hub("timm/efficientnet_b0.ra_in1k", "timm/efficientnet_b0.ra_in1k", 224, Some((77.694, 93.532))),
    hub("timm/efficientnet_b0.ra4_e3600_r224_in1k", "timm/efficientnet_b0.ra4_e3600_r224_in1k", 256, None),
    hub("timm/efficientnet_b1.ra4_e3600_r240_in1k", "timm/efficientnet_b1.ra4_e3600_r240_in1k", 288, None),
    hub("timm/efficientnet_b1.ft_in1k", "timm/efficientnet_b1.ft_in1k", 256, Some((78.800, 94.342))),
    hub("timm/efficientnet_b2.ra_in1k", "timm/efficientnet_b2.ra_in1k", 288, Some((80.610, 95.314))),
    hub("timm/efficientnet_b3.ra2_in1k", "timm/efficientnet_b3.ra2_in1k", 320, Some((82.242, 96.118))),
    hub("timm/efficientnet_b4.ra2_in1k", "timm/efficientnet_b4.ra2_in1k", 384, Some((83.414, 96.598))),
    hub("timm/efficientnet_b5.sw_in12k_ft_in1k", "timm/efficientnet_b5.sw_in12k_ft_in1k", 448, Some((85.892, 97.736))),
    hub("timm/efficientnet_b5.sw_in12k", "timm/efficientnet_b5.sw_in12k", 416, None),
    hub("timm/tf_efficientnet_b0.ns_jft_in1k", "timm/tf_efficientnet_b0.ns_jft_in1k", 224, Some((78.670, 94.374))),
    hub("timm/tf_efficientnet_b0.aa_in1k", "timm/tf_efficientnet_b0.aa_in1k", 224, Some((76.834, 93.220))),
    hub("timm/tf_efficientnet_b0.ap_in1k", "timm/tf_efficientnet_b0.ap_in1k", 224, Some((77.090, 93.262))),
    hub("timm/tf_efficientnet_b0.in1k", "timm/tf_efficientnet_b0.in1k", 224, Some((76.532, 93.008))),
    hub("timm/tf_efficientnet_b1.ns_jft_in1k", "timm/tf_efficientnet_b1.ns_jft_in1k", 240, Some((81.394, 95.736))),
    hub("timm/tf_efficientnet_b1.aa_in1k", "timm/tf_efficientnet_b1.aa_in1k", 240, Some((78.830, 94.198))),
    hub("timm/tf_efficientnet_b1.ap_in1k", "timm/tf_efficientnet_b1.ap_in1k", 240, Some((79.280, 94.308))),
    hub("timm/tf_efficientnet_b1.in1k", "timm/tf_efficientnet_b1.in1k", 240, Some((78.560, 94.094))),
    hub("timm/tf_efficientnet_b2.ns_jft_in1k", "timm/tf_efficientnet_b2.ns_jft_in1k", 260, Some((82.378, 96.254))),
    hub("timm/tf_efficientnet_b2.aa_in1k", "timm/tf_efficientnet_b2.aa_in1k", 260, Some((80.084, 94.906))),
    hub("timm/tf_efficientnet_b2.ap_in1k", "timm/tf_efficientnet_b2.ap_in1k", 260, Some((80.308, 95.028))),
    hub("timm/tf_efficientnet_b2.in1k", "timm/tf_efficientnet_b2.in1k", 260, Some((79.604, 94.714))),
    hub("timm/tf_efficientnet_b3.ns_jft_in1k", "timm/tf_efficientnet_b3.ns_jft_in1k", 300, Some((84.056, 96.918))),
    hub("timm/tf_efficientnet_b3.aa_in1k", "timm/tf_efficientnet_b3.aa_in1k", 300, Some((81.644, 95.722))),
    hub("timm/tf_efficientnet_b3.ap_in1k", "timm/tf_efficientnet_b3.ap_in1k", 300, Some((81.826, 95.626))),
    hub("timm/tf_efficientnet_b3.in1k", "timm/tf_efficientnet_b3.in1k", 300, Some((80.878, 95.300))),
    hub("timm/tf_efficientnet_b4.ns_jft_in1k", "timm/tf_efficientnet_b4.ns_jft_in1k", 380, Some((85.162, 97.470))),
    hub("timm/tf_efficientnet_b4.aa_in1k", "timm/tf_efficientnet_b4.aa_in1k", 380, Some((83.018, 96.300))),
    hub("timm/tf_efficientnet_b4.ap_in1k", "timm/tf_efficientnet_b4.ap_in1k", 380, Some((83.250, 96.394))),
    hub("timm/tf_efficientnet_b4.in1k", "timm/tf_efficientnet_b4.in1k", 380, Some((82.608, 96.128))),
    hub("timm/tf_efficientnet_b5.ns_jft_in1k", "timm/tf_efficientnet_b5.ns_jft_in1k", 456, Some((86.088, 97.754))),
    hub("timm/tf_efficientnet_b5.aa_in1k", "timm/tf_efficientnet_b5.aa_in1k", 456, Some((83.688, 96.712))),
    hub("timm/tf_efficientnet_b5.ap_in1k", "timm/tf_efficientnet_b5.ap_in1k", 456, Some((84.258, 96.974))),
    hub("timm/tf_efficientnet_b5.in1k", "timm/tf_efficientnet_b5.in1k", 456, Some((83.176, 96.536))),
    hub("timm/tf_efficientnet_b5.ra_in1k", "timm/tf_efficientnet_b5.ra_in1k", 456, Some((83.810, 96.754))),
    hub("timm/tf_efficientnet_b6.ns_jft_in1k", "timm/tf_efficientnet_b6.ns_jft_in1k", 528, Some((86.456, 97.884))),
    hub("timm/tf_efficientnet_b6.aa_in1k", "timm/tf_efficientnet_b6.aa_in1k", 528, Some((84.116, 96.880))),
    hub("timm/tf_efficientnet_b6.ap_in1k", "timm/tf_efficientnet_b6.ap_in1k", 528, Some((84.786, 97.136))),
    hub("timm/tf_efficientnet_b7.ns_jft_in1k", "timm/tf_efficientnet_b7.ns_jft_in1k", 600, Some((86.840, 98.094))),
    hub("timm/tf_efficientnet_b7.aa_in1k", "timm/tf_efficientnet_b7.aa_in1k", 600, Some((84.414, 96.906))),
    hub("timm/tf_efficientnet_b7.ap_in1k", "timm/tf_efficientnet_b7.ap_in1k", 600, Some((85.122, 97.252))),
    hub("timm/tf_efficientnet_b7.ra_in1k", "timm/tf_efficientnet_b7.ra_in1k", 600, Some((84.932, 97.208))),
    hub("timm/tf_efficientnet_b8.ap_in1k", "timm/tf_efficientnet_b8.ap_in1k", 672, Some((85.364, 97.292))),
    hub("timm/tf_efficientnet_b8.ra_in1k", "timm/tf_efficientnet_b8.ra_in1k", 672, Some((85.368, 97.394))),
    hub("timm/tf_efficientnet_l2.ns_jft_in1k_475", "timm/tf_efficientnet_l2.ns_jft_in1k_475", 475, Some((88.234, 98.546))),
    hub("timm/tf_efficientnet_l2.ns_jft_in1k", "timm/tf_efficientnet_l2.ns_jft_in1k", 800, Some((88.352, 98.648))),
    hub("timm/efficientnet_lite0.ra_in1k", "timm/efficientnet_lite0.ra_in1k", 224, Some((75.480, 92.522))),
    hub("timm/tf_efficientnet_lite0.in1k", "timm/tf_efficientnet_lite0.in1k", 224, Some((74.830, 92.172))),
    hub("timm/tf_efficientnet_lite1.in1k", "timm/tf_efficientnet_lite1.in1k", 240, Some((76.644, 93.230))),
    hub("timm/tf_efficientnet_lite2.in1k", "timm/tf_efficientnet_lite2.in1k", 260, Some((77.464, 93.750))),
    hub("timm/tf_efficientnet_lite3.in1k", "timm/tf_efficientnet_lite3.in1k", 300, Some((79.808, 94.912))),
    hub("timm/tf_efficientnet_lite4.in1k", "timm/tf_efficientnet_lite4.in1k", 380, Some((81.532, 95.664))),
    hub("timm/efficientnet_el.ra_in1k", "timm/efficientnet_el.ra_in1k", 300, Some((81.312, 95.536))),
    hub("timm/efficientnet_em.ra2_in1k", "timm/efficientnet_em.ra2_in1k", 240, Some((79.240, 94.794))),
    hub("timm/efficientnet_es.ra_in1k", "timm/efficientnet_es.ra_in1k", 224, Some((78.054, 93.924))),
    hub("timm/tf_efficientnet_el.in1k", "timm/tf_efficientnet_el.in1k", 300, Some((80.252, 95.118))),
    hub("timm/tf_efficientnet_em.in1k", "timm/tf_efficientnet_em.in1k", 240, Some((78.122, 94.046))),
    hub("timm/tf_efficientnet_es.in1k", "timm/tf_efficientnet_es.in1k", 224, Some((76.600, 93.202))),
    lukemelas("lukemelas/efficientnet-b0", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b0-355c32eb.pth", 224, Some(76.3)),
    lukemelas("lukemelas/efficientnet-b1", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b1-f1951068.pth", 240, Some(78.8)),
    lukemelas("lukemelas/efficientnet-b2", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b2-8bb594d6.pth", 260, Some(79.8)),
    lukemelas("lukemelas/efficientnet-b3", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b3-5fb5a3c3.pth", 300, Some(81.1)),
    lukemelas("lukemelas/efficientnet-b4", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b4-6ed6700e.pth", 380, Some(82.6)),
    lukemelas("lukemelas/efficientnet-b5", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b5-b6417697.pth", 456, Some(83.3)),
    lukemelas("lukemelas/efficientnet-b6", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b6-c76e70fd.pth", 528, Some(84.0)),
    lukemelas("lukemelas/efficientnet-b7", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b7-dcc49843.pth", 600, Some(84.4)),
    lukemelas("lukemelas/adv-efficientnet-b0", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b0-b64d5a18.pth", 224, None),
    lukemelas("lukemelas/adv-efficientnet-b1", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b1-0f3ce85a.pth", 240, None),
    lukemelas("lukemelas/adv-efficientnet-b2", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b2-6e9d97e5.pth", 260, None),
    lukemelas("lukemelas/adv-efficientnet-b3", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b3-cdd7c0f4.pth", 300, None),
    lukemelas("lukemelas/adv-efficientnet-b4", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b4-44fb3a87.pth", 380, None),
    lukemelas("lukemelas/adv-efficientnet-b5", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b5-86493f6b.pth", 456, None),
    lukemelas("lukemelas/adv-efficientnet-b6", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b6-ac80338e.pth", 528, None),
    lukemelas("lukemelas/adv-efficientnet-b7", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b7-4652b6dd.pth", 600, None),
    lukemelas("lukemelas/adv-efficientnet-b8", "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b8-22a8fe65.pth", 672, None),
    url("d-li14/mobilenetv2_1.0", "https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/mobilenetv2_1.0-0c6065bc.pth", 224, Some((72.192, 90.534))),
    url("d-li14/mobilenetv2_0.75", "https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/mobilenetv2_0.75-dace9791.pth", 224, Some((69.952, 88.986))),
    url("d-li14/mobilenetv2_0.5", "https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/mobilenetv2_0.5-eaa6f9ad.pth", 224, Some((64.592, 85.392))),
    url("d-li14/mobilenetv2_0.35", "https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/mobilenetv2_0.35-b2e15951.pth", 224, Some((60.092, 82.172))),
    url("d-li14/mobilenetv2_0.25", "https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/mobilenetv2_0.25-b61d2159.pth", 224, Some((52.352, 75.932))),
    url("d-li14/mobilenetv2_0.1", "https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/mobilenetv2_0.1-7d1d638a.pth", 224, Some((34.896, 56.564))),
    hub("hf:google/mobilenet_v2_1.4_224", "google/mobilenet_v2_1.4_224", 224, Some((75.0, 92.5))),
    hub("hf:google/mobilenet_v2_1.0_224", "google/mobilenet_v2_1.0_224", 224, Some((71.8, 91.0))),
    hub("hf:google/mobilenet_v2_0.75_160", "google/mobilenet_v2_0.75_160", 160, Some((66.4, 87.3))),
    hub("hf:google/mobilenet_v2_0.35_96", "google/mobilenet_v2_0.35_96", 96, Some((45.5, 70.4))),
    hub("hf:google/efficientnet-b0", "google/efficientnet-b0", 224, None),
    hub("hf:google/efficientnet-b1", "google/efficientnet-b1", 240, None),
    hub("hf:google/efficientnet-b2", "google/efficientnet-b2", 260, None),
    hub("hf:google/efficientnet-b3", "google/efficientnet-b3", 300, None),
    hub("hf:google/efficientnet-b4", "google/efficientnet-b4", 380, None),
    hub("hf:google/efficientnet-b5", "google/efficientnet-b5", 456, None),
    hub("hf:google/efficientnet-b6", "google/efficientnet-b6", 528, None),
    hub("hf:google/efficientnet-b7", "google/efficientnet-b7", 600, None),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Spec;

    #[test]
    fn every_row_has_a_name_and_a_hash_or_repository() {
        let names: BTreeSet<&str> = PRETRAINED.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), PRETRAINED.len());
        for row in &PRETRAINED {
            match (Spec::parse(row.name).unwrap(), row.place) {
                (Spec::Url { url, sha256 }, Place::Url(place)) => {
                    assert_eq!(url, place);
                    assert_eq!(sha256.map(|hash| hash.len()), Some(8), "{}", row.name);
                }
                (Spec::HuggingFace { repository, file: None, .. }, Place::HuggingFace(place)) => {
                    assert_eq!(repository, place);
                }
                (found, place) => panic!("{found:?} {place:?}"),
            }
            let (top1, top5) = (row.top1.unwrap_or(50.0), row.top5.unwrap_or(99.0));
            assert!(30.0 < top1 && top1 < top5 && top5 < 100.0, "{}", row.name);
            assert!(row.top1.is_some() || row.top5.is_none(), "{}", row.name);
            assert!((96..=800).contains(&row.resolution));
        }
    }
}
