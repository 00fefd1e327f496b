//! From a solve request to a definition.
