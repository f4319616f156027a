//! The sandbox for pipeline stages: scan, compile, cache, pool, call, swap.
