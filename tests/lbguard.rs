//! `lbguard`, as the tests of this package run it.

fn main() -> std::process::ExitCode {
    lb_userspace::cli::main()
}
