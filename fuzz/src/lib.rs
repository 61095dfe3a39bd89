//! The bodies of the fuzz targets.

pub mod names;
pub mod readers;
