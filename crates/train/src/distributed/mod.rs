//! Data-parallel training in several processes.
//!
//! The global batch is divided among the processes, their gradients are summed, and all processes
//! make the same update. A recipe therefore means the same for any number of processes. Only the
//! first process writes files and prints.

mod group;
mod link;
#[cfg(feature = "mpi")]
mod mpi;
mod reduce;
mod threads;

pub(crate) use group::host;
pub use group::{Group, Traffic};
pub use link::{GroupError, Link};
pub use threads::in_threads;
