//! bzImage headers, good and bad.
