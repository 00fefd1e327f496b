//! How work is spawned, shared, paused and stopped.
