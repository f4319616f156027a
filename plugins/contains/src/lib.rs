//! A filter that keeps the records that hold a byte string.
