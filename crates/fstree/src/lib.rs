//! Trees of files under a root one cannot leave.
