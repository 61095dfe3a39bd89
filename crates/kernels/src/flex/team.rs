//! Threads that go through many short pieces of work together.
//!
//! A network's stages take tens of microseconds for one image; putting a thread to sleep between them, and waking it, takes
//! as long. The helpers of a [`Team::gathered`] stay awake from the first stage to the last. They help where they
//! can: each piece is taken by whoever is free, and who leads never waits for a helper that has not come, so that a
//! thread which is busy elsewhere costs speed and nothing else.

use std::{
    cell::UnsafeCell,
    hint,
    marker::PhantomData,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
};

use rayon::prelude::*;

/// Pieces of work for each thread.
const PIECES: usize = 2;
/// Looks at the board before a helper offers its processor to others.
const PATIENCE: usize = 1 << 9;

/// Who computes.
#[derive(Clone, Copy)]
pub enum Team<'a> {
    /// The thread that asks.
    Alone,
    /// The threads of the pool, called anew each time.
    Pool,
    /// Helpers that stay awake.
    Gathered(&'a Board),
}

impl Team<'_> {
    /// Calls `body` with a team of all threads of the pool, or with the pool itself where one thread is all there is.
    pub fn gathered<R>(body: impl FnOnce(Team) -> R) -> R {
        let helpers = rayon::current_num_threads() - 1;
        if helpers == 0 {
            return body(Team::Alone);
        }
        let board = Board::default();
        rayon::in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| board.help());
            }
            // Also when `body` panics: the scope waits for the helpers.
            let _end = OnDrop(|| board.over.store(true, Ordering::Release));
            body(Team::Gathered(&board))
        })
    }

    /// How many threads there are.
    pub fn threads(self) -> usize {
        match self {
            Team::Alone => 1,
            Team::Pool | Team::Gathered(_) => rayon::current_num_threads(),
        }
    }

    /// Into how many pieces work is best cut: several a thread, so that one which is held up does not hold up all.
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
            Team::Gathered(board) if pieces > 1 => board.each(pieces, body),
            Team::Pool if pieces > 1 => (0..pieces).into_par_iter().for_each(body),
            _ => (0..pieces).for_each(body),
        }
    }

    /// Calls `body` with the number and the elements of every `size` of `data`, in any order. The last may be shorter.
    pub fn chunks<T: Send>(self, data: &mut [T], size: usize, body: impl Fn(usize, &mut [T]) + Sync) {
        let data = Chunks::new(data, size);
        // SAFETY: `each` calls every piece once.
        self.each(data.count(), |piece| body(piece, unsafe { data.take(piece) }));
    }

    /// The same of two slices that fall into equally many chunks.
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

/// A slice to be shared out in chunks.
struct Chunks<'a, T> {
    start: *mut T,
    length: usize,
    size: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: all that can be done with it is to take chunks, and who takes them sees to it that nobody else does.
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
    /// The chunk must be one of the `count`, and be taken once.
    #[allow(clippy::mut_from_ref)]
    unsafe fn take(&self, index: usize) -> &mut [T] {
        let from = index * self.size;
        assert!(from < self.length, "a chunk that is there");
        // SAFETY: within the slice, which is borrowed, and apart from all other chunks.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), self.size.min(self.length - from)) }
    }
}

/// Where a team's work is written up.
#[derive(Default)]
pub struct Board {
    /// The pieces that nobody has taken yet, in the low half; in the high half a number that each task increases.
    ticket: AtomicU64,
    /// Pieces that are not done.
    left: AtomicUsize,
    /// The task that the pieces belong to. Written by the thread that raised `left` from 0, while no
    /// piece can be taken; read by threads that have taken one.
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

// SAFETY: `task` is written only by the one thread that leads, see `each`, while no piece is taken,
// and published by `ticket`; the body that it points to is `Sync` and outlives all its pieces.
unsafe impl Sync for Board {}

impl Board {
    fn each(&self, pieces: usize, body: &(dyn Fn(usize) + Sync)) {
        let count = u64::from(u32::try_from(pieces).expect("pieces of work"));
        // The thread that raises `left` from 0 leads. Others must not touch the task.
        let leads = self.left.compare_exchange(0, pieces, Ordering::Acquire, Ordering::Relaxed).is_ok();
        assert!(leads && pieces > 0, "a team does one thing at a time");
        // SAFETY: only the lifetime changes; this function does not return, nor unwind, before all pieces are done.
        let body = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(body)
        };
        // SAFETY: only this thread leads, and no piece can be taken yet, so nobody reads.
        unsafe { *self.task.get() = Some(Task { pieces, body }) };
        let task = (self.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.ticket.store(task << 32 | count, Ordering::Release);
        {
            // Also when a piece panics here: those that others have taken must end first, the rest is dropped.
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

    /// Does pieces until the team parts.
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

    /// Takes a piece, if there is one: the number of those that were left, itself included.
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
        // SAFETY: a piece is taken, so the task stands until it is done.
        if let Some(Task { pieces, body }) = unsafe { *self.task.get() } {
            // SAFETY: as above.
            unsafe { (*body)(pieces - rest) };
        }
        true
    }
}

/// Waits a moment, at first without giving the processor away.
fn pause(looks: &mut usize) {
    *looks += 1;
    if *looks < PATIENCE { hint::spin_loop() } else { thread::yield_now() }
}

/// Calls a function when it goes.
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
    fn every_piece_of_every_task_is_done_once() {
        for threads in [1, 2, 5] {
            pool(threads).install(|| {
                Team::gathered(|team| {
                    for round in 0..2000_usize {
                        let mut data = vec![0_usize; round % 23];
                        team.chunks(&mut data, 3, |piece, part| {
                            part.iter_mut().enumerate().for_each(|(i, value)| *value += piece * 3 + i + round);
                        });
                        assert!(data.iter().enumerate().all(|(i, value)| *value == i + round), "{threads} threads");
                    }
                });
            });
        }
    }

    #[test]
    fn teams_side_by_side_do_not_wait_for_each_other() {
        let pool = pool(3);
        let sum = AtomicUsize::new(0);
        pool.install(|| {
            (0..50).into_par_iter().for_each(|_| {
                Team::gathered(|team| {
                    for _ in 0..20 {
                        team.each(7, |piece| {
                            sum.fetch_add(piece, Ordering::Relaxed);
                        });
                    }
                });
            });
        });
        assert_eq!(sum.into_inner(), 50 * 20 * 21);
    }

    #[test]
    fn a_team_that_is_led_twice_at_once_fails() {
        let lead_twice = |twice: fn(Team, &(dyn Fn() + Sync))| {
            std::panic::catch_unwind(|| {
                pool(3).install(|| {
                    Team::gathered(|team| {
                        let again = || team.each(3, |_| ());
                        twice(team, &again);
                    });
                })
            })
        };
        assert!(lead_twice(|team, again| team.each(2, |_| again())).is_err(), "in a piece");
        assert!(lead_twice(|_, again| again()).is_ok(), "one after another");
    }

    #[test]
    fn leaders_side_by_side_never_share_a_task() {
        // Either leader may panic. If not, each of its pieces runs once.
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
    fn a_panic_reaches_who_asked() {
        let pool = pool(3);
        for bad in 0..20 {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.install(|| Team::gathered(|team| team.each(20, |piece| assert!(piece != bad, "on purpose"))));
            }));
            assert!(result.is_err());
        }
        assert_eq!(pool.install(|| 5), 5);
    }
}
