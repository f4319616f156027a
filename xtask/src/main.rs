//! Set-up, tests and the demo.
fn main() {}
