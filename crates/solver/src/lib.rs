//! Which edge to compute next, and whether it is cached.
