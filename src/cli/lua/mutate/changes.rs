//! The small changes that can be made to a script.

use std::{collections::HashSet, ops::Range};

use full_moon::{
    ast::{
        Ast, Block, Call, ElseIf, Expression, Field, FunctionBody, FunctionCall, If, Index, LastStmt, Prefix, Repeat,
        Stmt, Suffix, TableConstructor, VarExpression, While,
    },
    node::Node,
    tokenizer::{Position, TokenReference},
    visitors::Visitor,
};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Bytes of the text that go.
    pub range: Range<usize>,
    /// What comes in their place; nothing: blanks, so that lines stay.
    pub after: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Change {
    /// The changed script.
    pub fn apply(&self, source: &str) -> String {
        let part = |range: Range<usize>| source.get(range).unwrap_or_default();
        let gone = part(self.range.clone());
        let after = if self.after.is_empty() {
            gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
        } else {
            self.after.clone()
        };
        [part(0..self.range.start), &after, part(self.range.end..source.len())].concat()
    }

    /// `before → after`, on one line.
    pub fn text(&self, source: &str) -> String {
        const LONGEST: usize = 60;
        let words: Vec<&str> = source.get(self.range.clone()).unwrap_or_default().split_whitespace().collect();
        let before = words.join(" ");
        let short: String = before.chars().take(LONGEST).collect();
        let dots = if short.len() < before.len() { "…" } else { "" };
        let after = match self.after.as_str() {
            "" => "nothing".to_owned(),
            negated if negated.starts_with("not (") => "its opposite".to_owned(),
            after => format!("`{after}`"),
        };
        format!("`{short}{dots}` → {after}")
    }
}

/// All changes of a script, in the order of the text.
pub(super) fn changes(ast: &Ast, source: &str) -> Vec<Change> {
    let mut collector = Collector { source, found: Vec::new(), idle: HashSet::new() };
    collector.visit_ast(ast);
    let mut found = collector.found;
    found.sort_by(|a, b| (a.range.start, a.range.end, &a.after).cmp(&(b.range.start, b.range.end, &b.after)));
    found.dedup();
    found
}

/// Tables of the host. That a script calls what they hold is no choice of its author.
const HOSTS: [&str; 6] = ["json", "math", "native", "string", "table", "tidegate"];

struct Collector<'s> {
    source: &'s str,
    found: Vec<Change>,
    /// Where statements begin that do nothing.
    idle: HashSet<usize>,
}

impl Collector<'_> {
    fn change(&mut self, start: Position, end: usize, after: impl Into<String>) {
        let range = start.bytes()..end;
        if !range.is_empty() {
            self.found.push(Change { range, after: after.into(), line: start.line(), column: start.character() });
        }
    }

    fn node(&mut self, node: &dyn Node, after: impl Into<String>) {
        if let (Some(start), Some(end)) = (node.start_position(), node.end_position()) {
            self.change(start, end.bytes(), after);
        }
    }

    fn token(&mut self, token: &TokenReference, after: impl Into<String>) {
        let token = token.token();
        self.change(token.start_position(), token.end_position().bytes(), after);
    }

    fn text(&self, node: &dyn Node) -> &str {
        let range = node.start_position().zip(node.end_position());
        range.and_then(|(start, end)| self.source.get(start.bytes()..end.bytes())).unwrap_or_default()
    }

    /// The opposite of a condition, unless a change of its operator says the same.
    fn negated(&mut self, condition: &Expression) {
        let covered = match condition {
            Expression::BinaryOperator { binop, .. } => {
                matches!(binop.token().token().to_string().as_str(), "==" | "~=" | "<" | "<=" | ">" | ">=")
            }
            Expression::UnaryOperator { unop, .. } => unop.token().token().to_string() == "not",
            _ => false,
        };
        if !covered {
            let after = format!("not ({})", self.text(condition));
            self.node(condition, after);
        }
    }

    /// Other names for fields that are read or written, but not for functions that are called.
    fn fields<'a>(&mut self, prefix: &Prefix, suffixes: impl Iterator<Item = &'a Suffix>) {
        if let Prefix::Name(name) = prefix
            && HOSTS.contains(&name.token().to_string().as_str())
        {
            return;
        }
        let mut suffixes = suffixes.peekable();
        while let Some(suffix) = suffixes.next() {
            let called = matches!(suffixes.peek(), Some(Suffix::Call(Call::AnonymousCall(_))));
            if let (Suffix::Index(Index::Dot { name, .. }), false) = (suffix, called) {
                self.renamed(name);
            }
        }
    }

    fn renamed(&mut self, name: &TokenReference) {
        self.token(name, format!("{}_", name.token()));
    }
}

impl Visitor for Collector<'_> {
    fn visit_expression(&mut self, node: &Expression) {
        match node {
            Expression::BinaryOperator { binop, .. } => {
                let token = binop.token();
                let others: &[&str] = match token.token().to_string().as_str() {
                    "==" => &["~="],
                    "~=" => &["=="],
                    "<" => &["<=", ">="],
                    "<=" => &["<", ">"],
                    ">" => &[">=", "<="],
                    ">=" => &[">", "<"],
                    "+" => &["-"],
                    "-" => &["+"],
                    "*" => &["/"],
                    "/" | "%" => &["*"],
                    "and" => &["or"],
                    "or" => &["and"],
                    _ => &[],
                };
                for other in others {
                    self.token(token, *other);
                }
            }
            Expression::UnaryOperator { unop, .. } if unop.token().token().to_string() != "#" => {
                self.token(unop.token(), "");
            }
            Expression::Number(token) => match token.token().to_string().parse::<f64>() {
                Ok(number) => self.token(token, (number + 1.0).to_string()),
                Err(_) => self.token(token, "1"),
            },
            Expression::Symbol(token) => match token.token().to_string().as_str() {
                "true" => self.token(token, "false"),
                "false" => self.token(token, "true"),
                _ => {}
            },
            // Words. What has blanks is a message.
            Expression::String(token) => {
                let text = token.token().to_string();
                let quote = text.chars().next().filter(|c| *c == '"' || *c == '\'');
                if let Some(quote) = quote
                    && text.contains(char::is_alphabetic)
                    && !text.contains(char::is_whitespace)
                {
                    let inner = text.trim_matches(quote);
                    self.token(token, format!("{quote}{inner}_{quote}"));
                }
            }
            _ => {}
        }
    }

    fn visit_function_body(&mut self, node: &FunctionBody) {
        // At the end of a function they say what is so without them.
        if let Some(last @ LastStmt::Return(what)) = node.block().last_stmt()
            && matches!(self.text(what.returns()), "" | "nil")
        {
            self.idle.extend(last.start_position().map(Position::bytes));
        }
    }

    fn visit_if(&mut self, node: &If) {
        self.negated(node.condition());
    }

    fn visit_else_if(&mut self, node: &ElseIf) {
        self.negated(node.condition());
    }

    fn visit_while(&mut self, node: &While) {
        self.negated(node.condition());
    }

    fn visit_repeat(&mut self, node: &Repeat) {
        self.negated(node.until());
    }

    fn visit_var_expression(&mut self, node: &VarExpression) {
        self.fields(node.prefix(), node.suffixes());
    }

    fn visit_function_call(&mut self, node: &FunctionCall) {
        self.fields(node.prefix(), node.suffixes());
    }

    fn visit_table_constructor(&mut self, node: &TableConstructor) {
        for pair in node.fields().pairs() {
            let field = pair.value();
            if let Field::NameKey { key, .. } = field {
                self.renamed(key);
            }
            let end = pair.punctuation().and_then(Node::end_position).or_else(|| field.end_position());
            if let (Some(start), Some(end)) = (field.start_position(), end) {
                self.change(start, end.bytes(), "");
            }
        }
    }

    fn visit_block(&mut self, node: &Block) {
        for statement in node.stmts() {
            if matches!(statement, Stmt::Assignment(_) | Stmt::FunctionCall(_) | Stmt::CompoundAssignment(_)) {
                self.node(statement, "");
            }
        }
        match node.last_stmt() {
            Some(LastStmt::Break(token) | LastStmt::Continue(token)) => self.token(token, ""),
            Some(last @ LastStmt::Return(_))
                if last.start_position().is_none_or(|at| !self.idle.contains(&at.bytes())) =>
            {
                self.node(last, "");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(source: &str) -> Vec<String> {
        let ast = full_moon::parse(source).unwrap();
        changes(&ast, source)
            .iter()
            .map(|c| format!("{}:{} {} | {}", c.line, c.column, c.text(source), c.apply(source)))
            .collect()
    }

    #[test]
    fn each_kind_of_change() {
        let table: [(&str, &[&str]); 15] = [
            ("local a = b == c", &["1:13 `==` → `~=` | local a = b ~= c"]),
            ("local a = b < c", &["1:13 `<` → `<=` | local a = b <= c", "1:13 `<` → `>=` | local a = b >= c"]),
            (
                "local e = 'ö' .. x + y",
                &["1:11 `'ö'` → `'ö_'` | local e = 'ö_' .. x + y", "1:20 `+` → `-` | local e = 'ö' .. x - y"],
            ),
            (
                "local a = b and not c",
                &["1:13 `and` → `or` | local a = b or not c", "1:17 `not` → nothing | local a = b and     c"],
            ),
            (
                "local a = -b % 7",
                &[
                    "1:11 `-` → nothing | local a =  b % 7",
                    "1:14 `%` → `*` | local a = -b * 7",
                    "1:16 `7` → `8` | local a = -b % 8",
                ],
            ),
            ("local a = true", &["1:11 `true` → `false` | local a = false"]),
            ("local a = 'two words'", &[]),
            ("function f() return nil end", &[]),
            ("if a then local b end", &["1:4 `a` → its opposite | if not (a) then local b end"]),
            ("while a == b do end", &["1:9 `==` → `~=` | while a ~= b do end"]),
            ("f(\na)", &["1:1 `f( a)` → nothing |   \n  "]),
            ("local a = b.c.d(e)", &["1:13 `c` → `c_` | local a = b.c_.d(e)"]),
            ("local a = table.concat", &[]),
            (
                "local a = { b = c, d }",
                &[
                    "1:13 `b = c,` → nothing | local a = {        d }",
                    "1:13 `b` → `b_` | local a = { b_ = c, d }",
                    "1:20 `d` → nothing | local a = { b = c,   }",
                ],
            ),
            ("for _ in a do break end", &["1:15 `break` → nothing | for _ in a do       end"]),
        ];
        for (source, expected) in table {
            let mut expected: Vec<String> = expected.iter().map(|e| (*e).to_owned()).collect();
            let mut found = all(source);
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{source}");
        }
    }
}
