//! What each op does and what its cache map is.
