//! Path patterns: ignore files, include and exclude lists, and Go's path match.
