//! Why a script failed, told so that its author can mend it.

use std::fmt::{self, Write as _};

use super::Script;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The text is not a script: a syntax error, or too long.
    Syntax,
    /// The script raised an error.
    Runtime,
    /// The script used up its steps.
    Fuel,
    /// The script ran too long, or no worker was free in time. Depends on the machine's load: worth another try.
    Time,
    /// The script asked for too much memory.
    Memory,
    /// The input is too large or too deep for a script.
    Input,
    /// What the script returned is not a table, or cannot be written as JSON.
    Output,
}

impl ErrorKind {
    /// A word for it, such as `fuel`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Runtime => "runtime",
            Self::Fuel => "fuel",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Input => "input",
            Self::Output => "output",
        }
    }

    /// Whether the same script and input fail in the same way every time.
    pub fn is_deterministic(self) -> bool {
        self != Self::Time
    }
}

/// Why a script failed. Its display is one line, `script:line: message`; see [`ScriptError::report`] for the rest.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct ScriptError {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// Name of the script.
    pub script: String,
    /// Line in the script, from 1, where known.
    pub line: Option<u32>,
    /// One line, without script and line.
    pub message: String,
    /// The lines of the script around `line`, numbered and marked; empty where the line is not known.
    pub snippet: String,
    /// The script's calls at that point, innermost first, a line each; empty where not known.
    pub traceback: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.script, self.message),
            None => write!(f, "{}: {}", self.script, self.message),
        }
    }
}

impl ScriptError {
    /// The whole story for people: message, the lines around it, and the calls that led there.
    pub fn report(&self) -> String {
        let mut text = format!("{self}\n");
        if !self.snippet.is_empty() {
            let _ = write!(text, "\n{}", self.snippet);
        }
        if !self.traceback.is_empty() {
            text.push_str("\ncalled from:\n");
            for line in self.traceback.lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }

    /// An error of this script, at this line.
    pub(super) fn new(kind: ErrorKind, script: &Script, line: Option<u32>, message: &str, longest: usize) -> Self {
        Self {
            kind,
            script: script.name.clone(),
            line,
            message: one_line(message, longest),
            snippet: line.map(|line| snippet(&script.source, line)).unwrap_or_default(),
            traceback: String::new(),
        }
    }
}

/// The text on one line, cut to at most `longest` bytes.
pub(super) fn one_line(text: &str, longest: usize) -> String {
    let mut line = String::with_capacity(text.len().min(longest));
    for (i, part) in text.split(['\n', '\r']).map(str::trim).filter(|p| !p.is_empty()).enumerate() {
        if i > 0 {
            line.push(' ');
        }
        line.push_str(part);
        if line.len() > longest {
            break;
        }
    }
    if line.len() > longest {
        let mut end = longest.saturating_sub(3);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str("...");
    }
    line
}

const AROUND: usize = 2;
const WIDEST: usize = 160;

/// Two lines either side of `line`, numbered, with a mark on the line itself.
fn snippet(source: &str, line: u32) -> String {
    let at = line as usize;
    let first = at.saturating_sub(AROUND).max(1);
    let width = (at + AROUND).to_string().len();
    let mut text = String::new();
    for (i, content) in source.lines().enumerate().skip(first - 1).take(at + AROUND + 1 - first) {
        let number = i + 1;
        let mark = if number == at { '>' } else { ' ' };
        let content: String = content.chars().map(|c| if c == '\t' { ' ' } else { c }).take(WIDEST).collect();
        let row = format!("{mark} {number:>width$} | {content}");
        let _ = writeln!(text, "{}", row.trim_end());
        if number == at {
            let indent = content.len() - content.trim_start().len();
            let _ = writeln!(text, "  {:width$} | {:indent$}^", "", "");
        }
    }
    text
}

/// What other Luas have, and scripts do not.
const ABSENT: [&str; 22] = [
    "bit32",
    "buffer",
    "coroutine",
    "debug",
    "dofile",
    "io",
    "loadfile",
    "math.tointeger",
    "math.type",
    "module",
    "newproxy",
    "os",
    "package",
    "require",
    "string.pack",
    "string.split",
    "string.unpack",
    "table.move",
    "table.pack",
    "table.unpack",
    "typeof",
    "utf8",
];

/// A name on this line of the script that scripts do not have, which may be why something there is nil.
pub(super) fn absent_name(source: &str, line: u32) -> Option<&'static str> {
    let text = source.lines().nth(line.checked_sub(1)? as usize)?;
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
    words.find_map(|word| {
        let is = |name: &&str| word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        ABSENT.iter().copied().find(|name| is(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::Origin;

    #[test]
    fn report_shows_line_and_caret() {
        let script = Script::new("a.lua", "local x\nlocal y\n  obj.a.b = 1\nreturn x\n", Origin::BuiltIn);
        let error = ScriptError::new(ErrorKind::Runtime, &script, Some(3), "bad\nthing", 100);
        assert_eq!(error.to_string(), "a.lua:3: bad thing");
        assert_eq!(
            error.report(),
            "a.lua:3: bad thing\n\n  1 | local x\n  2 | local y\n> 3 |   obj.a.b = 1\n    |   ^\n  4 | return x\n"
        );
    }

    #[test]
    fn absent_names_are_whole_words() {
        let table = [
            ("local now = os.time()", Some("os")),
            ("return table.unpack(t)", Some("table.unpack")),
            ("local post = pos.x + table.packed", None),
            ("x = t.os", None),
        ];
        for (source, name) in table {
            assert_eq!(absent_name(source, 1), name, "{source}");
        }
        assert_eq!(absent_name("os", 2), None);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(one_line("ééééé", 8), "éé...");
        assert_eq!(one_line("short", 8), "short");
    }
}
