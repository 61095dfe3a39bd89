//! Training steps that a GPU replays. The CPU takes longer to queue the kernels of a small training
//! step than the GPU to compute it. A captured step is queued as a whole: as a CUDA graph, or on
//! other GPUs as CubeCL's list of launches.
//!
//! A replay performs the same operations on the same memory. Values that change between steps are
//! therefore written to memory between replays ([`crate::optimizer_step::overwrite`]) and read from
//! there ([`crate::optimizer_step::StepScalars`], [`mod@crate::dropout`]), and everything that
//! persists between steps must be updated in place ([`crate::optimizer_step::copies`]).

use std::fmt;

use burn::{
    backend::{Backend, Dispatch, DispatchDevice, ExecutionError},
    tensor::Device,
};

/// The captured graph of [`Dispatch`].
type Graph = burn::backend::BackendGraph<Dispatch>;

/// A step that is being captured. After [`GraphCapture::prepare`] run the step once; after
/// [`GraphCapture::start`] queue the same operations once more, which captures them without running
/// them. The device may be read from after `prepare`; after `start` it may be neither read from nor
/// written to.
pub struct GraphCapture {
    device: DispatchDevice,
    finished: bool,
}

/// A captured step. The memory that it uses is reserved until it is dropped.
pub struct CapturedGraph {
    device: DispatchDevice,
    graph: Graph,
}

impl GraphCapture {
    /// Makes `device` reserve the memory that the step is about to use.
    ///
    /// # Errors
    /// Returns the device's error.
    pub fn prepare(device: &Device) -> Result<Self, ExecutionError> {
        let device = device.clone().inner().as_dispatch().clone();
        Dispatch::graph_prepare(&device)?;
        Ok(Self { device, finished: false })
    }

    /// Starts to capture operations instead of running them.
    ///
    /// # Errors
    /// Returns the device's error, including that it does not support capturing.
    pub fn start(&self) -> Result<(), ExecutionError> {
        Dispatch::graph_start_capture(&self.device)
    }

    /// Ends the capture and returns the captured step. On failure, memory that the step would have
    /// changed in place can no longer be read.
    ///
    /// # Errors
    /// Returns the device's error.
    pub fn finish(mut self) -> Result<CapturedGraph, ExecutionError> {
        self.finished = true;
        let graph = Dispatch::graph_stop_capture(&self.device)?;
        Ok(CapturedGraph { device: self.device.clone(), graph })
    }
}

impl Drop for GraphCapture {
    /// Makes the device run operations again.
    fn drop(&mut self) {
        if !self.finished {
            // The expected error is that nothing was captured.
            let _ = Dispatch::graph_stop_capture(&self.device);
        }
    }
}

impl fmt::Debug for CapturedGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapturedGraph({:?})", self.device)
    }
}

impl CapturedGraph {
    /// Queues the step once more, after everything that this thread has queued.
    ///
    /// # Errors
    /// Returns the device's error.
    pub fn replay(&self) -> Result<(), ExecutionError> {
        // SAFETY: the graph keeps every page of memory that its kernels use. CubeCL neither frees
        // such a page nor reuses room in it while the graph lives, which is as long as `self`. The
        // kernels stay within the bounds of their buffers, as they did when they were captured.
        // Replays and all operations that this thread queues reach the device in one order. Another
        // thread that used the same tensors could at worst read values of the step before or after,
        // in memory of the device, never of this process.
        unsafe { Dispatch::graph_replay(&self.device, &self.graph) }
    }
}
