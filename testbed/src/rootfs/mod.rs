//! Root filesystems: described as data, named by the hash of that description, built once.
//!
//! - [`Recipe`] is a description, and the constants are the ones in use;
//! - [`Builder`] builds what is missing, from a mirror that may lose packages.

mod build;
mod mirror;
mod recipe;
mod recipes;

pub use build::{Builder, Incomplete, build};
pub use mirror::Mirror;
pub use recipe::Recipe;
pub use recipes::{DOCKER, DOCUMENTED, GUEST, HOST, NIX, TOOLS, host};
