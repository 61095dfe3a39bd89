//! Values of a pickle.

/// Index of a [`Node`].
pub type Id = u32;

/// Element type of a storage or tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F64,
    F32,
    F16,
    Bf16,
    /// A type without weights: its size in bytes, and a description for the user.
    Other(usize, &'static str),
}

/// Descriptions of element types without weights.
pub const INTEGERS: &str = "integers";
pub const SMALL_FLOATS: &str = "floats of 8 bits or fewer";
pub const COMPLEX: &str = "complex numbers";

impl Element {
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other(size, _) => size,
        }
    }

    /// Returns the type for the name of a storage class or dtype, without `torch.`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" | "float64" | "double" => Self::F64,
            "FloatStorage" | "float32" | "float" => Self::F32,
            "HalfStorage" | "float16" | "half" => Self::F16,
            "BFloat16Storage" | "bfloat16" => Self::Bf16,
            "LongStorage" | "int64" | "uint64" => Self::Other(8, INTEGERS),
            "IntStorage" | "int32" | "uint32" => Self::Other(4, INTEGERS),
            "ShortStorage" | "int16" | "uint16" => Self::Other(2, INTEGERS),
            "CharStorage" | "ByteStorage" | "BoolStorage" | "int8" | "uint8" | "bool" | "UntypedStorage" => {
                Self::Other(1, INTEGERS)
            }
            "ComplexDoubleStorage" | "complex128" => Self::Other(16, COMPLEX),
            "ComplexFloatStorage" | "complex64" => Self::Other(8, COMPLEX),
            // Such as `float8_e4m3fn`.
            name if name.starts_with("float8_") => Self::Other(1, SMALL_FLOATS),
            _ => return None,
        })
    }
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorRef {
    pub element: Element,
    /// Text node with the storage's key.
    pub storage: Id,
    /// Index of the first element in the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Node {
    None,
    Bool,
    Int(i64),
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`
    Global(String),
    /// A storage in the file: its element type and the text node with its key.
    Storage(Element, Id),
    Tensor(Box<TensorRef>),
    /// An object whose class is this node.
    Object(Id),
    /// Any other value.
    Opaque,
}

/// All values of a pickle.
#[derive(Debug)]
pub struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub root: Id,
    /// Length of the pickle in bytes.
    pub length: usize,
}

impl Pickle {
    pub fn get(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the class name of an object.
    pub fn class(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Object(class) => match self.get(*class) {
                Node::Global(name) => Some(name),
                _ => Some("unknown"),
            },
            _ => None,
        }
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }
}
