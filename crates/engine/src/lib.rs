//! One solve, start to finish.
