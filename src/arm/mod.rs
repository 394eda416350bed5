//! Arming: the crash kernel that a configuration names, and keeping it true
//! while memory and CPUs come and go.

pub mod config;
pub mod storm;
pub mod watch;
