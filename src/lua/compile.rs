//! Script text to bytecode.

use std::fmt;

use mlua::chunk::Compiler;

use super::source;

/// Why a text is not a script.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SyntaxError {
    pub line: Option<u32>,
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Compiles Lua text. Bytecode is never taken from outside: it is only ever made here.
///
/// # Errors
/// The first syntax error.
pub(super) fn compile(text: &str) -> Result<Vec<u8>, SyntaxError> {
    // Level 1 keeps debug lines exact; debug level 1 keeps them at all.
    with(&Compiler::new().set_optimization_level(1).set_debug_level(1), text)
}

/// Compiles a part of the prelude, without lines: errors in it are those of the script that called it, and each VM loads
/// it anew.
///
/// # Errors
/// The first syntax error.
pub(super) fn compile_prelude(text: &str) -> Result<Vec<u8>, SyntaxError> {
    with(&Compiler::new().set_optimization_level(1).set_debug_level(0), text)
}

fn with(compiler: &Compiler, text: &str) -> Result<Vec<u8>, SyntaxError> {
    if text.starts_with('\u{1b}') {
        return Err(SyntaxError { line: None, message: "compiled Lua is not accepted, only its source".to_owned() });
    }
    let first = match compiler.compile(text) {
        Ok(bytecode) => return Ok(bytecode),
        Err(e) => syntax_error(&e),
    };
    // Luau refuses a few texts that are Lua 5.1 to gopher-lua.
    match source::adapt(text) {
        Ok(None) => Err(first),
        Ok(Some(adapted)) => compiler.compile(adapted).map_err(|e| syntax_error(&e)),
        Err(e) => Err(e),
    }
}

fn syntax_error(error: &mlua::Error) -> SyntaxError {
    let text = match error {
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    // `:3: message`, after a chunk name that may be empty.
    let Some((head, rest)) = text.split_once(": ") else { return SyntaxError { line: None, message: text } };
    match head.rsplit(':').next().and_then(|line| line.parse().ok()) {
        Some(line) => SyntaxError { line: Some(line), message: rest.to_owned() },
        None => SyntaxError { line: None, message: text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_lines() {
        let e = compile("local a = 1\nlocal b = = 2").unwrap_err();
        assert_eq!(e.line, Some(2), "{e:?}");
        assert!(!e.message.contains(":2:"), "{e:?}");
        let e = compile("\u{1b}Lua").unwrap_err();
        assert!(e.message.contains("only its source"), "{e:?}");
    }
}
