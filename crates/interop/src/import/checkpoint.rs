//! Locates the weights in a PyTorch checkpoint.

use std::path::Path;

use crate::import::error::ImportError;
use crate::import::keys;
use crate::import::pickle::{Id, Node, Pickle, Reason, TensorRef};

/// Keys under which training programs store weights, in order of preference. As in timm, averaged
/// weights come first.
const WEIGHT_KEYS: [&str; 16] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model_weights",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
];
/// Words in the keys of other tensors, such as those of optimizers.
const STATE_WORDS: [&str; 6] = ["optim", "sched", "scaler", "rng", "callback", "loop"];
/// Maximum depth of nested dictionaries that are searched.
const MAX_DEPTH: usize = 3;
/// Maximum number of values in a checkpoint's dictionaries.
const MAX_VALUES: usize = 1 << 20;
/// Maximum total length of tensor names in bytes, including the keys of outer dictionaries.
const MAX_NAMES: usize = 16 << 20;

/// The reason why a PyTorch file has no weights.
pub enum CheckpointError {
    /// The file is damaged or has an unknown format.
    Invalid(Reason),
    /// The file contains something else.
    NoWeights {
        /// Kind of the file, with an article.
        kind: String,
        /// Advice for the user.
        advice: String,
    },
}

impl From<Reason> for CheckpointError {
    fn from(reason: Reason) -> Self {
        Self::Invalid(reason)
    }
}

impl CheckpointError {
    /// Returns the error for the file `path`.
    pub fn at(self, path: &Path) -> ImportError {
        match self {
            Self::Invalid(reason) => ImportError::Format { path: path.display().to_string(), reason: reason.into() },
            Self::NoWeights { kind, advice } => ImportError::foreign(path, kind, advice),
        }
    }
}

/// Tensors by key.
pub type Tensors<'a> = Vec<(String, &'a TensorRef)>;

/// Returns the weights, and their key in the checkpoint.
pub fn weights<'a>(pickle: &'a Pickle, prefix: Option<&str>) -> Result<(Option<String>, Tensors<'a>), CheckpointError> {
    let Node::Dict(root) = pickle.get(pickle.root) else {
        return Err(pickled_object(pickle, pickle.root, "").unwrap_or(CheckpointError::NoWeights {
            kind: "a pickled Python object, not weights".into(),
            advice: "save the model's weights instead: `torch.save(model.state_dict(), \"weights.pth\")`".into(),
        }));
    };
    let all = gather(pickle, pickle.root, MAX_DEPTH)?;
    let direct = gather(pickle, pickle.root, 0)?.len();
    if let Some((key, dict)) = weights_dict(pickle, pickle.root, direct, 2) {
        let weights = gather(pickle, dict, 0)?;
        let has_prefix =
            |tensors: &Tensors| prefix.is_none_or(|prefix| tensors.iter().any(|(key, _)| keys::is_below(key, prefix)));
        if has_prefix(&weights) || !has_prefix(&all) {
            return Ok((Some(key), weights));
        }
    }
    if all.is_empty() { Err(without_weights(pickle, root)) } else { Ok((None, all)) }
}

/// Returns the tensors of a dictionary and of dictionaries in it, down to `depth`.
fn gather(pickle: &Pickle, dict: Id, depth: usize) -> Result<Tensors<'_>, Reason> {
    let mut found = Vec::new();
    let (mut values, mut name_bytes) = (0, 0);
    let mut open = vec![(dict, String::new(), depth)];
    while let Some((dict, scope, depth)) = open.pop() {
        let Node::Dict(pairs) = pickle.get(dict) else { continue };
        values += pairs.len();
        // A dictionary may occur several times.
        if values > MAX_VALUES {
            return Err("its dictionaries have more values than any checkpoint");
        }
        for &(key, value) in pairs {
            let Some(key) = pickle.text(key) else { continue };
            // A long key may be shared by all values.
            name_bytes += scope.len() + key.len();
            if name_bytes > MAX_NAMES {
                return Err("the names of its tensors are longer than any checkpoint's");
            }
            match pickle.get(value) {
                Node::Tensor(tensor) => found.push((format!("{scope}{key}"), &**tensor)),
                Node::Dict(_) if depth > 0 && !is_state(key) => open.push((value, format!("{scope}{key}."), depth - 1)),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Returns whether a key belongs to an optimizer or similar state.
fn is_state(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    STATE_WORDS.iter().any(|word| key.contains(word))
}

/// Returns the first of [`WEIGHT_KEYS`] whose dictionary has at least `least` tensors, directly or
/// under another of these keys, and that dictionary.
fn weights_dict(pickle: &Pickle, dict: Id, least: usize, depth: usize) -> Option<(String, Id)> {
    let Node::Dict(pairs) = pickle.get(dict) else { return None };
    WEIGHT_KEYS.iter().find_map(|name| {
        // The last value of a key is valid.
        let &(_, value) = pairs.iter().rev().find(|(key, _)| pickle.text(*key) == Some(name))?;
        let Node::Dict(entries) = pickle.get(value) else { return None };
        let tensors = entries.iter().filter(|(_, value)| matches!(pickle.get(*value), Node::Tensor(_))).count();
        if tensors > 0 && tensors >= least {
            return Some((name.to_string(), value));
        }
        let (inner, found) = (depth > 1).then(|| weights_dict(pickle, value, least.max(1), depth - 1)).flatten()?;
        Some((format!("{name}.{inner}"), found))
    })
}

/// Returns the error of a pickled object, under `key` of a checkpoint if not empty.
fn pickled_object(pickle: &Pickle, id: Id, key: &str) -> Option<CheckpointError> {
    let class = pickle.class(id)?;
    let (kind, part) = match key {
        "" => (format!("a pickled object (`{class}`), not weights"), String::new()),
        key => (format!("a checkpoint whose `{key}` is a pickled object (`{class}`)"), format!("[\"{key}\"]")),
    };
    let load = format!("torch.load(\"FILE\", weights_only=False){part}.state_dict()");
    let advice = format!("save its weights, where its code is installed: `torch.save({load}, \"weights.pth\")`");
    Some(CheckpointError::NoWeights { kind, advice })
}

/// Returns the error of a checkpoint without tensors.
fn without_weights(pickle: &Pickle, root: &[(Id, Id)]) -> CheckpointError {
    const LISTED: usize = 8;
    let keys: Vec<&str> = root.iter().filter_map(|(key, _)| pickle.text(*key)).collect();
    let pickled = |name: &&'static str| {
        let &(_, value) = root.iter().find(|(key, _)| pickle.text(*key) == Some(*name))?;
        pickled_object(pickle, value, name)
    };
    if let Some(error) = WEIGHT_KEYS.iter().find_map(pickled) {
        return error;
    }
    let optimizer = keys.contains(&"param_groups") || keys.iter().any(|key| is_state(key));
    let kind = if optimizer {
        "the state of an optimizer or scheduler, without weights"
    } else {
        "a PyTorch file without weights"
    };
    let listed: Vec<String> = keys.iter().take(LISTED).map(|key| format!("`{key}`")).collect();
    let keys = if listed.is_empty() { "it is empty".into() } else { format!("its keys are {}", listed.join(", ")) };
    CheckpointError::NoWeights {
        kind: format!("{kind} ({keys})"),
        advice: "use the file with the model's weights: `torch.save(model.state_dict(), \"weights.pth\")`".into(),
    }
}
