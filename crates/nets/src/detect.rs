//! Detects the network and the layout of a state dictionary from its keys and shapes.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::ArchitectureError;
use crate::layout::{Layout, TensorInfo};
use crate::options::NetworkOptions;
use crate::registry::{NAMES, TENSORFLOW};
use crate::weights::shown;

/// Shapes of a state dictionary's tensors, by key.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Suffix of PyTorch's batch counter, which no network needs.
const BATCH_COUNTER: &str = "num_batches_tracked";
/// Number of keys of each kind that an error shows.
const SHOWN: usize = 8;

/// A detected network.
#[derive(Clone, Debug, PartialEq)]
pub struct Detected {
    /// Layout of the keys.
    pub layout: Layout,
    /// The network, with the file's number of classes and input channels. Its name has no prefix
    /// `tf_` unless the name was given, since shapes do not show the padding.
    pub options: NetworkOptions,
}

/// Differences between a state dictionary and a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Keys that the file lacks.
    pub missing: Vec<String>,
    /// Keys that the network does not have.
    pub unused: Vec<String>,
    /// Keys with other shapes: key, shape in the file, shape in the network.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Difference {
    fn count(&self) -> usize {
        self.missing.len() + self.unused.len() + self.misshapen.len()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let misshapen = self.misshapen.iter().map(|(key, found, expected)| format!("{key} {found:?} for {expected:?}"));
        let kinds = [
            ("missing", self.missing.clone()),
            ("unused", self.unused.clone()),
            ("of another shape", misshapen.collect()),
        ];
        let mut separator = "";
        for (kind, keys) in kinds.iter().filter(|(_, keys)| !keys.is_empty()) {
            write!(f, "{separator}{} {kind}: {}", keys.len(), keys[..keys.len().min(SHOWN)].join(", "))?;
            if keys.len() > SHOWN {
                f.write_str(", …")?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// No network was detected.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DetectError {
    /// The keys belong to no known project.
    #[error("its {tensors} tensors have keys of no known layout{}", first.as_ref().map(|key| format!(", such as `{key}`")).unwrap_or_default())]
    UnknownLayout {
        /// Number of tensors.
        tensors: usize,
        /// One of the keys.
        first: Option<String>,
    },
    /// The layout is known, but no network fits.
    #[error("it does not fit {name} in the layout of {layout:?}{}: {difference}", if *.nearest { ", the nearest known network" } else { "" })]
    Unfit {
        /// Name of the network.
        name: String,
        /// Layout.
        layout: Layout,
        /// Whether the network is the nearest one, rather than the given one.
        nearest: bool,
        /// Differences.
        difference: Difference,
    },
    /// The given name is unknown.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
}

/// Finds the network whose tensors are exactly those of `shapes`, or checks the network called
/// `name`.
///
/// # Errors
/// No layout or no network fits. The error lists the differences to the nearest network.
pub fn detect(shapes: &Shapes, name: Option<&str>) -> Result<Detected, DetectError> {
    let names = name.map_or_else(candidates, |name| vec![name.to_string()]);
    let mut nearest: Option<(Difference, Detected)> = None;
    for name in names {
        let mut options = NetworkOptions::new(name, 1);
        let architecture = options.architecture()?;
        let Some(layout) = Layout::detect(&architecture, |key| shapes.contains_key(key)) else { continue };
        let list = layout.tensors(&architecture);
        let shape_of = |path: &str| list.iter().find(|info| info.path == path).and_then(|info| shapes.get(&info.key));
        if let Some(&[classes, _]) = shape_of("classifier.weight").map(Vec::as_slice) {
            options.num_classes = classes;
        }
        if let Some(&[_, channels, _, _]) = shape_of("stem.weight").map(Vec::as_slice) {
            options.input_channels = channels;
        }
        let architecture = options.architecture()?;
        let difference = compare(shapes, &layout.tensors(&architecture));
        let found = Detected { layout, options };
        if difference.count() == 0 {
            return Ok(found);
        }
        if nearest.as_ref().is_none_or(|(best, _)| difference.count() < best.count()) {
            nearest = Some((difference, found));
        }
    }
    match nearest {
        None => {
            Err(DetectError::UnknownLayout { tensors: shapes.len(), first: shapes.keys().next().map(|key| shown(key)) })
        }
        Some((difference, Detected { layout, options })) => {
            Err(DetectError::Unfit { name: options.name, layout, nearest: name.is_none(), difference })
        }
    }
}

/// Lists the published networks, then MobileNetV2 at widths in steps of 0.05.
fn candidates() -> Vec<String> {
    let published = NAMES.into_iter().filter(|name| !name.starts_with(TENSORFLOW)).map(String::from);
    published.chain((2..=40).map(|width| format!("mobilenet_v2_{}", f64::from(width) / 20.0))).collect()
}

fn compare(shapes: &Shapes, list: &[TensorInfo]) -> Difference {
    let mut difference = Difference::default();
    for info in list {
        match shapes.get(&info.key) {
            None => difference.missing.push(info.key.clone()),
            Some(shape) if *shape != info.shape => {
                difference.misshapen.push((info.key.clone(), shape.clone(), info.shape.clone()));
            }
            Some(_) => {}
        }
    }
    let known: std::collections::HashSet<&str> = list.iter().map(|info| info.key.as_str()).collect();
    let unused = shapes.keys().filter(|key| !known.contains(key.as_str()) && !key.ends_with(BATCH_COUNTER));
    difference.unused = unused.map(|key| shown(key)).collect();
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(name: &str, classes: usize, layout: Layout) -> Shapes {
        let architecture = NetworkOptions::new(name, classes).architecture().unwrap();
        layout.tensors(&architecture).into_iter().map(|info| (info.key, info.shape)).collect()
    }

    #[test]
    fn every_published_network_is_found_in_every_layout() {
        for name in NAMES.into_iter().filter(|name| !name.starts_with(TENSORFLOW)) {
            let architecture = NetworkOptions::new(name, 1000).architecture().unwrap();
            for layout in Layout::ALL.into_iter().filter(|layout| layout.holds(&architecture)) {
                let found = detect(&shapes(name, 37, layout), None).unwrap();
                assert_eq!((found.layout, found.options), (layout, NetworkOptions::new(name, 37)));
            }
        }
    }

    #[test]
    fn odd_widths_and_channels_are_found() {
        let mut options = NetworkOptions::new("mobilenet_v2_0.6", 3);
        options.input_channels = 1;
        let architecture = options.architecture().unwrap();
        let shapes = Layout::Timm.tensors(&architecture).into_iter().map(|info| (info.key, info.shape)).collect();
        assert_eq!(detect(&shapes, None).unwrap().options, options);
    }

    #[test]
    fn differences_are_listed() {
        let mut b0 = shapes("efficientnet_b0", 10, Layout::Lukemelas);
        b0.remove("_blocks.3._bn1.running_mean");
        b0.insert("extra.weight".into(), vec![1]);
        b0.insert("_conv_head.weight".into(), vec![1280, 320, 3, 3]);
        b0.insert("_bn1.num_batches_tracked".into(), vec![]);
        let error = detect(&b0, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it does not fit efficientnet_b0 in the layout of Lukemelas, the nearest known network: \
             1 missing: _blocks.3._bn1.running_mean; 1 unused: extra.weight; \
             1 of another shape: _conv_head.weight [1280, 320, 3, 3] for [1280, 320, 1, 1]"
        );
        let error = detect(&shapes("efficientnet_b1", 10, Layout::Timm), Some("efficientnet_b0")).unwrap_err();
        assert!(error.to_string().contains("unused"), "{error}");
        let error = detect(&Shapes::from([("layer1.weight".into(), vec![2])]), None).unwrap_err();
        assert_eq!(error.to_string(), "its 1 tensors have keys of no known layout, such as `layer1.weight`");
        assert!(detect(&Shapes::new(), Some("resnet50")).is_err());
    }

    #[test]
    fn untrusted_keys_are_escaped_and_shortened() {
        let key = format!("\x1b[2J{}", "x".repeat(1 << 20));
        let error = detect(&Shapes::from([(key.clone(), vec![1])]), None).unwrap_err().to_string();
        assert!(error.len() < 300 && error.contains("\\u{1b}[2Jxxx") && !error.contains('\x1b'), "{error}");
        let mut b0 = shapes("efficientnet_b0", 10, Layout::Timm);
        b0.insert(key, vec![1]);
        let error = detect(&b0, None).unwrap_err().to_string();
        assert!(error.len() < 400 && error.contains("1 unused"), "{error}");
    }

    #[test]
    fn hostile_shapes_are_refused_without_allocating() {
        let mut b0 = shapes("efficientnet_b0", 10, Layout::Timm);
        b0.insert("classifier.weight".into(), vec![1 << 60, 1280]);
        assert!(matches!(detect(&b0, None), Err(DetectError::Architecture(_))));
        b0.insert("classifier.weight".into(), vec![0, 1280]);
        assert!(detect(&b0, None).is_err());
    }
}
