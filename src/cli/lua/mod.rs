//! `tidegate lua`: tools for script authors. The engine and its budgets are production's.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use serde_json::Value;

mod coverage;
mod init;
mod lint;
mod list;
mod mutate;
mod repl;
mod report;
mod run;
mod served;
mod sources;
mod test;
mod watch;

/// A wrong command line, or a file that cannot be used.
const USAGE: u8 = 2;

/// Subcommands of `tidegate lua`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the test cases of scripts.
    Test(test::Args),
    /// Run a script on one object and print what it makes of it.
    Run(run::Args),
    /// Try lines of Lua on what a script is given for one object.
    Repl(repl::Args),
    /// Look for mistakes in scripts without running them.
    Lint(lint::Args),
    /// Change scripts in small ways and tell which changes no test case notices.
    Mutate(mutate::Args),
    /// Write a script and cases for the kind of an object.
    Init(init::Args),
    /// Print the built-in scripts, what they can do, and with a cluster which of its kinds have one.
    List(list::Args),
}

/// When to print in colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    fn on(self) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the output cannot be written.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Test(args) => test::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Repl(args) => repl::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Mutate(args) => mutate::run(&args),
        Command::Init(args) => init::run(&args),
        Command::List(args) => list::run(&args),
    }
}

/// Reports what the user can mend on the command line or in a file.
fn usage(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(USAGE)
}

/// Prints to stdout; a reader that went away is no error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Reads a file of YAML or JSON; `-` is stdin.
fn read_documents(path: &Path) -> Result<Vec<Value>, String> {
    let text = if path == Path::new("-") { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
    let text = text.map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
    crate::yaml::from_str_multi(&text).map_err(|e| format!("{}: {e}", path.display()))
}
