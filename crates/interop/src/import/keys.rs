//! Locates a network in the keys of a checkpoint: its prefix, its classifier, and keys outside of
//! it.
//!
//! Training programs wrap networks (`module.`, `model.backbone.`), store criteria and metrics
//! beside them, and replace their classifiers. The tensors of the stem show where the network is.
//! Every other tensor is part of it, known not to belong to any network, or an error.

use std::collections::{BTreeMap, BTreeSet};

use mbconv_nets::detect::Shapes;

/// Key names of a project's networks.
struct Project {
    /// A key of the stem or the first block that occurs once in every network of the project.
    anchor: &'static str,
    /// The prefix of the anchor in a complete network; absent if only this part of a network was
    /// saved.
    scope: &'static str,
    /// First components, after the scope, of all keys except the classifier's.
    body: &'static [&'static str],
    /// The last convolution, after the scope; `N` is the highest number in `features.N.0.weight`.
    head: &'static str,
    /// The classifier.
    classifier: &'static str,
}

const PROJECTS: [Project; 7] = [
    // torchvision's MobileNetV2 and EfficientNet.
    Project {
        anchor: "1.conv.0.0.weight",
        scope: "features.",
        body: &[],
        head: "N.0.weight",
        classifier: "classifier.1",
    },
    Project {
        anchor: "1.0.block.0.0.weight",
        scope: "features.",
        body: &[],
        head: "N.0.weight",
        classifier: "classifier.1",
    },
    // d-li14's MobileNetV2.
    Project {
        anchor: "features.1.conv.0.weight",
        scope: "",
        body: &["features", "conv"],
        head: "conv.0.weight",
        classifier: "classifier",
    },
    Project {
        anchor: "conv_stem.weight",
        scope: "",
        body: &["conv_stem", "bn1", "blocks", "conv_head", "bn2"],
        head: "conv_head.weight",
        classifier: "classifier",
    },
    Project {
        anchor: "_conv_stem.weight",
        scope: "",
        body: &["_conv_stem", "_bn0", "_blocks", "_conv_head", "_bn1"],
        head: "_conv_head.weight",
        classifier: "_fc",
    },
    // transformers' MobileNetV2 and EfficientNet.
    Project {
        anchor: "conv_stem.first_conv.convolution.weight",
        scope: "mobilenet_v2.",
        body: &["conv_stem", "layer", "conv_1x1"],
        head: "conv_1x1.convolution.weight",
        classifier: "classifier",
    },
    Project {
        anchor: "embeddings.convolution.weight",
        scope: "efficientnet.",
        body: &["embeddings", "encoder"],
        head: "encoder.top_conv.weight",
        classifier: "classifier",
    },
];

/// Key components that wrappers insert at any position.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// Words in key components of losses, metrics and counters, which do not belong to a network.
const BOOKKEEPING: [&str; 8] =
    ["criterion", "loss", "metric", "confmat", "accuracy", "n_averaged", "total_ops", "total_params"];
/// Words in the names of linear layers that are not classifiers.
const OTHER_LAYERS: [&str; 3] = ["proj", "embed", "neck"];
const BATCH_COUNTER: &str = "num_batches_tracked";

/// The classifier of a checkpoint's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Classifier {
    /// Has the project's usual key.
    Usual,
    /// Has another key, given without `.weight`: `classifier.1`, `head`.
    Renamed(String),
    /// Absent.
    Missing,
    /// More than a linear layer on the pooled features: keys and shapes of the weights.
    Several(Vec<String>),
}

/// A network located in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Key in the project of each of its tensors, by key in the checkpoint.
    pub names: BTreeMap<String, String>,
    /// Prefix of its keys in the checkpoint.
    pub prefix: String,
    /// Its classifier.
    pub classifier: Classifier,
    /// The classifier's usual key, without `.weight`.
    pub usual: &'static str,
    /// Number of features, if the last convolution is present.
    pub features: Option<usize>,
    /// Keys outside the network.
    pub ignored: Vec<String>,
}

/// The reason why no network was located.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// No key of any project occurs.
    Nothing,
    /// No key has the given prefix; lists the existing prefixes.
    NoSuchPrefix(Vec<String>),
    /// There are networks under several prefixes.
    Several(Vec<String>),
    /// There are tensors that may belong to the network: its prefix, and their keys and shapes.
    Beside(String, Vec<String>),
}

/// Locates the network in `shapes`, below `prefix` if given.
pub fn find(shapes: &Shapes, prefix: Option<&str>) -> Result<Found, NotFound> {
    let unwrapped = unwrap(shapes);
    // Shapes by key without wrappers.
    let shape = |key: &str| shapes[unwrapped[key]].as_slice();
    let given = prefix.map(|prefix| scope(prefix, &unwrapped));
    let (mut inside, mut ignored): (Vec<&str>, Vec<&str>) =
        unwrapped.keys().map(String::as_str).partition(|key| key.starts_with(given.as_deref().unwrap_or_default()));
    if inside.is_empty() {
        let tops = || NotFound::NoSuchPrefix(tops(unwrapped.keys().map(String::as_str)));
        return Err(given.map_or(NotFound::Nothing, |_| tops()));
    }
    let (bookkeeping, rest) = inside.into_iter().partition(|key| is_bookkeeping(key));
    (inside, ignored) = (rest, [ignored, bookkeeping].concat());

    let (project, root, scoped) = locate(&inside, given.as_deref().unwrap_or_default())?;
    let scope = if scoped { project.scope } else { "" };
    let body = format!("{root}{scope}");
    let is_body = |key: &str| {
        let first = key.strip_prefix(&body).and_then(|rest| rest.split('.').next());
        first.is_some_and(|first| match project.body {
            [] => first.bytes().all(|byte| byte.is_ascii_digit()),
            known => known.contains(&first),
        })
    };
    let (network, others): (Vec<&str>, Vec<&str>) = inside.into_iter().partition(|key| is_body(key));
    let mut names: BTreeMap<String, String> =
        network.iter().map(|key| (key.to_string(), format!("{}{}", project.scope, &key[body.len()..]))).collect();
    let features = features(project, &names, &unwrapped, shapes);

    let usual = format!("{root}{}", project.classifier);
    let tensors: Vec<&str> = others.iter().copied().filter(|key| !key.ends_with(BATCH_COUNTER)).collect();
    let classifier = classifier(&usual, root_of_classifier(&root, project), &tensors, features, &shape);
    let renamed = match &classifier {
        Classifier::Usual => Some(usual.clone()),
        Classifier::Renamed(key) => Some(key.clone()),
        Classifier::Missing | Classifier::Several(_) => None,
    };
    for key in others {
        let tail = renamed.as_ref().and_then(|at| key.strip_prefix(at.as_str())).filter(|tail| tail.starts_with('.'));
        match (tail, &classifier) {
            (Some(tail), _) => drop(names.insert(key.into(), format!("{}{tail}", project.classifier))),
            // Part of an unusable classifier.
            (None, Classifier::Several(_)) => ignored.push(key),
            // Compared with the network's expected tensors later.
            (None, _) if key.starts_with(&root) => {
                names.insert(key.into(), key[root.len()..].to_string());
            }
            (None, _) => ignored.push(key),
        }
    }
    let beside: Vec<&str> = ignored
        .iter()
        .copied()
        .filter(|key| given.is_none() && renamed.is_some() && !is_bookkeeping(key) && !key.ends_with(BATCH_COUNTER))
        .filter(|key| shape(key).iter().product::<usize>() > 1)
        .collect();
    if !beside.is_empty() {
        return Err(NotFound::Beside(root, listed(&beside, &shape)));
    }
    let original = |key: &str| unwrapped[key].to_string();
    Ok(Found {
        names: names.iter().map(|(key, name)| (original(key), name.clone())).collect(),
        prefix: root,
        classifier,
        usual: project.classifier,
        features,
        ignored: ignored.into_iter().map(original).collect(),
    })
}

/// Returns the keys of `shapes` below `prefix`, mapped to their names without prefix and wrappers.
pub fn plain(shapes: &Shapes, prefix: Option<&str>) -> BTreeMap<String, String> {
    let unwrapped = unwrap(shapes);
    let prefix = prefix.map(|prefix| scope(prefix, &unwrapped)).unwrap_or_default();
    unwrapped
        .into_iter()
        .filter_map(|(name, key)| Some((key.to_string(), name.strip_prefix(&prefix)?.to_string())))
        .collect()
}

/// Returns whether `key` is below `prefix`, ignoring wrappers.
pub fn is_below(key: &str, prefix: &str) -> bool {
    key.starts_with(prefix) || without_wrappers(key).starts_with(&without_wrappers(prefix))
}

/// Converts a prefix given by the user to the form in `unwrapped` keys, with a trailing dot.
fn scope(prefix: &str, unwrapped: &BTreeMap<String, &str>) -> String {
    let whole = prefix.trim_end_matches('.');
    let plain = without_wrappers(whole);
    let unchanged = unwrapped.iter().all(|(key, original)| key == original);
    let prefix = if unchanged { whole.to_string() } else { plain };
    if prefix.is_empty() { prefix } else { prefix + "." }
}

/// Maps keys without wrappers to the original keys. Wrappers are kept if two keys would coincide.
fn unwrap(shapes: &Shapes) -> BTreeMap<String, &str> {
    let plain: BTreeMap<String, &str> = shapes.keys().map(|key| (without_wrappers(key), key.as_str())).collect();
    if plain.len() == shapes.len() { plain } else { shapes.keys().map(|key| (key.clone(), key.as_str())).collect() }
}

fn without_wrappers(key: &str) -> String {
    let parts = key.split('.').filter(|part| !WRAPPERS.contains(part));
    parts.collect::<Vec<_>>().join(".")
}

fn is_bookkeeping(key: &str) -> bool {
    let known =
        |part: &str| BOOKKEEPING.iter().any(|word| part.contains(word)) || part == "acc" || part.ends_with("_acc");
    key.split('.').any(|part| known(&part.to_ascii_lowercase()))
}

/// Returns the first components of keys.
fn tops<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<String> {
    let tops: BTreeSet<&str> = keys.filter_map(|key| Some(key.split_once('.')?.0)).collect();
    tops.into_iter().map(|top| format!("{top}.")).collect()
}

/// Returns the project of the network below `given`, its prefix, and whether its keys have the
/// scope.
fn locate(keys: &[&str], given: &str) -> Result<(&'static Project, String, bool), NotFound> {
    let mut found: Vec<(&Project, String, bool)> = Vec::new();
    for project in &PROJECTS {
        for key in keys {
            let Some(before) = key.strip_suffix(project.anchor) else { continue };
            if !before.is_empty() && !before.ends_with('.') {
                continue;
            }
            let root = before.strip_suffix(project.scope).filter(|root| root.is_empty() || root.ends_with('.'));
            found.push((project, root.unwrap_or(before).into(), root.is_some()));
        }
    }
    match found.iter().find(|(_, root, _)| !given.is_empty() && root == given) {
        Some(exact) => Ok(exact.clone()),
        None if found.len() > 1 => {
            let prefixes: BTreeSet<&String> = found.iter().map(|(_, root, _)| root).collect();
            Err(NotFound::Several(prefixes.into_iter().cloned().collect()))
        }
        None => found.pop().ok_or(NotFound::Nothing),
    }
}

fn features(
    project: &Project,
    names: &BTreeMap<String, String>,
    unwrapped: &BTreeMap<String, &str>,
    shapes: &Shapes,
) -> Option<usize> {
    let tail = project.head.strip_prefix('N');
    let number = |name: &str| -> Option<usize> {
        match tail {
            None => (name.strip_prefix(project.scope)? == project.head).then_some(0),
            Some(tail) => name.strip_prefix(project.scope)?.strip_suffix(tail)?.parse().ok(),
        }
    };
    let last = names.iter().filter_map(|(key, name)| Some((number(name)?, key))).max()?;
    shapes[unwrapped[last.1]].first().copied()
}

/// Returns the first component of the classifier's keys, with the prefix.
fn root_of_classifier(root: &str, project: &Project) -> String {
    let first = project.classifier.split('.').next().unwrap_or_default();
    format!("{root}{first}.")
}

/// Finds the classifier among the tensors outside the network's body.
fn classifier<'a>(
    usual: &str,
    scope: String,
    others: &[&str],
    features: Option<usize>,
    shape: &impl Fn(&str) -> &'a [usize],
) -> Classifier {
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{usual}.{part}"));
    let matrices = || -> Vec<&str> { others.iter().copied().filter(|key| shape(key).len() > 1).collect() };
    if others.contains(&weight.as_str()) {
        let more = others.iter().any(|key| key.starts_with(&scope) && **key != weight && **key != bias);
        return if more { Classifier::Several(listed(&matrices(), shape)) } else { Classifier::Usual };
    }
    match others {
        [] => Classifier::Missing,
        [bias, weight] if is_linear(weight, bias, features, shape) => {
            Classifier::Renamed(weight.trim_end_matches(".weight").into())
        }
        _ if others.contains(&bias.as_str()) => Classifier::Usual,
        others => {
            let matrices = matrices();
            Classifier::Several(listed(if matrices.is_empty() { others } else { &matrices }, shape))
        }
    }
}

fn is_linear<'a>(weight: &str, bias: &str, features: Option<usize>, shape: &impl Fn(&str) -> &'a [usize]) -> bool {
    let (Some(layer), &[classes, inputs]) = (weight.strip_suffix(".weight"), shape(weight)) else { return false };
    let named = !OTHER_LAYERS.iter().any(|word| layer.to_ascii_lowercase().contains(word));
    let pair = bias.strip_suffix(".bias") == Some(layer) && *shape(bias) == [classes];
    named && pair && features == Some(inputs)
}

/// Lists the first few keys with their shapes.
fn listed<'a>(keys: &[&str], shape: &impl Fn(&str) -> &'a [usize]) -> Vec<String> {
    const LISTED: usize = 6;
    keys.iter().take(LISTED).map(|key| format!("`{key}` {:?}", shape(key))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shapes(keys: &[(&str, &[usize])]) -> Shapes {
        keys.iter().map(|(key, shape)| (key.to_string(), shape.to_vec())).collect()
    }

    const BODY: [(&str, &[usize]); 3] =
        [("conv_stem.weight", &[16, 3, 3, 3]), ("conv_head.weight", &[8, 4, 1, 1]), ("bn2.bias", &[8])];

    fn with(more: &[(&str, &[usize])]) -> Shapes {
        shapes(&[&BODY[..], more].concat())
    }

    #[test]
    fn classifier_is_the_only_linear_layer_on_the_features() {
        let linear = |key: &str| [(format!("{key}.weight"), vec![3, 8]), (format!("{key}.bias"), vec![3])];
        for (key, expected) in [
            ("classifier", Classifier::Usual),
            ("classifier.1", Classifier::Renamed("classifier.1".into())),
            ("head.fc", Classifier::Renamed("head.fc".into())),
            ("projection", Classifier::Several(vec!["`projection.weight` [3, 8]".into()])),
        ] {
            let mut found = with(&[]);
            found.extend(linear(key));
            assert_eq!(find(&found, None).unwrap().classifier, expected, "{key}");
        }
        assert_eq!(find(&with(&[]), None).unwrap().classifier, Classifier::Missing);
        // A different number of features, or no bias.
        for more in
            [[("head.weight", &[3, 9][..]), ("head.bias", &[3][..])], [("head.weight", &[3, 8]), ("norm.weight", &[8])]]
        {
            assert!(matches!(find(&with(&more), None).unwrap().classifier, Classifier::Several(_)), "{more:?}");
        }
    }

    #[test]
    fn wrappers_are_removed_unless_keys_would_coincide() {
        let found = find(&shapes(&[("a.module.conv_stem.weight", &[16, 3, 3, 3])]), None).unwrap();
        assert_eq!((found.prefix.as_str(), found.names.len()), ("a.", 1));
        assert_eq!(found.names["a.module.conv_stem.weight"], "conv_stem.weight");
        let twice = shapes(&[("conv_stem.weight", &[16, 3, 3, 3]), ("module.conv_stem.weight", &[16, 3, 3, 3])]);
        assert_eq!(find(&twice, None), Err(NotFound::Several(vec![String::new(), "module.".into()])));
        assert_eq!(find(&twice, Some("module.")).unwrap().names.len(), 1);
    }

    proptest! {
        #[test]
        fn arbitrary_keys_do_not_panic(
            keys in prop::collection::btree_map(
                "(|a\\.|module\\.|features\\.)(conv_stem|_fc|1\\.conv\\.0\\.0|classifier|0\\.0|é|)\\.?(weight|bias|)",
                prop::collection::vec(0usize..9, 0..5),
                0..8,
            ),
            prefix in prop::option::of("(a|module|features|)\\.?"),
        ) {
            let _ = find(&keys, prefix.as_deref());
            let _ = plain(&keys, prefix.as_deref());
        }
    }
}
