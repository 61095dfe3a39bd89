//! Communication between the processes of a group, and its errors.

/// The connection between processes. All methods except `rank`, `size`, `local` and `abort` are
/// collective: every process calls them at the same point.
pub trait Link {
    /// Returns the rank of this process, from 0.
    fn rank(&self) -> usize;
    /// Returns the number of processes.
    fn size(&self) -> usize;
    /// Returns the local rank of this process and the number of processes on its machine.
    fn local(&self) -> (usize, usize);
    /// Sums the values of all processes element by element, in every process.
    fn sum(&self, values: &mut [f32]);
    /// Sums f64 values of all processes element by element, in every process.
    fn sum_f64(&self, values: &mut [f64]);
    /// Returns the bytes of all processes, by rank.
    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>>;
    /// Copies the first process's bytes to every process.
    fn broadcast(&self, bytes: &mut Vec<u8>);
    /// Ends all processes. Not collective.
    fn abort(&self) -> !;
}

/// The reason why processes cannot train together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GroupError {
    /// Several processes were started, but the program has no MPI.
    #[error("started as {processes} processes, but this program was built without MPI")]
    NotBuilt {
        /// Number of processes.
        processes: usize,
    },
    /// MPI failed to start.
    #[error("MPI did not start: {message}")]
    Start {
        /// MPI's message.
        message: String,
    },
    /// Another process failed.
    #[error("{who}: {message}")]
    Elsewhere {
        /// Rank and host.
        who: String,
        /// Error message.
        message: String,
    },
    /// The processes have different settings or data.
    #[error("{who} has another {what} than rank 0 on {first}")]
    Differs {
        /// The item that differs.
        what: &'static str,
        /// Rank and host of the process that differs.
        who: String,
        /// Host of the first process.
        first: String,
    },
    /// Fewer images per batch than processes.
    #[error("a batch of {batch_size} images cannot be divided among {processes} processes")]
    SmallBatch {
        /// Batch size of the recipe.
        batch_size: usize,
        /// Number of processes.
        processes: usize,
    },
}

impl GroupError {
    /// Returns how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotBuilt { .. } => Some("build it with: cargo build --release --features mpi".into()),
            Self::Start { .. } | Self::Elsewhere { .. } => None,
            Self::Differs { what: "program version", .. } => {
                Some("all machines need the same program; a shared file system is the easy way".into())
            }
            Self::Differs { .. } => Some("all processes must be given the same recipe, settings and data".into()),
            Self::SmallBatch { processes, .. } => {
                Some(format!("--set batch_size={} or more, or fewer processes", 32 * processes))
            }
        }
    }
}
