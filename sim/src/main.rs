//! `cargo sim`: the simulation from the command line.

#[cfg(not(madsim))]
#[expect(clippy::print_stderr, reason = "it is a program")]
fn main() -> std::process::ExitCode {
    eprintln!("built without `--cfg madsim`, so that nothing was simulated: use the alias `cargo sim`,");
    eprintln!("and no RUSTFLAGS in the environment, which would override it");
    std::process::ExitCode::FAILURE
}

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    sim::cli::main()
}
