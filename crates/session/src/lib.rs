//! What a connected client can be asked for, as traits, and the protocol cores without I/O.
