//! Dockerfile text to LLB, with no I/O.
