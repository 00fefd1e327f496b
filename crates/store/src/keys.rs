//! The solver's cache keys, in the same database.
