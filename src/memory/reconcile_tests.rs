//! Row by row through the table of rules.
