//! Discovery on trees in the shape of real machines.
#![allow(clippy::unwrap_used)]

mod boot;
mod captured;
mod carried;
mod facts;
mod machines;
mod tree;
