//! The lbguard command.
fn main() {}
