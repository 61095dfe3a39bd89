//! Training steps that a GPU replays. The CPU takes longer to queue the kernels of a small training
//! step than the GPU to compute it. A recorded step is queued as a whole: as a CUDA graph, or on
//! other GPUs as CubeCL's list of launches.
//!
//! A replay performs the same operations on the same memory. Values that change between steps are
//! therefore written to memory between replays ([`crate::descent::overwrite`]) and read from there
//! ([`crate::descent::Numbers`], [`mod@crate::chance`]), and everything that persists between steps
//! must be updated in place ([`crate::descent::copies`]).

use std::fmt;

use burn::{
    backend::{Backend, Dispatch, DispatchDevice, ExecutionError},
    tensor::Device,
};

/// The recorded graph of [`Dispatch`].
type Graph = burn::backend::BackendGraph<Dispatch>;

/// A step that is being recorded. After [`Window::prepare`] run the step once; after
/// [`Window::open`] queue the same operations once more, which records without running them. The
/// device may be read from after `prepare`; after `open` it may be neither read from nor written
/// to.
pub struct Window {
    device: DispatchDevice,
    closed: bool,
}

/// A recorded step. The memory that it uses is reserved until it is dropped.
pub struct Recording {
    device: DispatchDevice,
    graph: Graph,
}

impl Window {
    /// Makes `device` reserve the memory that the step is about to use.
    ///
    /// # Errors
    /// Returns the device's error.
    pub fn prepare(device: &Device) -> Result<Self, ExecutionError> {
        let device = device.clone().inner().as_dispatch().clone();
        Dispatch::graph_prepare(&device)?;
        Ok(Self { device, closed: false })
    }

    /// Starts to record operations instead of running them.
    ///
    /// # Errors
    /// Returns the device's error, including that it does not support recording.
    pub fn open(&self) -> Result<(), ExecutionError> {
        Dispatch::graph_start_capture(&self.device)
    }

    /// Ends recording and returns the recorded step. On failure, memory that the step would have
    /// changed in place can no longer be read.
    ///
    /// # Errors
    /// Returns the device's error.
    pub fn close(mut self) -> Result<Recording, ExecutionError> {
        self.closed = true;
        let graph = Dispatch::graph_stop_capture(&self.device)?;
        Ok(Recording { device: self.device.clone(), graph })
    }
}

impl Drop for Window {
    /// Makes the device run operations again.
    fn drop(&mut self) {
        if !self.closed {
            // The expected error is that nothing was recorded.
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
    /// Returns the device's error.
    pub fn replay(&self) -> Result<(), ExecutionError> {
        // SAFETY: the graph keeps every page of memory that its kernels use. CubeCL neither frees
        // such a page nor reuses room in it while the graph lives, which is as long as `self`. The
        // kernels stay within the bounds of their buffers, as they did when they were recorded.
        // Replays and all operations that this thread queues reach the device in one order. Another
        // thread that used the same tensors could at worst read values of the step before or after,
        // in memory of the device, never of this process.
        unsafe { Dispatch::graph_replay(&self.device, &self.graph) }
    }
}
