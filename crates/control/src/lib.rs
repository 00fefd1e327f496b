//! The gRPC surface, one file per service.
