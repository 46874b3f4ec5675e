//! The `barograph` binary: everything lives in the library, see `cli`.

fn main() -> std::process::ExitCode {
    barograph::cli::main()
}
