//! A group of threads in one process, for tests.

use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use super::group::Group;
use super::link::Link;

/// Memory through which the threads exchange bytes.
struct Table {
    barrier: Barrier,
    slots: Mutex<Vec<Vec<u8>>>,
}

struct Thread {
    rank: usize,
    table: Arc<Table>,
}

impl Link for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn local(&self) -> (usize, usize) {
        (self.rank, self.size())
    }

    fn sum(&self, values: &mut [f32]) {
        let mut wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        self.sum_f64(&mut wide);
        values.iter_mut().zip(wide).for_each(|(value, sum)| *value = sum as f32);
    }

    fn sum_f64(&self, values: &mut [f64]) {
        let mine: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        values.fill(0.0);
        for bytes in self.gather(&mine) {
            let theirs = bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            values.iter_mut().zip(theirs).for_each(|(sum, value)| *sum += value);
        }
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.table.slots.lock().unwrap_or_else(PoisonError::into_inner)[self.rank] = bytes.to_vec();
        self.table.barrier.wait();
        let all = self.table.slots.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // No thread may write again before all have read.
        self.table.barrier.wait();
        all
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        *bytes = self.gather(bytes).swap_remove(0);
    }

    fn abort(&self) -> ! {
        panic!("rank {} ends the group", self.rank);
    }
}

/// Runs `body` in `size` threads that form a group, and returns their results by rank.
///
/// # Panics
/// If a thread panics.
pub fn in_threads<T: Send>(size: usize, body: impl Fn(Group) -> T + Sync) -> Vec<T> {
    let table = Arc::new(Table { barrier: Barrier::new(size), slots: Mutex::new(vec![Vec::new(); size]) });
    std::thread::scope(|scope| {
        let (table, body) = (&table, &body);
        let threads: Vec<_> = (0..size)
            .map(|rank| scope.spawn(move || body(Group::new(Rc::new(Thread { rank, table: table.clone() })))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
