//! Runs one process in one container.
