//! Trees to layer blobs and back.
