//! Which kernel computes a product of matrices. CubeCL has two dozen; to compile them all for every product of a network takes
//! minutes. Here are those that were the quickest, or nearly, for products whose matrices are long and thin (measured on an H200, see
//! docs/gpu.md), and one of our own. The first product of a kind tries two or three and what it finds is kept (see `settings`).

use burn_cubecl::{
    CubeTuneId,
    cubecl::ir::{ElemType, FloatKind},
    cubecl::tune::{LocalTuner, Tunable, TunableSet, TuneGroup, local_tuner},
    kernel::cast,
    tensor::CubeTensor,
};
use cubek::{
    matmul::{
        definition::{MatmulElems, MatmulGlobalElems, MatmulSetupError},
        launch::launch_ref,
        multi_level::{
            Strategy as Kernel,
            components::tile::TileMatmulKind,
            routines::{
                TileSizeSelection,
                batch::{
                    double_unit::DoubleUnitSelectionArgs, ordered_double_buffering::OrderedSelectionArgs,
                    simple::SimpleArgs, simple_unit::SimpleUnitSelectionArgs,
                },
            },
        },
        routine::BlueprintStrategy::Inferred,
        tune_key::MatmulAutotuneKey,
    },
    std::InputBinding,
};

use super::{element, sums, tall};

/// Terms of each of the sums that one sum is cut into, at least.
pub const MANY_TERMS: usize = 512;

type Operands = (CubeTensor, CubeTensor, CubeTensor);
type Tuner = LocalTuner<MatmulAutotuneKey, CubeTuneId>;

/// Writes `left` [.., M, K] times `right` [.., K, N], rounded to the precision of `left`, into `y` [.., M, N].
pub fn product(left: CubeTensor, right: CubeTensor, y: CubeTensor) {
    static TUNER: Tuner = local_tuner!();
    static PLAIN: Tuner = local_tuner!("plain");
    let (client, id) = (left.client.clone(), CubeTuneId::new(&left.client, &left.device));
    let (tuner, kernels) = match uses_tensor_cores(&left) {
        true => (&TUNER, TUNER.init(&id, || candidates(true))),
        false => (&PLAIN, PLAIN.init(&id, || candidates(false))),
    };
    tuner.execute(&id, &client, kernels, (left, right, y));
}

/// Are products of such factors computed by tensor cores? They round single precision to 10 bits (TF32), which
/// `NVIDIA_TF32_OVERRIDE=0` forbids as it does for NVIDIA's own libraries.
pub fn uses_tensor_cores(factor: &CubeTensor) -> bool {
    let matmul = &factor.client.properties().features.matmul;
    let present = !(matmul.cmma.is_empty() && matmul.mma.is_empty());
    let rounds = element(factor) == ElemType::Float(FloatKind::F32);
    present && !(rounds && std::env::var("NVIDIA_TF32_OVERRIDE").is_ok_and(|value| value == "0"))
}

/// What is tried: kernels for tensor cores if they may be used, and those without where none of these can do it.
fn candidates(tensor_cores: bool) -> TunableSet<MatmulAutotuneKey, Operands, ()> {
    let accelerated = TuneGroup::new("tensor cores", |_: &MatmulAutotuneKey| 1);
    let plain = TuneGroup::new("plain", |_: &MatmulAutotuneKey| 0);
    let mut set = TunableSet::new_cloning_inputs(key);
    let others: Vec<Kernel> = plain_kernels().map(|(kernel, _)| kernel).into();
    for (kernel, rank) in plain_kernels() {
        set = set.with(tunable(&kernel.to_string(), cubecls(kernel), others.clone()).group(&plain, move |_| rank));
    }
    if tensor_cores {
        let tried = |kinds: &'static [Kind]| {
            move |key: &MatmulAutotuneKey| if kinds.contains(&Kind::of(key)) { 0 } else { NEVER }
        };
        let others = |kinds: &[Kind]| {
            let alike =
                accelerated_kernels().into_iter().filter(|(_, others)| others.iter().any(|k| kinds.contains(k)));
            alike.map(|(kernel, _)| kernel).chain(others.clone()).collect()
        };
        for (kernel, kinds) in accelerated_kernels() {
            let kernel = tunable(&kernel.to_string(), cubecls(kernel), others(kinds));
            set = set.with(kernel.group(&accelerated, tried(kinds)));
        }
        for (name, product, kinds) in own_kernels() {
            set = set.with(tunable(name, product, others(kinds)).group(&accelerated, tried(kinds)));
        }
    }
    set
}

/// The rank of a kernel that is not tried.
const NEVER: i8 = -1;

/// Kernels without tensor cores; those of the highest rank are tried, the others if all those fail.
fn plain_kernels() -> [(Kernel, i8); 4] {
    use TileSizeSelection::{MaxTileSize, MinTileSize};
    let simple = |tile_size| Kernel::SimpleUnit(Inferred(SimpleUnitSelectionArgs { tile_size }));
    let double = Kernel::DoubleUnit(Inferred(DoubleUnitSelectionArgs { tile_size: MaxTileSize }));
    [(Kernel::Naive, 0), (simple(MaxTileSize), 1), (simple(MinTileSize), 1), (double, 1)]
}

/// Kernels for tensor cores, with the products for which they are tried.
fn accelerated_kernels() -> [(Kernel, &'static [Kind]); 4] {
    use TileMatmulKind::{Cmma, Mma};
    let simple = |multi_rows, tile_matmul| SimpleArgs { multi_rows, tile_matmul };
    let ordered =
        OrderedSelectionArgs { partition_k: Some(2), row_count: Some(4), rows_per_plane: Some(2), tile_matmul: Mma };
    [
        (Kernel::SimpleCyclicMma(Inferred(simple(true, Mma))), &[Kind::Narrow, Kind::Wide, Kind::Long]),
        (Kernel::SimpleCyclicCmma(Inferred(simple(false, Cmma))), &[Kind::Small, Kind::Narrow]),
        (Kernel::SimpleCyclicCmma(Inferred(simple(true, Cmma))), &[Kind::Wide]),
        (Kernel::OrderedDoubleMma(Inferred(ordered)), &[Kind::Long]),
    ]
}

/// What makes one kernel or another quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Too small for the choice to matter.
    Small,
    /// Few columns, and sums of few terms.
    Narrow,
    /// Many columns, and sums of few terms.
    Wide,
    /// Sums so long that it is worth to load some terms while others are computed.
    Long,
}

impl Kind {
    /// Multiplications of a small product, at most.
    const SMALL: usize = 1 << 25;
    /// Columns of a wide product, at least.
    const WIDE: usize = 64;
    /// Terms of a long sum, at least.
    const LONG: usize = 256;

    fn of(key: &MatmulAutotuneKey) -> Self {
        let [rows, columns, terms] = [key.definition.m, key.definition.n, key.definition.k];
        // Of sums in slices one alone may be small, but never all of them.
        let small = terms < MANY_TERMS && rows.saturating_mul(columns).saturating_mul(terms) <= Self::SMALL;
        if small {
            Self::Small
        } else if terms >= Self::LONG {
            Self::Long
        } else if columns >= Self::WIDE {
            Self::Wide
        } else {
            Self::Narrow
        }
    }
}

/// Writes a product, if it is one for which the kernel is made.
type Product = fn(&CubeTensor, &CubeTensor, &CubeTensor) -> bool;

/// Kernels of our own, with the products for which they are tried.
fn own_kernels() -> [(&'static str, Product, &'static [Kind]); 2] {
    [("tall", tall::product, &[Kind::Narrow, Kind::Wide]), ("sums", sums::product, &[Kind::Long])]
}

/// A kernel that is tried. Other products share what was found; one of them that it refuses is left to the first of `others` that takes it.
fn tunable(
    name: &str,
    product: impl Fn(&CubeTensor, &CubeTensor, &CubeTensor) -> bool + Send + Sync + 'static,
    others: Vec<Kernel>,
) -> Tunable<MatmulAutotuneKey, Operands, ()> {
    let others: Vec<_> = others.into_iter().map(cubecls).collect();
    Tunable::new(name, move |(left, right, y): Operands| {
        match product(&left, &right, &y) || others.iter().any(|other| other(&left, &right, &y)) {
            true => Ok(()),
            false => Err("no kernel for this product".to_string()),
        }
    })
}

/// A kernel of CubeCL's.
fn cubecls(kernel: Kernel) -> impl Fn(&CubeTensor, &CubeTensor, &CubeTensor) -> bool + Send + Sync + 'static {
    move |left, right, y| launch(&kernel, left.clone(), right.clone(), y.clone()).is_ok()
}

fn launch(kernel: &Kernel, left: CubeTensor, right: CubeTensor, y: CubeTensor) -> Result<(), MatmulSetupError> {
    let (client, factor, result) = (y.client.clone(), element(&left), element(&y));
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: factor, rhs: factor, out: result });
    let right = cast(right, left.dtype);
    let [left, right] = [left, right].map(|operand| InputBinding::new(operand.binding(), factor));
    launch_ref(&kernel.clone().into(), &client, left, right, y.binding(), &mut elements)
}

/// Products of a kind share what was found: sizes up to the next power of two, order in memory, alignment and precision.
fn key((left, right, y): &Operands) -> MatmulAutotuneKey {
    MatmulAutotuneKey::generate(
        &left.client,
        left.meta.shape(),
        right.meta.shape(),
        left.meta.strides(),
        right.meta.strides(),
        left.meta.tiling,
        right.meta.tiling,
        element(left),
        element(right),
        element(y),
        None,
        None,
    )
}
