//! The derive macro behind millstream-wire.
