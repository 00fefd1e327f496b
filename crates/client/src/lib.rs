//! Speaks to a daemon: solve, watch, serve a session.
