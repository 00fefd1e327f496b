//! Generated messages and services of the BuildKit wire, and nothing else.
