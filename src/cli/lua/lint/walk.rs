//! A walk over a script that notes globals, and lists and texts whose order is that of `pairs`.

use full_moon::{
    ast::{
        Ast, Block, Call, Expression, Field, FunctionArgs, FunctionBody, FunctionCall, GenericFor, If, Index, LastStmt,
        Prefix, Stmt, Suffix, TableConstructor, Var,
        luau::{ConstAssignment, IfExpression},
        punctuated::Punctuated,
    },
    node::Node,
    tokenizer::{Position, TokenReference, TokenType},
};

use super::scopes::{Local, Scopes};

/// A list or text outside of a loop over `pairs` that grows in it.
pub(super) struct Growth {
    /// The variable that holds it, and the text of the expression.
    pub place: (Option<Local>, String),
    pub is_text: bool,
    pub at: Position,
}

#[derive(Default)]
pub(super) struct Walk {
    pub scopes: Scopes,
    pub growths: Vec<Growth>,
    /// Lists that are sorted, and where.
    pub sorted: Vec<((Option<Local>, String), Position)>,
    /// For each loop over `pairs` that is open, the number of blocks around it.
    loops: Vec<usize>,
}

impl Walk {
    pub fn of(ast: &Ast) -> Self {
        let mut walk = Walk::default();
        walk.block(ast.nodes());
        walk
    }

    fn block(&mut self, block: &Block) {
        self.scopes.open();
        self.statements(block);
        self.scopes.close();
    }

    fn statements(&mut self, block: &Block) {
        for statement in block.stmts() {
            self.statement(statement);
        }
        if let Some(LastStmt::Return(last)) = block.last_stmt() {
            self.expressions(last.returns());
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Assignment(node) => {
                self.expressions(node.expressions());
                for (var, value) in node.variables().iter().zip(node.expressions()) {
                    self.grows(var, value, false);
                }
                for var in node.variables() {
                    self.assigned(var);
                }
            }
            Stmt::CompoundAssignment(node) => {
                self.expression(node.rhs());
                if node.compound_operator().to_string().trim() == "..=" {
                    self.grows(node.lhs(), node.rhs(), true);
                }
                self.assigned(node.lhs());
            }
            Stmt::Do(node) => self.block(node.block()),
            Stmt::FunctionCall(node) => self.call(node),
            Stmt::FunctionDeclaration(node) => {
                let mut names = node.name().names().iter().chain(node.name().method_name());
                if let Some(first) = names.next() {
                    let field = names.next().map(text);
                    self.scopes.write(&text(first), field, first.token().start_position());
                }
                self.function(node.body(), node.name().method_name().is_some());
            }
            Stmt::GenericFor(node) => self.generic_for(node),
            Stmt::If(node) => self.branches(node),
            Stmt::LocalAssignment(node) => self.locals(node.names(), node.expressions()),
            Stmt::ConstAssignment(node) => self.constants(node),
            Stmt::LocalFunction(node) => {
                self.scopes.declare(&text(node.name()));
                self.function(node.body(), false);
            }
            Stmt::ConstFunction(node) => {
                self.scopes.declare(&text(node.name()));
                self.function(node.body(), false);
            }
            Stmt::NumericFor(node) => {
                self.expression(node.start());
                self.expression(node.end());
                node.step().into_iter().for_each(|step| self.expression(step));
                self.scopes.open();
                self.scopes.declare(&text(node.index_variable()));
                self.block(node.block());
                self.scopes.close();
            }
            Stmt::Repeat(node) => {
                // The condition sees the block's locals.
                self.scopes.open();
                self.statements(node.block());
                self.expression(node.until());
                self.scopes.close();
            }
            Stmt::While(node) => {
                self.expression(node.condition());
                self.block(node.block());
            }
            _ => {}
        }
    }

    fn constants(&mut self, node: &ConstAssignment) {
        self.locals(node.names(), node.expressions());
    }

    fn locals(&mut self, names: &Punctuated<TokenReference>, values: &Punctuated<Expression>) {
        self.expressions(values);
        let aliases: Vec<Option<String>> = values.iter().map(|value| self.host_function(value)).collect();
        for (i, name) in names.iter().enumerate() {
            let local = self.scopes.declare(&text(name));
            if let Some(Some(of)) = aliases.get(i) {
                self.scopes.alias(local, of.clone());
            }
        }
    }

    fn branches(&mut self, node: &If) {
        self.expression(node.condition());
        self.block(node.block());
        for branch in node.else_if().into_iter().flatten() {
            self.expression(branch.condition());
            self.block(branch.block());
        }
        node.else_block().into_iter().for_each(|block| self.block(block));
    }

    fn generic_for(&mut self, node: &GenericFor) {
        self.expressions(node.expressions());
        let unordered = node.expressions().iter().next().is_some_and(|first| match first {
            Expression::FunctionCall(call) => self.callee(call).as_deref() == Some("pairs"),
            other => self.host_function(other).as_deref() == Some("next"),
        });
        if unordered {
            self.loops.push(self.scopes.depth());
        }
        self.scopes.open();
        for name in node.names() {
            self.scopes.declare(&text(name));
        }
        self.block(node.block());
        self.scopes.close();
        if unordered {
            self.loops.pop();
        }
    }

    fn function(&mut self, body: &FunctionBody, has_self: bool) {
        self.scopes.open();
        if has_self {
            self.scopes.declare("self");
        }
        for parameter in body.parameters() {
            self.scopes.declare(parameter.to_string().trim());
        }
        self.block(body.block());
        self.scopes.close();
    }

    fn expressions(&mut self, list: &Punctuated<Expression>) {
        list.iter().for_each(|e| self.expression(e));
    }

    fn expression(&mut self, node: &Expression) {
        match node {
            Expression::BinaryOperator { lhs, rhs, .. } => {
                self.expression(lhs);
                self.expression(rhs);
            }
            Expression::Parentheses { expression, .. }
            | Expression::UnaryOperator { expression, .. }
            | Expression::TypeAssertion { expression, .. } => self.expression(expression),
            Expression::Function(function) => self.function(function.body(), false),
            Expression::FunctionCall(call) => self.call(call),
            Expression::IfExpression(node) => self.if_expression(node),
            Expression::InterpolatedString(node) => node.expressions().for_each(|e| self.expression(e)),
            Expression::TableConstructor(table) => self.table(table),
            Expression::Var(var) => self.read(var),
            _ => {}
        }
    }

    fn if_expression(&mut self, node: &IfExpression) {
        self.expression(node.condition());
        self.expression(node.if_expression());
        for branch in node.else_if_expressions().into_iter().flatten() {
            self.expression(branch.condition());
            self.expression(branch.expression());
        }
        self.expression(node.else_expression());
    }

    fn table(&mut self, table: &TableConstructor) {
        for field in table.fields() {
            match field {
                Field::ExpressionKey { key, value, .. } => {
                    self.expression(key);
                    self.expression(value);
                }
                Field::NameKey { value, .. } => self.expression(value),
                Field::NoKey(value) => self.expression(value),
                _ => {}
            }
        }
    }

    fn read(&mut self, var: &Var) {
        match var {
            Var::Name(name) => self.scopes.read(&text(name), None, name.token().start_position()),
            Var::Expression(node) => self.chain(node.prefix(), node.suffixes()),
            _ => {}
        }
    }

    fn assigned(&mut self, var: &Var) {
        match var {
            Var::Name(name) => self.scopes.write(&text(name), None, name.token().start_position()),
            Var::Expression(node) => {
                let suffixes: Vec<&Suffix> = node.suffixes().collect();
                match (node.prefix(), suffixes.as_slice()) {
                    (Prefix::Name(name), [only]) if field(only).is_some() => {
                        self.scopes.write(&text(name), field(only), name.token().start_position());
                    }
                    _ => self.chain(node.prefix(), node.suffixes()),
                }
            }
            _ => {}
        }
    }

    fn chain<'a>(&mut self, prefix: &Prefix, suffixes: impl Iterator<Item = &'a Suffix>) {
        let mut suffixes = suffixes.peekable();
        match prefix {
            Prefix::Name(name) => {
                let first = suffixes.peek().and_then(|s| field(s));
                self.scopes.read(&text(name), first, name.token().start_position());
            }
            Prefix::Expression(inner) => self.expression(inner),
            _ => {}
        }
        for suffix in suffixes {
            match suffix {
                Suffix::Index(Index::Brackets { expression, .. }) => self.expression(expression),
                Suffix::Call(Call::AnonymousCall(args)) => self.arguments(args),
                Suffix::Call(Call::MethodCall(call)) => self.arguments(call.args()),
                _ => {}
            }
        }
    }

    fn arguments(&mut self, args: &FunctionArgs) {
        match args {
            FunctionArgs::Parentheses { arguments, .. } => self.expressions(arguments),
            FunctionArgs::TableConstructor(table) => self.table(table),
            _ => {}
        }
    }

    fn call(&mut self, call: &FunctionCall) {
        self.chain(call.prefix(), call.suffixes());
        let callee = self.callee(call);
        let Some(Suffix::Call(Call::AnonymousCall(args))) = call.suffixes().last() else { return };
        let FunctionArgs::Parentheses { arguments, .. } = args.as_ref() else { return };
        let Some(list) = arguments.iter().next() else { return };
        let (Some(place), Some(at)) = (self.place(list), call.start_position()) else { return };
        match callee.as_deref() {
            Some("table.insert") => self.grown(place, false, at),
            Some("table.sort") => self.sorted.push((place, at)),
            _ => {}
        }
    }

    /// The host's name for the function that is called.
    fn callee(&self, call: &FunctionCall) -> Option<String> {
        let Prefix::Name(name) = call.prefix() else { return None };
        let suffixes: Vec<&Suffix> = call.suffixes().collect();
        match suffixes.as_slice() {
            [Suffix::Call(_)] => self.scopes.host_name(&text(name)),
            [index, Suffix::Call(_)] => Some(format!("{}.{}", self.scopes.host_name(&text(name))?, field(index)?)),
            _ => None,
        }
    }

    /// The same for an expression that is a function of the host.
    fn host_function(&self, value: &Expression) -> Option<String> {
        match value {
            Expression::Var(Var::Name(name)) => self.scopes.host_name(&text(name)),
            Expression::Var(Var::Expression(node)) => {
                let Prefix::Name(name) = node.prefix() else { return None };
                let suffixes: Vec<&Suffix> = node.suffixes().collect();
                let [only] = suffixes.as_slice() else { return None };
                Some(format!("{}.{}", self.scopes.host_name(&text(name))?, field(only)?))
            }
            _ => None,
        }
    }

    /// `list[#list + 1] = value` and `text = text .. value`.
    fn grows(&mut self, var: &Var, value: &Expression, is_compound: bool) {
        let Some(at) = var.start_position() else { return };
        if let Var::Expression(node) = var
            && let Some(Suffix::Index(Index::Brackets { expression, .. })) = node.suffixes().last()
            && let Some(list) = length_of(expression)
        {
            if let Some(place) = self.place(list) {
                self.grown(place, false, at);
            }
            return;
        }
        let whole = Expression::Var(var.clone());
        let Some(place) = self.place(&whole) else { return };
        if is_compound || joins(value, &place.1) {
            self.grown(place, true, at);
        }
    }

    fn grown(&mut self, place: (Option<Local>, String), is_text: bool, at: Position) {
        let depth = self.scopes.depth_of(place.0);
        if self.loops.iter().any(|outside| depth <= *outside) {
            self.growths.push(Growth { place, is_text, at });
        }
    }

    fn place(&self, expression: &Expression) -> Option<(Option<Local>, String)> {
        let root = match expression {
            Expression::Var(Var::Name(name)) => text(name),
            Expression::Var(Var::Expression(node)) => match node.prefix() {
                Prefix::Name(name) => text(name),
                _ => return None,
            },
            _ => return None,
        };
        Some((self.scopes.find(&root), plain(expression)))
    }
}

pub(super) fn text(token: &TokenReference) -> String {
    token.token().to_string()
}

/// An expression's text without comments and blanks.
fn plain(node: &dyn Node) -> String {
    node.tokens().map(|t| t.token().to_string()).collect()
}

/// The name in `.name`, `["name"]` or `:name()`.
pub(super) fn field(suffix: &Suffix) -> Option<String> {
    match suffix {
        Suffix::Index(Index::Dot { name, .. }) => Some(text(name)),
        Suffix::Index(Index::Brackets { expression, .. }) => match expression.as_ref() {
            Expression::String(token) => match token.token().token_type() {
                TokenType::StringLiteral { literal, .. } => Some(literal.to_string()),
                _ => None,
            },
            _ => None,
        },
        Suffix::Call(Call::MethodCall(call)) => Some(text(call.name())),
        _ => None,
    }
}

/// The list in `#list + 1`.
fn length_of(index: &Expression) -> Option<&Expression> {
    match index {
        Expression::BinaryOperator { lhs, .. } => length_of(lhs),
        Expression::Parentheses { expression, .. } => length_of(expression),
        Expression::UnaryOperator { unop, expression } if unop.token().token().to_string() == "#" => Some(expression),
        _ => None,
    }
}

/// Whether the expression joins the text in this place with others.
fn joins(value: &Expression, place: &str) -> bool {
    match value {
        Expression::BinaryOperator { lhs, binop, rhs } if binop.token().token().to_string() == ".." => {
            plain(lhs.as_ref()) == place || plain(rhs.as_ref()) == place || joins(lhs, place) || joins(rhs, place)
        }
        Expression::Parentheses { expression, .. } => joins(expression, place),
        _ => false,
    }
}
