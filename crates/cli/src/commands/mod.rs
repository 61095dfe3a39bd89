//! The commands, one module each.

pub mod average;
pub mod bench;
pub mod calibrate;
pub mod compare;
pub mod completions;
pub mod data;
pub mod devices;
pub mod draw;
pub mod embed;
pub mod eval;
pub mod explain;
pub mod export;
pub mod fetch;
pub mod find_lr;
pub mod finetune;
pub mod import;
pub mod info;
mod labelled_data;
pub mod list;
pub mod man;
pub mod predict;
pub mod recipe;
pub mod scale;
pub mod train;
pub mod tune;
