//! Text that gopher-lua takes and Luau does not: empty statements, and `goto` to the end of a loop.

use std::collections::HashSet;

use super::compile::SyntaxError;

/// Rewrites in place, lines kept, what Luau refuses and gopher-lua takes. None when there is nothing of that kind.
///
/// # Errors
/// A `goto` or label that cannot be written as Luau's `continue`, with its line.
pub(super) fn adapt(text: &str) -> Result<Option<String>, SyntaxError> {
    let tokens = tokens(text);
    let mut edits = empty_statements(&tokens);
    jumps(text, &tokens, &mut edits)?;
    if edits.is_empty() {
        return Ok(None);
    }
    edits.sort_by_key(|edit| edit.start);
    let mut adapted = String::with_capacity(text.len() + edits.len() * 4);
    let mut copied = 0;
    for edit in &edits {
        let gone = text.get(edit.start..edit.end).unwrap_or_default();
        adapted.push_str(text.get(copied..edit.start).unwrap_or_default());
        adapted.push_str(edit.with);
        // The same width where possible, and the same lines always.
        for c in gone.chars().skip(edit.with.len()) {
            adapted.push(if c == '\n' { '\n' } else { ' ' });
        }
        adapted.extend(gone.chars().take(edit.with.len()).filter(|c| *c == '\n'));
        copied = edit.end;
    }
    adapted.push_str(text.get(copied..).unwrap_or_default());
    Ok(Some(adapted))
}

struct Edit {
    start: usize,
    end: usize,
    with: &'static str,
}

#[derive(Clone, Copy)]
struct Token<'t> {
    /// A word, a number, one sign, `::`, or `""` for any string.
    text: &'t str,
    start: usize,
    end: usize,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let start = i;
        let byte = at(i);
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                i += 1;
                continue;
            }
            b'-' if at(i + 1) == b'-' => {
                i = match long_bracket(bytes, i + 2) {
                    Some(end) => end,
                    None => text.get(i..).and_then(|rest| rest.find('\n')).map_or(bytes.len(), |n| i + n),
                };
                continue;
            }
            b'"' | b'\'' => {
                i += 1;
                while i < bytes.len() && at(i) != byte && at(i) != b'\n' {
                    i += if at(i) == b'\\' { 2 } else { 1 };
                }
                i = (i + 1).min(bytes.len());
                tokens.push(Token { text: "\"\"", start, end: i });
                continue;
            }
            b'[' => {
                if let Some(end) = long_bracket(bytes, i) {
                    i = end;
                    tokens.push(Token { text: "\"\"", start, end });
                    continue;
                }
                i += 1;
            }
            b':' if at(i + 1) == b':' => i += 2,
            _ if byte.is_ascii_alphanumeric() || byte == b'_' => {
                while at(i).is_ascii_alphanumeric() || at(i) == b'_' {
                    i += 1;
                }
            }
            _ => {
                i += 1;
                while i < bytes.len() && !text.is_char_boundary(i) {
                    i += 1;
                }
            }
        }
        tokens.push(Token { text: text.get(start..i).unwrap_or_default(), start, end: i });
    }
    tokens
}

/// End of the long bracket `[==[ ... ]==]` that starts at `i`, if one does.
fn long_bracket(bytes: &[u8], i: usize) -> Option<usize> {
    let rest = bytes.get(i..)?.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|b| **b == b'=').count();
    if rest.get(level) != Some(&b'[') {
        return None;
    }
    let close = [b"]".as_slice(), &vec![b'='; level], b"]"].concat();
    let body = rest.get(level + 1..)?;
    let length = body.windows(close.len()).position(|w| w == close).map_or(body.len(), |n| n + close.len());
    Some(i + 1 + level + 1 + length)
}

fn text_at<'t>(tokens: &[Token<'t>], i: usize) -> &'t str {
    tokens.get(i).map_or("", |t| t.text)
}

/// Tokens of a function's header looked through, which keeps the pass linear.
const MOST_PARAMETERS: usize = 1000;

/// Semicolons that end no statement.
fn empty_statements(tokens: &[Token<'_>]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut header_end = None;
    for (i, token) in tokens.iter().enumerate() {
        if token.text == "function" {
            header_end = tokens.iter().skip(i).take(MOST_PARAMETERS).position(|t| t.text == ")").map(|n| i + n);
        }
        if token.text != ";" {
            continue;
        }
        let nothing_before = match i.checked_sub(1) {
            None => true,
            Some(before) => {
                matches!(text_at(tokens, before), ";" | "then" | "do" | "else" | "repeat" | "::")
                    || header_end == Some(before)
            }
        };
        if nothing_before {
            edits.push(Edit { start: token.start, end: token.end, with: "" });
        }
    }
    edits
}

struct Block {
    is_loop: bool,
    /// The innermost loop here that a `continue` would belong to.
    around: Option<usize>,
}

/// Rewrites `goto name` to `continue` where `::name::` ends the body of the innermost loop around it.
fn jumps(text: &str, tokens: &[Token<'_>], edits: &mut Vec<Edit>) -> Result<(), SyntaxError> {
    let ends_body = ends_of_bodies(tokens);
    let mut blocks: Vec<Block> = Vec::new();
    let mut loops = 0;
    let mut header = false;
    // (loop, label)
    let mut ends: HashSet<(usize, &str)> = HashSet::new();
    // (position of the goto, label, loop)
    let mut gotos: Vec<(usize, &str, Option<usize>)> = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let around = blocks.last().and_then(|b| b.around);
        match token.text {
            "function" => blocks.push(Block { is_loop: false, around: None }),
            "if" => blocks.push(Block { is_loop: false, around }),
            "for" | "while" => header = true,
            "do" if !header => blocks.push(Block { is_loop: false, around }),
            "do" | "repeat" => {
                header = false;
                loops += 1;
                blocks.push(Block { is_loop: true, around: Some(loops) });
            }
            "end" | "until" => {
                blocks.pop();
            }
            "::" if text_at(tokens, i + 2) == "::" => {
                let last = ends_body.get(i) == Some(&true) && blocks.last().is_some_and(|b| b.is_loop);
                let Some(number) = around.filter(|_| last) else { return Err(unsupported(text, token.start)) };
                ends.insert((number, text_at(tokens, i + 1)));
                let end = tokens.get(i + 2).map_or(token.end, |t| t.end);
                edits.push(Edit { start: token.start, end, with: "" });
            }
            "goto" if is_jump(tokens, i) => gotos.push((i, text_at(tokens, i + 1), around)),
            _ => {}
        }
    }
    for (i, name, around) in gotos {
        let (Some(from), Some(to)) = (tokens.get(i), tokens.get(i + 1)) else { continue };
        if !around.is_some_and(|number| ends.contains(&(number, name))) {
            return Err(unsupported(text, from.start));
        }
        edits.push(Edit { start: from.start, end: to.end, with: "continue" });
    }
    Ok(())
}

/// For each token, whether from it on nothing but labels and semicolons is left of the block.
fn ends_of_bodies(tokens: &[Token<'_>]) -> Vec<bool> {
    let mut ends = vec![false; tokens.len()];
    for i in (0..tokens.len()).rev() {
        let after = |n: usize| ends.get(i + n) == Some(&true);
        let here = match text_at(tokens, i) {
            "end" | "until" => true,
            ";" => after(1),
            "::" if text_at(tokens, i + 2) == "::" => after(3),
            _ => false,
        };
        if let Some(end) = ends.get_mut(i) {
            *end = here;
        }
    }
    ends
}

/// Whether this `goto` is a statement: to the Lua of OpenKruise it is also an ordinary name.
fn is_jump(tokens: &[Token<'_>], i: usize) -> bool {
    const KEYWORDS: [&str; 21] = [
        "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not",
        "or", "repeat", "return", "then", "true", "until", "while",
    ];
    let label = tokens.get(i + 1).is_some_and(|t| t.is_word() && !KEYWORDS.contains(&t.text));
    let begins = match i.checked_sub(1).and_then(|before| tokens.get(before)) {
        None => true,
        Some(before) if before.is_word() => !matches!(
            before.text,
            "and" | "elseif" | "for" | "function" | "if" | "in" | "local" | "not" | "or" | "return" | "until" | "while"
        ),
        Some(before) => matches!(before.text, ";" | ")" | "}" | "]" | "\"\"" | "::"),
    };
    label && begins
}

fn unsupported(text: &str, position: usize) -> SyntaxError {
    let line = text.get(..position).unwrap_or_default().matches('\n').count() + 1;
    SyntaxError {
        line: u32::try_from(line).ok(),
        message: "goto is only supported as `continue`: to a label at the end of the innermost loop".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_statements_become_blanks() {
        let table = [
            (";;a = 1;; b = 2;", Some("  a = 1;  b = 2;")),
            ("if a then; b() else; c() end;", Some("if a then  b() else  c() end;")),
            ("function t.f(a, b); return a; end", Some("function t.f(a, b)  return a; end")),
            ("f();\ng(';;') -- ;;\n--[[;;]] h([==[;;]]]==]);", None),
            ("do; end", Some("do  end")),
            ("s = 'it\\'s;;' ;;", Some("s = 'it\\'s;;' ; ")),
            ("é = 'é' ;;", Some("é = 'é' ; ")),
        ];
        for (text, expected) in table {
            assert_eq!(adapt(text).unwrap().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn goto_the_end_of_a_loop_becomes_continue() {
        let table = [
            ("for i=1,2 do goto continue ::continue:: end", "for i=1,2 do continue                   end"),
            ("while x do\ngoto\nc\n::c::\nend", "while x do\ncontinue\n\n     \nend"),
            ("repeat if a then goto c end ::c::; until b", "repeat if a then continue end        until b"),
        ];
        for (text, expected) in table {
            let adapted = adapt(text).unwrap().unwrap();
            assert_eq!(adapted.matches('\n').count(), text.matches('\n').count(), "{text}");
            assert_eq!(
                adapted.trim_end().replace("; until", " until"),
                expected.replace("; until", " until"),
                "{text}"
            );
        }
        // `goto` is a name too.
        for text in ["goto = 1", "local goto\nlocal x = goto y = 2", "goto(x)", "t.goto = 1 f(t.goto)"] {
            assert_eq!(adapt(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn other_jumps_are_refused_by_name() {
        let table = [
            ("goto out\n::out::", 2),
            ("for i=1,2 do\n for j=1,2 do\n goto outer end ::outer:: end", 3),
            ("for i=1,2 do ::top::\n goto top end", 1),
            ("for i=1,2 do\nlocal f = function() goto c end ::c:: end", 2),
        ];
        for (text, line) in table {
            let error = adapt(text).unwrap_err();
            assert!(error.message.contains("goto"), "{error}");
            assert_eq!(error.line, Some(line), "{text}");
        }
    }
}
