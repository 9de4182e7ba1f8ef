//! The `lbguard` command; all of it is in the library, where tests reach it.

fn main() -> std::process::ExitCode {
    lb_userspace::cli::main()
}
