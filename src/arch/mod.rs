//! What differs between architectures. No `cfg`: a captured machine of any
//! architecture can be planned on any other.

pub mod x86_64;
