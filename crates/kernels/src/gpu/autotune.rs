//! Selection of the kernel for a matrix multiplication. CubeCL has two dozen kernels; compiling
//! them all for every multiplication of a network takes minutes. The candidates here are those that
//! were fastest, or nearly so, for long and thin matrices (measured on an H200, see docs/gpu.md),
//! and two kernels of this crate. The first multiplication of a kind tries up to three candidates,
//! and the result is cached (see `settings`).

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

use super::tensors::element;
use super::{skinny_matmul, weight_gradient};

/// Minimum number of terms in each partial sum of a sum that is split into slices.
pub const MANY_TERMS: usize = 512;

type Operands = (CubeTensor, CubeTensor, CubeTensor);
type Tuner = LocalTuner<MatmulAutotuneKey, CubeTuneId>;

/// Writes `left` [.., M, K] times `right` [.., K, N] into `y` [.., M, N]; factors are rounded to
/// the precision of `left`.
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

/// Returns whether factors of this precision are multiplied on tensor cores. These round single
/// precision to 10 bits (TF32); `NVIDIA_TF32_OVERRIDE=0` forbids that, as it does for NVIDIA's own
/// libraries.
pub fn uses_tensor_cores(factor: &CubeTensor) -> bool {
    let matmul = &factor.client.properties().features.matmul;
    let present = !(matmul.cmma.is_empty() && matmul.mma.is_empty());
    let rounds = element(factor) == ElemType::Float(FloatKind::F32);
    present && !(rounds && std::env::var("NVIDIA_TF32_OVERRIDE").is_ok_and(|value| value == "0"))
}

/// Returns the candidates: tensor-core kernels if they may be used, and other kernels in case no
/// tensor-core kernel supports a multiplication.
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

/// Rank of a kernel that is never tried.
const NEVER: i8 = -1;

/// Kernels without tensor cores and their ranks. Those of the highest rank are tried first, the
/// others only if all of these fail.
fn plain_kernels() -> [(Kernel, i8); 4] {
    use TileSizeSelection::{MaxTileSize, MinTileSize};
    let simple = |tile_size| Kernel::SimpleUnit(Inferred(SimpleUnitSelectionArgs { tile_size }));
    let double = Kernel::DoubleUnit(Inferred(DoubleUnitSelectionArgs { tile_size: MaxTileSize }));
    [(Kernel::Naive, 0), (simple(MaxTileSize), 1), (simple(MinTileSize), 1), (double, 1)]
}

/// Kernels for tensor cores, with the kinds of multiplications for which they are tried.
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

/// Kinds of multiplications, which differ in their fastest kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Too small for the choice to matter.
    Small,
    /// Few columns, and few terms per sum.
    Narrow,
    /// Many columns, and few terms per sum.
    Wide,
    /// Sums long enough that loading some terms while others are computed pays off.
    Long,
}

impl Kind {
    /// Maximum number of multiplications of a small kind.
    const SMALL: usize = 1 << 25;
    /// Minimum number of columns of a wide kind.
    const WIDE: usize = 64;
    /// Minimum number of terms of a long kind.
    const LONG: usize = 256;

    fn of(key: &MatmulAutotuneKey) -> Self {
        let [rows, columns, terms] = [key.definition.m, key.definition.n, key.definition.k];
        // The slices of a split sum, which have at least `MANY_TERMS` terms, may be small one by
        // one, but not all together.
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

/// Writes a product, or returns false if the kernel does not support it.
type Product = fn(&CubeTensor, &CubeTensor, &CubeTensor) -> bool;

/// Kernels of this crate, with the kinds of multiplications for which they are tried.
fn own_kernels() -> [(&'static str, Product, &'static [Kind]); 2] {
    [
        ("skinny_matmul", skinny_matmul::product, &[Kind::Narrow, Kind::Wide]),
        ("weight_gradient", weight_gradient::product, &[Kind::Long]),
    ]
}

/// Wraps a candidate for tuning. Multiplications with the same key share a tuning result; if the
/// chosen kernel does not support one of them, the first of `others` that does computes it.
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

/// Wraps a kernel of CubeCL.
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

/// Returns the tuning key. Multiplications share it if they have the same sizes rounded up to the
/// next power of two, memory order, alignment and precision.
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
