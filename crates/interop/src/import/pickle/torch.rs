//! PyTorch's functions and persistent ids that describe tensors.

use super::machine::Machine;
use super::value::{Element, Id, Node, TensorRef};

/// Maximum number of dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

impl Machine<'_> {
    /// Returns the result of a known function, without calling it.
    pub fn apply(&self, function: Id, arguments: Id) -> Node {
        let (Node::Global(name), Some(arguments)) = (&self.nodes[function as usize], self.items(arguments)) else {
            return Node::Opaque;
        };
        let result = match name.as_str() {
            "collections.OrderedDict" | "collections.defaultdict" => Some(Node::Dict(Vec::new())),
            "torch.Size" => arguments.first().and_then(|&items| {
                let items = self.items(items).filter(|items| items.len() <= MAX_DIMENSIONS)?;
                Some(Node::Tuple(items.to_vec()))
            }),
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => self.tensor(arguments, None),
            "torch._utils._rebuild_tensor_v3" => self.tensor(arguments, arguments.get(6).copied()),
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                match arguments.first().map(|&data| &self.nodes[data as usize]) {
                    Some(tensor @ Node::Tensor(_)) => Some(tensor.clone()),
                    _ => None,
                }
            }
            _ => None,
        };
        result.unwrap_or(Node::Opaque)
    }

    /// Returns the tensor for `(storage, offset, shape, strides, …)`.
    fn tensor(&self, arguments: &[Id], dtype: Option<Id>) -> Option<Node> {
        let [storage, offset, shape, strides, ..] = *arguments else { return None };
        let &Node::Storage(element, key) = &self.nodes[storage as usize] else { return None };
        let element = match dtype.map(|dtype| &self.nodes[dtype as usize]) {
            None => element,
            Some(Node::Global(name)) => Element::from_name(name.strip_prefix("torch.")?)?,
            Some(_) => return None,
        };
        let size = |id: Id| match self.nodes[id as usize] {
            Node::Int(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let sizes = |id: Id| -> Option<Vec<usize>> {
            let items = self.items(id).filter(|items| items.len() <= MAX_DIMENSIONS)?;
            items.iter().map(|&item| size(item)).collect()
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        let offset = size(offset)?;
        (shape.len() == strides.len())
            .then(|| Node::Tensor(Box::new(TensorRef { element, storage: key, offset, shape, strides })))
    }

    /// Returns the storage for the persistent id `("storage", class, key, location, length)`.
    pub fn storage(&self, id: Id) -> Node {
        let storage = || {
            let [kind, class, key, ..] = *self.items(id)? else { return None };
            let is_storage = matches!(&self.nodes[kind as usize], Node::Text(kind) if kind == "storage");
            let Node::Global(class) = &self.nodes[class as usize] else { return None };
            let class = class.strip_prefix("torch.storage.").or_else(|| class.strip_prefix("torch."))?;
            let is_key = matches!(&self.nodes[key as usize], Node::Text(_));
            (is_storage && is_key).then_some(Node::Storage(Element::from_name(class)?, key))
        };
        storage().unwrap_or(Node::Opaque)
    }

    /// Returns the items of a tuple or list.
    fn items(&self, id: Id) -> Option<&[Id]> {
        match &self.nodes[id as usize] {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }
}
