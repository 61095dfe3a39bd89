//! A group of processes that train together.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mbconv_nets::synchronize::{SynchronizeGuard, synchronize};
use sha2::{Digest, Sha256};

use mbconv_data::DataSet;
use mbconv_files::hex;

use crate::config::{Recipe, RecipeFile};
use crate::distributed::link::{GroupError, Link};
use crate::metrics::Tally;

/// Communication statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Bytes sent by this process.
    pub bytes: u64,
    /// Time spent, including waiting for other processes.
    pub time: Duration,
}

/// The processes that train together, as seen from one of them. A single process is a group of one.
#[derive(Clone, Default)]
pub struct Group {
    link: Option<Rc<dyn Link>>,
    traffic: Rc<Cell<Traffic>>,
    /// Whether every process has been notified of the failure that ends the run.
    notified: Rc<Cell<bool>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl Group {
    /// Creates a group of one process.
    pub fn alone() -> Self {
        Self::default()
    }

    /// Creates the group of processes connected by `link`.
    pub fn new(link: Rc<dyn Link>) -> Self {
        Self { link: Some(link), ..Self::default() }
    }

    /// Joins the processes started by a launcher (`mpirun`, `srun`), or returns a group of one.
    ///
    /// # Errors
    /// MPI that fails to start, or several processes of a program without MPI.
    pub fn join() -> Result<Self, GroupError> {
        match launched() {
            None => Ok(Self::alone()),
            #[cfg(feature = "mpi")]
            Some(_) => Ok(Self::new(Rc::new(super::mpi::Mpi::start()?))),
            #[cfg(not(feature = "mpi"))]
            Some(1) => Ok(Self::alone()),
            #[cfg(not(feature = "mpi"))]
            Some(processes) => Err(GroupError::NotBuilt { processes }),
        }
    }

    /// Returns the rank of this process, from 0.
    pub fn rank(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.rank())
    }

    /// Returns the number of processes.
    pub fn size(&self) -> usize {
        self.link.as_ref().map_or(1, |link| link.size())
    }

    /// Returns the local rank of this process and the number of processes on its machine.
    pub fn local(&self) -> (usize, usize) {
        self.link.as_ref().map_or((0, 1), |link| link.local())
    }

    /// Returns whether this process writes files and prints.
    pub fn is_leader(&self) -> bool {
        self.rank() == 0
    }

    /// Returns rank and host of this process for messages.
    pub fn who(&self) -> String {
        format!("rank {} on {}", self.rank(), host())
    }

    /// Returns the number of threads for this process: its share of the available cores.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let Some(link) = &self.link else { return cores };
        // A launcher may bind each process to its own cores, or several processes to one socket.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap_or_default();
        let mine = format!("{} {allowed}", host());
        let sharing = link.gather(mine.as_bytes()).iter().filter(|theirs| *theirs == mine.as_bytes()).count();
        (cores / sharing.max(1)).max(1)
    }

    /// Returns the device for `name`: with several GPUs, the one assigned to this process.
    pub fn device(&self, name: &str) -> String {
        let (number, processes) = self.local();
        let numbered = processes > 1 && ["cuda", "vulkan", "wgpu"].contains(&name);
        if numbered { format!("{name}:{number}") } else { name.into() }
    }

    /// Returns this process's part of a batch.
    pub fn part(&self, batch_size: usize) -> Range<usize> {
        let share = |rank| rank * batch_size / self.size();
        share(self.rank())..share(self.rank() + 1)
    }

    fn timed<R>(&self, bytes: usize, exchange: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = exchange();
        let Traffic { bytes: before, time } = self.traffic.get();
        self.traffic.set(Traffic { bytes: before + bytes as u64, time: time + started.elapsed() });
        result
    }

    /// Returns and resets the communication statistics.
    pub fn take_traffic(&self) -> Traffic {
        self.traffic.take()
    }

    /// Sums the values of all processes element by element.
    pub fn sum(&self, values: &mut [f32]) {
        if let Some(link) = &self.link {
            self.timed(size_of_val(values), || link.sum(values));
        }
    }

    /// Sums f64 values of all processes element by element.
    pub fn sum_f64(&self, values: &mut [f64]) {
        if let Some(link) = &self.link {
            self.timed(size_of_val(values), || link.sum_f64(values));
        }
    }

    /// Sums the tallies of all processes.
    pub fn sum_tally(&self, tally: Tally) -> Tally {
        let Tally { images, top1, top5, loss } = tally;
        let mut sums = [images as f64, top1 as f64, top5 as f64, loss];
        self.sum_f64(&mut sums);
        let [images, top1, top5, loss] = sums;
        Tally { images: images as usize, top1: top1 as usize, top5: top5 as usize, loss }
    }

    /// Returns whether `here` is true in any process.
    pub fn any(&self, here: bool) -> bool {
        let mut count = [f64::from(u8::from(here))];
        self.sum_f64(&mut count);
        count[0] > 0.0
    }

    /// Returns the first process's bytes.
    pub fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some(link) = &self.link {
            link.broadcast(&mut bytes);
        }
        bytes
    }

    /// Returns the result if every process succeeded. If any process failed, all processes return
    /// an error: their own, or the first failing process's.
    ///
    /// # Errors
    /// This process's error, or [`GroupError::Elsewhere`].
    pub fn all_ok<T, E: fmt::Display + From<GroupError>>(&self, result: Result<T, E>) -> Result<T, E> {
        let Some(link) = &self.link else { return result };
        let account = result.as_ref().err().map(|error| [self.who(), error.to_string()].join("\n"));
        let accounts = link.gather(account.unwrap_or_default().as_bytes());
        let Some(first) = accounts.iter().find(|account| !account.is_empty()) else { return result };
        self.notified.set(true);
        let first = String::from_utf8_lossy(first);
        let (who, message) = first.split_once('\n').unwrap_or((&first, ""));
        Err(result.err().unwrap_or_else(|| GroupError::Elsewhere { who: who.into(), message: message.into() }.into()))
    }

    /// Returns whether this process must report the error that ends the run. It must if no other
    /// process was notified.
    pub fn must_report(&self) -> bool {
        self.is_leader() || !self.notified.get()
    }

    /// Returns whether the other processes were not notified of this one's failure and would wait
    /// forever.
    pub fn fails_alone(&self) -> bool {
        self.size() > 1 && !self.notified.get()
    }

    /// Waits for all processes.
    pub fn wait(&self) {
        if let Some(link) = &self.link {
            link.gather(&[]);
        }
    }

    /// Ends all processes.
    pub fn abort(&self) {
        if let Some(link) = &self.link {
            link.abort();
        }
    }

    /// Waits briefly before a failure is reported that all processes may have: the first process
    /// reports it and ends the others meanwhile.
    pub fn wait_before_report(&self) {
        if !self.is_leader() && self.fails_alone() {
            std::thread::sleep(Duration::from_millis(300 + 20 * self.rank().min(50) as u64));
        }
    }

    /// Checks that all processes have the same program version, recipe and data.
    ///
    /// # Errors
    /// A batch smaller than the number of processes, or the first process that differs from rank 0
    /// and the item that differs.
    pub fn compare(&self, recipe: &Recipe, data: &DataSet) -> Result<(), GroupError> {
        let Some(link) = &self.link else { return Ok(()) };
        let (size, batch_size) = (self.size(), recipe.batch_size);
        if batch_size < size {
            self.notified.set(true);
            return Err(GroupError::SmallBatch { batch_size, processes: size });
        }
        let mut listing = Sha256::new();
        for split in [&data.train, &data.val].into_iter().flatten() {
            for index in 0..split.len() {
                listing.update(split.name(index).rsplit(['/', '\\']).next().unwrap_or_default());
                listing.update(split.label(index).to_le_bytes());
            }
            listing.update(split.len().to_le_bytes());
            split.label_sets().into_iter().for_each(|sets| listing.update(format!("{sets:?}")));
        }
        let digest = |text: &str| hex(&Sha256::digest(text));
        // Path and reading threads of the data may differ between machines.
        let mut same = RecipeFile::clone(recipe);
        same.data = Default::default();
        let mine = [
            host(),
            env!("CARGO_PKG_VERSION").into(),
            digest(&same.to_toml()),
            digest(&data.classes.join("\n")),
            hex(&listing.finalize()),
        ];
        let all: Vec<Vec<String>> = link
            .gather(mine.join("\n").as_bytes())
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes).split('\n').map(str::to_string).collect())
            .collect();
        const WHAT: [&str; 4] = ["program version", "recipe", "set of classes", "listing of the data"];
        for (rank, of) in all.iter().enumerate() {
            if let Some(index) = (1..mine.len()).find(|&index| of.get(index) != all[0].get(index)) {
                self.notified.set(true);
                let who = format!("rank {rank} on {}", of[0]);
                return Err(GroupError::Differs { what: WHAT[index - 1], who, first: all[0][0].clone() });
            }
        }
        Ok(())
    }

    /// While the result is alive, training batch-norms of this thread use the statistics of all
    /// processes.
    pub fn synchronize(&self) -> SynchronizeGuard {
        let group = self.clone();
        synchronize(move |sums| group.sum_f64(sums))
    }
}

/// Returns the number of processes given by the launcher's environment.
fn launched() -> Option<usize> {
    /// Open MPI, MPICH and Intel MPI, MVAPICH, Slurm.
    const SIZES: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"];
    SIZES.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// Returns the name of this machine.
pub(crate) fn host() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let name = read("/proc/sys/kernel/hostname").or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or("this machine".into(), |name| name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::threads::in_threads;

    #[test]
    fn parts_of_the_processes_cover_a_batch() {
        let parts = in_threads(3, |group| group.part(64));
        assert_eq!(parts, [0..21, 21..42, 42..64]);
        assert_eq!(Group::alone().part(64), 0..64);
    }

    #[test]
    fn all_processes_receive_the_sums() {
        let sums = in_threads(4, |group| {
            let mut values = [1.0, group.rank() as f32];
            group.sum(&mut values);
            (values, group.any(group.rank() == 2), group.any(false))
        });
        assert!(sums.iter().all(|sum| *sum == ([4.0, 6.0], true, false)), "{sums:?}");
    }

    #[test]
    fn all_processes_fail_if_one_fails() {
        let results = in_threads(3, |group| {
            let mine = if group.rank() == 1 { Err(GroupError::NotBuilt { processes: 3 }) } else { Ok(()) };
            (group.all_ok(mine).unwrap_err(), group.must_report())
        });
        assert!(matches!(&results[1], (GroupError::NotBuilt { .. }, false)));
        let (elsewhere, must_report) = &results[0];
        assert!(elsewhere.to_string().starts_with("rank 1 on "), "{elsewhere}");
        assert!(elsewhere.to_string().contains("built without MPI") && *must_report);
        assert!(in_threads(2, |group| group.all_ok::<_, GroupError>(Ok(7)).unwrap()).iter().all(|value| *value == 7));
    }

    #[test]
    fn broadcast_sends_the_bytes_of_the_first_process() {
        let all = in_threads(3, |group| group.broadcast(vec![group.rank() as u8; group.rank() + 1]));
        assert!(all.iter().all(|bytes| *bytes == [0]));
    }
}
