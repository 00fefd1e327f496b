//! The roots of the graph.
