//! What the user is told about vertices, in order, with backpressure.
