//! The `tidegate` binary: controller, script tools and kubectl plugin in one.

fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
