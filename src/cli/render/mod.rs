//! How plans, maps and images are shown: text for people, JSON for programs,
//! SVG for the eye.

pub(super) mod json;
pub(super) mod lanzaboote;
mod multiboot;
pub(super) mod stream;
pub(super) mod svg;
pub(super) mod text;
pub(super) mod uki;

pub(super) use crate::base::human;
