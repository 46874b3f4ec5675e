//! The API: gRPC and HTTP, queries, event stream, what operators write.
