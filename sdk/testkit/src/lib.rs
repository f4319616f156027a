//! Runs a stage natively and in the real sandbox over the same vectors.
