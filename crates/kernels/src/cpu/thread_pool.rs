//! Threads that process many short pieces of work together.
//!
//! For one image, a stage of a network takes tens of microseconds, which is as long as it takes to
//! put a thread to sleep and to wake it. The helpers of a [`ThreadPool::spinning`] therefore stay
//! awake from the first stage to the last. Any free thread takes the next piece, and the leader
//! never waits for a helper that has not started, so that a thread that is busy elsewhere only
//! costs speed.

use std::{
    cell::UnsafeCell,
    hint,
    marker::PhantomData,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
};

use rayon::prelude::*;

/// Number of pieces of work per thread.
const PIECES: usize = 2;
/// Number of times that a helper polls for work before it yields its CPU.
const PATIENCE: usize = 1 << 9;

/// The threads that compute.
#[derive(Clone, Copy)]
pub enum ThreadPool<'a> {
    /// Only the calling thread.
    Single,
    /// The threads of the pool, woken for each task.
    Rayon,
    /// Helpers that stay awake.
    Spinning(&'a Board),
}

impl ThreadPool<'_> {
    /// Calls `body` with all threads of the pool, or with [`ThreadPool::Single`] if there is
    /// only one thread.
    pub fn spinning<R>(body: impl FnOnce(ThreadPool) -> R) -> R {
        let helpers = rayon::current_num_threads() - 1;
        if helpers == 0 {
            return body(ThreadPool::Single);
        }
        let board = Board::default();
        rayon::in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| board.help());
            }
            // Also if `body` panics, since the scope waits for the helpers.
            let _end = OnDrop(|| board.over.store(true, Ordering::Release));
            body(ThreadPool::Spinning(&board))
        })
    }

    /// Returns the number of threads.
    pub fn threads(self) -> usize {
        match self {
            ThreadPool::Single => 1,
            ThreadPool::Rayon | ThreadPool::Spinning(_) => rayon::current_num_threads(),
        }
    }

    /// Returns the preferred number of pieces: several per thread, so that one slow thread does not
    /// delay all.
    pub fn pieces(self) -> usize {
        match self.threads() {
            1 => 1,
            threads => PIECES * threads,
        }
    }

    /// Calls `body` with every number below `pieces`, in any order.
    pub fn each(self, pieces: usize, body: impl Fn(usize) + Sync) {
        let body = &body;
        match self {
            ThreadPool::Spinning(board) if pieces > 1 => board.each(pieces, body),
            ThreadPool::Rayon if pieces > 1 => (0..pieces).into_par_iter().for_each(body),
            _ => (0..pieces).for_each(body),
        }
    }

    /// Calls `body` with the index and the elements of every chunk of `size` elements, in any
    /// order. The last chunk may be shorter.
    pub fn chunks<T: Send>(self, data: &mut [T], size: usize, body: impl Fn(usize, &mut [T]) + Sync) {
        let data = Chunks::new(data, size);
        // SAFETY: `each` calls every piece once.
        self.each(data.count(), |piece| body(piece, unsafe { data.take(piece) }));
    }

    /// Calls `body` with the chunks of two slices, which must have the same number of chunks.
    pub fn chunk_pairs<T: Send, U: Send>(
        self,
        (first, first_size): (&mut [T], usize),
        (second, second_size): (&mut [U], usize),
        body: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        let (first, second) = (Chunks::new(first, first_size), Chunks::new(second, second_size));
        assert_eq!(first.count(), second.count(), "the chunks of two slices");
        // SAFETY: as above.
        self.each(first.count(), |piece| unsafe { body(piece, first.take(piece), second.take(piece)) });
    }
}

/// A slice that is shared in chunks.
struct Chunks<'a, T> {
    start: *mut T,
    length: usize,
    size: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the only operation is to take chunks, and whoever takes one ensures that nobody else
// does.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    fn new(slice: &'a mut [T], size: usize) -> Self {
        assert!(size > 0 || slice.is_empty(), "chunks of nothing");
        Self { start: slice.as_mut_ptr(), length: slice.len(), size: size.max(1), slice: PhantomData }
    }

    fn count(&self) -> usize {
        self.length.div_ceil(self.size)
    }

    /// # Safety
    /// The chunk must be one of the `count`, and be taken only once.
    #[allow(clippy::mut_from_ref)]
    unsafe fn take(&self, index: usize) -> &mut [T] {
        let from = index * self.size;
        assert!(from < self.length, "a chunk that is there");
        // SAFETY: the chunk is within the slice, which is borrowed, and disjoint from all other
        // chunks.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), self.size.min(self.length - from)) }
    }
}

/// The state of a pool's current task.
#[derive(Default)]
pub struct Board {
    /// Low half: number of pieces that nobody has taken yet. High half: number of the task,
    /// increased by each.
    ticket: AtomicU64,
    /// Number of pieces that are not done.
    left: AtomicUsize,
    /// The current task. Written by the thread that raised `left` from 0, while no piece can be
    /// taken; read by threads that have taken a piece.
    task: UnsafeCell<Option<Task>>,
    /// Whether a helper panicked.
    failed: AtomicBool,
    over: AtomicBool,
}

#[derive(Clone, Copy)]
struct Task {
    pieces: usize,
    body: *const (dyn Fn(usize) + Sync),
}

// SAFETY: `task` is written only by the one leading thread, see `each`, while no piece is taken,
// and published by `ticket`. The body that it points to is `Sync` and outlives all its pieces.
unsafe impl Sync for Board {}

impl Board {
    fn each(&self, pieces: usize, body: &(dyn Fn(usize) + Sync)) {
        let count = u64::from(u32::try_from(pieces).expect("pieces of work"));
        // The thread that raises it leads. Others, whether in a piece of this task or concurrent
        // with it, must not touch the task.
        let leads = self.left.compare_exchange(0, pieces, Ordering::Acquire, Ordering::Relaxed).is_ok();
        assert!(leads && pieces > 0, "a pool does one thing at a time");
        // SAFETY: only the lifetime changes; this function neither returns nor unwinds before all
        // pieces are done.
        let body = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(body)
        };
        // SAFETY: only this thread leads, and the ticket of the last task, whose pieces are all
        // done, has none left, so no thread reads.
        unsafe { *self.task.get() = Some(Task { pieces, body }) };
        let task = (self.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.ticket.store(task << 32 | count, Ordering::Release);
        {
            // Also if a piece panics in this thread: pieces that others have taken must end first,
            // and the rest is dropped.
            let _wait = OnDrop(|| {
                while self.take().is_some() {
                    self.left.fetch_sub(1, Ordering::Relaxed);
                }
                let mut looks = 0;
                while self.left.load(Ordering::Acquire) > 0 {
                    pause(&mut looks);
                }
            });
            while self.work() {}
        }
        assert!(!self.failed.load(Ordering::Relaxed), "a piece of work panicked");
    }

    /// Does pieces of work until the pool ends.
    fn help(&self) {
        let mut looks = 0;
        while !self.over.load(Ordering::Acquire) {
            if self.work() {
                looks = 0;
            } else {
                pause(&mut looks);
            }
        }
    }

    /// Takes a piece, if there is one. Returns the number of pieces that were left, including this
    /// one.
    fn take(&self) -> Option<usize> {
        let ticket = self
            .ticket
            .fetch_update(Ordering::Acquire, Ordering::Acquire, |ticket| (ticket as u32 > 0).then(|| ticket - 1));
        ticket.ok().map(|ticket| ticket as u32 as usize)
    }

    /// Does one piece, if there is one.
    fn work(&self) -> bool {
        let Some(rest) = self.take() else { return false };
        let _done = OnDrop(|| {
            if thread::panicking() {
                self.failed.store(true, Ordering::Relaxed);
            }
            self.left.fetch_sub(1, Ordering::Release);
        });
        // SAFETY: a piece is taken, so the task stays valid until the piece is done.
        if let Some(Task { pieces, body }) = unsafe { *self.task.get() } {
            // SAFETY: as above.
            unsafe { (*body)(pieces - rest) };
        }
        true
    }
}

/// Waits a moment, at first without yielding the CPU.
fn pause(looks: &mut usize) {
    *looks += 1;
    if *looks < PATIENCE { hint::spin_loop() } else { thread::yield_now() }
}

/// Calls a function when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_piece_of_every_task_runs_once() {
        for threads in [1, 2, 5] {
            pool(threads).install(|| {
                ThreadPool::spinning(|pool| {
                    for round in 0..2000_usize {
                        let mut data = vec![0_usize; round % 23];
                        pool.chunks(&mut data, 3, |piece, part| {
                            part.iter_mut().enumerate().for_each(|(i, value)| *value += piece * 3 + i + round);
                        });
                        assert!(data.iter().enumerate().all(|(i, value)| *value == i + round), "{threads} threads");
                    }
                });
            });
        }
    }

    #[test]
    fn concurrent_pools_do_not_wait_for_each_other() {
        let pool = pool(3);
        let sum = AtomicUsize::new(0);
        pool.install(|| {
            (0..50).into_par_iter().for_each(|_| {
                ThreadPool::spinning(|pool| {
                    for _ in 0..20 {
                        pool.each(7, |piece| {
                            sum.fetch_add(piece, Ordering::Relaxed);
                        });
                    }
                });
            });
        });
        assert_eq!(sum.into_inner(), 50 * 20 * 21);
    }

    #[test]
    fn leading_a_pool_twice_at_once_panics() {
        let lead_twice = |twice: fn(ThreadPool, &(dyn Fn() + Sync))| {
            std::panic::catch_unwind(|| {
                pool(3).install(|| {
                    ThreadPool::spinning(|pool| {
                        let again = || pool.each(3, |_| ());
                        twice(pool, &again);
                    });
                })
            })
        };
        assert!(lead_twice(|pool, again| pool.each(2, |_| again())).is_err(), "in a piece");
        assert!(lead_twice(|_, again| again()).is_ok(), "one after another");
    }

    #[test]
    fn concurrent_leaders_never_share_a_task() {
        // Either of the two leaders may be rejected; the pieces of one that is not are done once
        // each.
        for _ in 0..200 {
            pool(4).install(|| {
                let board = Board::default();
                let lead = || {
                    let sum = AtomicUsize::new(0);
                    let body = |piece| {
                        sum.fetch_add(piece, Ordering::Relaxed);
                    };
                    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| board.each(9, &body)));
                    assert!(done.is_err() || sum.into_inner() == 36);
                };
                rayon::join(lead, lead);
            });
        }
    }

    #[test]
    fn a_panic_propagates_to_the_caller() {
        let pool = pool(3);
        for bad in 0..20 {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.install(|| {
                    ThreadPool::spinning(|pool| pool.each(20, |piece| assert!(piece != bad, "on purpose")))
                });
            }));
            assert!(result.is_err());
        }
        assert_eq!(pool.install(|| 5), 5);
    }
}
