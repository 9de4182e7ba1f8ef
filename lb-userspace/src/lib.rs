//! lbguard.
