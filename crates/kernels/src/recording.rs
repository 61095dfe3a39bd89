//! Steps that a GPU repeats by itself. Queueing the kernels of a training step takes the processor longer than it takes a GPU to compute a small
//! one; what is recorded is queued as a whole (a CUDA graph; on other GPUs CubeCL's list of launches).
//!
//! A repeated step does the same to the same memory. So whatever changes from step to step lies in memory that is written in between
//! ([`crate::descent::overwrite`]), is read from there ([`crate::descent::Numbers`], [`mod@crate::chance`]), and what a step keeps is changed
//! in place ([`crate::descent::copies`]).

use std::fmt;

use burn::{
    backend::{Backend, Dispatch, DispatchDevice, ExecutionError},
    tensor::Device,
};

/// The recorded graph of [`Dispatch`].
type Graph = burn::backend::BackendGraph<Dispatch>;

/// A step that is going to be recorded: it runs once after [`Window::prepare`], and then once more, doing the same, after [`Window::open`], when
/// none of its operations is run. Between the two a device may be read from, in the second neither read from nor written to.
pub struct Window {
    device: DispatchDevice,
    closed: bool,
}

/// A recorded step. Memory that it uses stays as it is until it is dropped.
pub struct Recording {
    device: DispatchDevice,
    graph: Graph,
}

impl Window {
    /// Has `device` keep the memory that the step is about to use.
    ///
    /// # Errors
    /// What the device says.
    pub fn prepare(device: &Device) -> Result<Self, ExecutionError> {
        let device = device.clone().inner().as_dispatch().clone();
        Dispatch::graph_prepare(&device)?;
        Ok(Self { device, closed: false })
    }

    /// From now on operations are recorded, not run.
    ///
    /// # Errors
    /// What the device says, one that cannot record among them.
    pub fn open(&self) -> Result<(), ExecutionError> {
        Dispatch::graph_start_capture(&self.device)
    }

    /// What was recorded. Where that fails, memory that the step would have changed in place cannot be read any more.
    ///
    /// # Errors
    /// What the device says.
    pub fn close(mut self) -> Result<Recording, ExecutionError> {
        self.closed = true;
        let graph = Dispatch::graph_stop_capture(&self.device)?;
        Ok(Recording { device: self.device.clone(), graph })
    }
}

impl Drop for Window {
    /// Has the device run operations again.
    fn drop(&mut self) {
        if !self.closed {
            // It says that nothing was recorded, which is true.
            let _ = Dispatch::graph_stop_capture(&self.device);
        }
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({:?})", self.device)
    }
}

impl Recording {
    /// Queues the step once more, after everything that this thread has queued.
    ///
    /// # Errors
    /// What the device says.
    pub fn replay(&self) -> Result<(), ExecutionError> {
        // SAFETY: The graph keeps every page of memory that its kernels were given: CubeCL neither frees such a page nor gives room in it to
        // others, for as long as the graph lives, and that is as long as `self`. The kernels compute within the bounds of their buffers, as they did
        // when they were recorded. Replaying and whatever this thread queues reach the device in one order; another thread that used the same tensors
        // could at worst see numbers of the step before or after, which is memory of the device, never of this process.
        unsafe { Dispatch::graph_replay(&self.device, &self.graph) }
    }
}
