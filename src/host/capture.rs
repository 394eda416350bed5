//! Copies what the planner reads into a directory.
