//! The state directory: what is kept, what protects it, what may go.
