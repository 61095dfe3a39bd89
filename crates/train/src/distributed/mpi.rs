//! Processes connected by MPI.

use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use mpi::{Count, Threading};

use super::link::{GroupError, Link};

/// Maximum number of elements per message.
const MOST: usize = 1 << 28;

/// All processes started by the launcher.
pub(super) struct Mpi {
    world: SimpleCommunicator,
    local: (usize, usize),
    /// Finalizes MPI when dropped, so it is the last field.
    _universe: Universe,
}

impl Mpi {
    /// Initializes MPI.
    pub(super) fn start() -> Result<Self, GroupError> {
        let failed = |message: &str| GroupError::Start { message: message.into() };
        // Only the training thread calls MPI, but it may not be the main thread.
        let (universe, threading) =
            mpi::initialize_with_threading(Threading::Serialized).ok_or_else(|| failed("it was started before"))?;
        if threading < Threading::Serialized {
            return Err(failed("it does not allow threads"));
        }
        let world = universe.world();
        let here = world.split_shared(world.rank());
        let local = (here.rank() as usize, here.size() as usize);
        Ok(Self { world, local, _universe: universe })
    }
}

impl Link for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn local(&self) -> (usize, usize) {
        self.local
    }

    fn sum(&self, values: &mut [f32]) {
        let mine = values.to_vec();
        self.world.all_reduce_into(&mine[..], values, SystemOperation::sum());
    }

    fn sum_f64(&self, values: &mut [f64]) {
        let mine = values.to_vec();
        self.world.all_reduce_into(&mine[..], values, SystemOperation::sum());
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        // One additional byte, because Rust's pointer of an empty slice equals Open MPI's
        // MPI_IN_PLACE.
        let mine = [bytes, &[0]].concat();
        let mut counts: Vec<Count> = vec![0; self.size()];
        self.world.all_gather_into(&(mine.len() as Count), &mut counts[..]);
        let starts: Vec<Count> = counts
            .iter()
            .scan(0, |end, count| {
                *end += count;
                Some(*end - count)
            })
            .collect();
        let mut all = vec![0u8; counts.iter().sum::<Count>() as usize];
        let mut partition = mpi::datatype::PartitionMut::new(&mut all[..], &counts[..], &starts[..]);
        self.world.all_gather_varcount_into(&mine[..], &mut partition);
        let part = |(start, count): (&Count, &Count)| all[*start as usize..(start + count - 1) as usize].to_vec();
        starts.iter().zip(&counts).map(part).collect()
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        let first = self.world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        first.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        bytes.chunks_mut(MOST).for_each(|part| first.broadcast_into(part));
    }

    fn abort(&self) -> ! {
        self.world.abort(1)
    }
}
