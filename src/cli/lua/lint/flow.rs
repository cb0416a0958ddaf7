//! What the tables of a script are, as far as it shows without being run: parts of the object, which its schema knows, and
//! parts of the step, from which every rule is made.
//!
//! A value is followed through locals, fields, loops and the script's own functions. Whatever is not clear is unknown, and
//! nothing is said of it.

use std::collections::{BTreeSet, HashMap};

use full_moon::{
    ast::{
        Ast, Block, Call, Expression, Field, FunctionArgs, FunctionBody, FunctionCall, GenericFor, Index, LastStmt,
        Prefix, Stmt, Suffix, TableConstructor, Var, punctuated::Punctuated,
    },
    node::Node,
    tokenizer::{Position, TokenReference},
};
use serde_json::Value;

use super::{
    schema,
    walk::{field, text},
};

/// Calls of functions are followed so many times.
const PASSES: usize = 4;
/// Fields of `obj` from which every rule is made.
const OF_THE_STEP: [&str; 3] = ["matches", "requestHeaderModifier", "patchPodMetadata"];

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mistake {
    /// Line and column.
    pub at: (usize, usize),
    /// `unknown-field` or `shared-input`.
    pub rule: &'static str,
    pub message: String,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
enum Shape<'a> {
    Unknown,
    /// The global `obj`.
    Input,
    /// `obj.data`, or what a script returns.
    Data,
    /// A part of the object's spec, with what its schema says, and whether it is a copy of its own.
    Part {
        schema: &'a Value,
        path: String,
        is_copy: bool,
    },
    /// A part of the step.
    Step(String),
    /// Something of the host's, such as `table.insert`.
    Host(String),
    /// A function of the script's, by its place.
    Function(usize),
    /// A table that is written here.
    Table(&'a TableConstructor),
}

#[derive(Default)]
struct Signature<'a> {
    parameters: Vec<Option<Shape<'a>>>,
    returns: Option<Shape<'a>>,
}

/// Follows the values of a script.
pub(super) struct Flow<'a> {
    /// The schema of the spec, if it is known.
    spec: Option<&'a Value>,
    /// The script reads a status: its `obj` is the object.
    reads_status: bool,
    blocks: Vec<HashMap<String, Shape<'a>>>,
    functions: HashMap<usize, Signature<'a>>,
    /// The functions around.
    within: Vec<usize>,
    mistakes: BTreeSet<Mistake>,
}

fn merge<'a>(known: &mut Option<Shape<'a>>, new: Shape<'a>) {
    *known = Some(match known.take() {
        Some(known) if known != new => Shape::Unknown,
        _ => new,
    });
}

impl<'a> Flow<'a> {
    /// All mistakes of a script for objects whose spec has this schema.
    pub fn mistakes(ast: &'a Ast, spec: Option<&'a Value>, reads_status: bool) -> BTreeSet<Mistake> {
        let mut flow = Flow {
            spec,
            reads_status,
            blocks: Vec::new(),
            functions: HashMap::new(),
            within: Vec::new(),
            mistakes: BTreeSet::new(),
        };
        for _ in 0..PASSES {
            flow.mistakes.clear();
            flow.block(ast.nodes());
        }
        flow.mistakes
    }

    fn mistake(&mut self, at: Option<Position>, rule: &'static str, message: String) {
        let at = at.map_or((1, 1), |at| (at.line(), at.character()));
        self.mistakes.insert(Mistake { at, rule, message });
    }

    fn find(&self, name: &str) -> Shape<'a> {
        let known = self.blocks.iter().rev().find_map(|block| block.get(name));
        known.cloned().unwrap_or_else(|| if name == "obj" { Shape::Input } else { Shape::Host(name.to_owned()) })
    }

    fn declare(&mut self, name: &TokenReference, shape: Shape<'a>) {
        if let Some(block) = self.blocks.last_mut() {
            block.insert(text(name), shape);
        }
    }

    /// A name gets another value: in a block within it may keep the one it has.
    fn assign(&mut self, name: &str, shape: Shape<'a>) {
        let last = self.blocks.len().saturating_sub(1);
        let holder = self.blocks.iter_mut().enumerate().rev().find(|(_, block)| block.contains_key(name));
        if let Some((depth, block)) = holder {
            let is_sure = depth == last || block.get(name) == Some(&shape);
            block.insert(name.to_owned(), if is_sure { shape } else { Shape::Unknown });
        }
    }

    fn block(&mut self, block: &'a Block) {
        self.blocks.push(HashMap::new());
        self.statements(block);
        self.blocks.pop();
    }

    fn statements(&mut self, block: &'a Block) {
        block.stmts().for_each(|statement| self.statement(statement));
        let Some(LastStmt::Return(last)) = block.last_stmt() else { return };
        let values = self.values(last.returns());
        let first = values.into_iter().next().unwrap_or(Shape::Unknown);
        match self.within.last() {
            Some(function) => merge(&mut self.functions.entry(*function).or_default().returns, first),
            None => self.given(&Shape::Data, &first),
        }
    }

    fn statement(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::Assignment(node) => {
                let mut values = self.values(node.expressions()).into_iter();
                for var in node.variables() {
                    let value = values.next().unwrap_or(Shape::Unknown);
                    self.write(var, value);
                }
            }
            Stmt::CompoundAssignment(node) => {
                self.value(node.rhs());
                self.write(node.lhs(), Shape::Unknown);
            }
            Stmt::Do(node) => self.block(node.block()),
            Stmt::FunctionCall(call) => {
                self.call(call);
            }
            Stmt::FunctionDeclaration(node) => {
                self.function(node.body());
            }
            Stmt::GenericFor(node) => self.generic_for(node),
            Stmt::If(node) => {
                self.value(node.condition());
                self.block(node.block());
                for branch in node.else_if().into_iter().flatten() {
                    self.value(branch.condition());
                    self.block(branch.block());
                }
                node.else_block().into_iter().for_each(|block| self.block(block));
            }
            Stmt::LocalAssignment(node) => self.locals(node.names(), node.expressions()),
            Stmt::ConstAssignment(node) => self.locals(node.names(), node.expressions()),
            Stmt::LocalFunction(node) => self.local_function(node.name(), node.body()),
            Stmt::ConstFunction(node) => self.local_function(node.name(), node.body()),
            Stmt::NumericFor(node) => {
                for bound in [Some(node.start()), Some(node.end()), node.step()].into_iter().flatten() {
                    self.value(bound);
                }
                self.blocks.push(HashMap::new());
                self.declare(node.index_variable(), Shape::Unknown);
                self.block(node.block());
                self.blocks.pop();
            }
            Stmt::Repeat(node) => {
                self.blocks.push(HashMap::new());
                self.statements(node.block());
                self.value(node.until());
                self.blocks.pop();
            }
            Stmt::While(node) => {
                self.value(node.condition());
                self.block(node.block());
            }
            _ => {}
        }
    }

    fn locals(&mut self, names: &'a Punctuated<TokenReference>, values: &'a Punctuated<Expression>) {
        let mut values = self.values(values).into_iter();
        for name in names {
            let value = values.next().unwrap_or(Shape::Unknown);
            self.declare(name, value);
        }
    }

    fn generic_for(&mut self, node: &'a GenericFor) {
        let mut over = Shape::Unknown;
        match node.expressions().iter().next() {
            Some(Expression::FunctionCall(call)) if self.is_walk(call) => {
                if let Some(Suffix::Call(Call::AnonymousCall(args))) = call.suffixes().last() {
                    over = self.arguments(args).into_iter().next().map_or(Shape::Unknown, |(shape, _)| shape);
                }
            }
            _ => {
                self.values(node.expressions());
            }
        }
        self.blocks.push(HashMap::new());
        for (i, name) in node.names().iter().enumerate() {
            self.declare(name, if i == 1 { element(&over) } else { Shape::Unknown });
        }
        self.block(node.block());
        self.blocks.pop();
    }

    /// A call of `ipairs` or `pairs`.
    fn is_walk(&self, call: &FunctionCall) -> bool {
        let Prefix::Name(name) = call.prefix() else { return false };
        matches!(self.find(&text(name)), Shape::Host(host) if host == "ipairs" || host == "pairs")
    }

    fn local_function(&mut self, name: &'a TokenReference, body: &'a FunctionBody) {
        let place = body.start_position().map_or(0, |at| at.bytes());
        self.declare(name, Shape::Function(place));
        self.function(body);
    }

    fn function(&mut self, body: &'a FunctionBody) -> Shape<'a> {
        let place = body.start_position().map_or(0, |at| at.bytes());
        let known = self.functions.entry(place).or_default().parameters.clone();
        self.blocks.push(HashMap::new());
        for (i, parameter) in body.parameters().iter().enumerate() {
            let shape = known.get(i).cloned().flatten().unwrap_or(Shape::Unknown);
            if let Some(block) = self.blocks.last_mut() {
                block.insert(parameter.to_string().trim().to_owned(), shape);
            }
        }
        self.within.push(place);
        self.block(body.block());
        self.within.pop();
        self.blocks.pop();
        Shape::Function(place)
    }

    fn values(&mut self, list: &'a Punctuated<Expression>) -> Vec<Shape<'a>> {
        list.iter().map(|value| self.value(value)).collect()
    }

    fn value(&mut self, node: &'a Expression) -> Shape<'a> {
        match node {
            Expression::BinaryOperator { lhs, binop, rhs } => {
                let (left, right) = (self.value(lhs), self.value(rhs));
                match binop.token().token().to_string().as_str() {
                    "and" => right,
                    "or" => {
                        self.given(&left, &right);
                        if matches!(right, Shape::Table(_)) || left == right { left } else { Shape::Unknown }
                    }
                    _ => Shape::Unknown,
                }
            }
            Expression::Parentheses { expression, .. } | Expression::TypeAssertion { expression, .. } => {
                self.value(expression)
            }
            Expression::UnaryOperator { expression, .. } => {
                self.value(expression);
                Shape::Unknown
            }
            Expression::Function(function) => self.function(function.body()),
            Expression::FunctionCall(call) => self.call(call),
            Expression::IfExpression(node) => {
                self.value(node.condition());
                self.value(node.if_expression());
                self.value(node.else_expression());
                Shape::Unknown
            }
            Expression::TableConstructor(table) => {
                for field in table.fields() {
                    match field {
                        Field::ExpressionKey { key, value, .. } => {
                            self.value(key);
                            self.value(value);
                        }
                        Field::NameKey { value, .. } => {
                            self.value(value);
                        }
                        Field::NoKey(value) => {
                            self.value(value);
                        }
                        _ => {}
                    }
                }
                Shape::Table(table)
            }
            Expression::Var(Var::Name(name)) => self.find(&text(name)),
            Expression::Var(Var::Expression(node)) => self.chain(node.prefix(), node.suffixes()),
            _ => Shape::Unknown,
        }
    }

    fn call(&mut self, call: &'a FunctionCall) -> Shape<'a> {
        self.chain(call.prefix(), call.suffixes())
    }

    fn chain(&mut self, prefix: &'a Prefix, suffixes: impl Iterator<Item = &'a Suffix>) -> Shape<'a> {
        let mut shape = match prefix {
            Prefix::Name(name) => self.find(&text(name)),
            Prefix::Expression(inner) => self.value(inner),
            _ => Shape::Unknown,
        };
        for suffix in suffixes {
            shape = match suffix {
                Suffix::Index(index) => self.index(&shape, index),
                Suffix::Call(Call::AnonymousCall(args)) => self.called(&shape, args),
                Suffix::Call(Call::MethodCall(call)) => {
                    self.arguments(call.args());
                    Shape::Unknown
                }
                _ => Shape::Unknown,
            };
        }
        shape
    }

    fn arguments(&mut self, args: &'a FunctionArgs) -> Vec<(Shape<'a>, Option<Position>)> {
        match args {
            FunctionArgs::Parentheses { arguments, .. } => {
                arguments.iter().map(|argument| (self.value(argument), argument.start_position())).collect()
            }
            FunctionArgs::TableConstructor(table) => vec![(Shape::Table(table), table.start_position())],
            _ => Vec::new(),
        }
    }

    fn called(&mut self, callee: &Shape<'a>, args: &'a FunctionArgs) -> Shape<'a> {
        let given = self.arguments(args);
        let first = given.first().cloned();
        match callee {
            Shape::Function(place) => {
                let signature = self.functions.entry(*place).or_default();
                signature.parameters.resize(signature.parameters.len().max(given.len()), None);
                for (known, (shape, _)) in signature.parameters.iter_mut().zip(given) {
                    merge(known, shape);
                }
                signature.returns.clone().unwrap_or(Shape::Unknown)
            }
            Shape::Host(name) => match (name.as_str(), first) {
                ("table.insert" | "table.remove" | "table.sort", Some((list, at))) => {
                    self.changed(&list, at);
                    if let (2.., Some((added, at))) = (given.len(), given.last()) {
                        self.added(&list, added, *at);
                    }
                    Shape::Unknown
                }
                ("tidegate.copy" | "json.array" | "json.object", Some((of, _))) => match of {
                    Shape::Part { schema, path, .. } => Shape::Part { schema, path, is_copy: true },
                    Shape::Table(table) => Shape::Table(table),
                    _ => Shape::Unknown,
                },
                ("tidegate.matches", _) => Shape::Step("obj.matches".to_owned()),
                ("tidegate.modifier", _) => Shape::Step("obj.requestHeaderModifier".to_owned()),
                _ => Shape::Unknown,
            },
            _ => Shape::Unknown,
        }
    }

    fn index(&mut self, of: &Shape<'a>, index: &'a Index) -> Shape<'a> {
        if let Index::Brackets { expression, .. } = index {
            self.value(expression);
        }
        match name_of(index) {
            Some((name, at)) => self.member(of, &name, at),
            None => element(of),
        }
    }

    fn member(&mut self, of: &Shape<'a>, name: &str, at: Option<Position>) -> Shape<'a> {
        match of {
            Shape::Host(host) => Shape::Host(format!("{host}.{name}")),
            Shape::Input if self.reads_status => self.of_data(name),
            Shape::Input if name == "data" => Shape::Data,
            Shape::Input if OF_THE_STEP.contains(&name) => Shape::Step(format!("obj.{name}")),
            Shape::Data => self.of_data(name),
            Shape::Step(path) => Shape::Step(format!("{path}.{name}")),
            Shape::Part { schema, path, is_copy } => match schema::field(schema, name) {
                schema::Known::As(schema) => Shape::Part { schema, path: format!("{path}.{name}"), is_copy: *is_copy },
                known => {
                    // Where anything may be, only what is written almost like a field is a mistake.
                    let near = schema::near(schema, name);
                    if near.is_some() || known == schema::Known::Not {
                        let meant = near.map(|near| format!("; is `{near}` meant?")).unwrap_or_default();
                        self.mistake(at, "unknown-field", format!("`{path}` has no `{name}` in the schema{meant}"));
                    }
                    Shape::Unknown
                }
            },
            _ => Shape::Unknown,
        }
    }

    fn of_data(&self, name: &str) -> Shape<'a> {
        match self.spec.filter(|_| name == "spec") {
            Some(schema) => Shape::Part { schema, path: name.to_owned(), is_copy: false },
            None => Shape::Unknown,
        }
    }

    fn write(&mut self, var: &'a Var, value: Shape<'a>) {
        let node = match var {
            Var::Name(name) => return self.assign(&text(name), value),
            Var::Expression(node) => node,
            _ => return,
        };
        let suffixes: Vec<&Suffix> = node.suffixes().collect();
        let Some((last, before)) = suffixes.split_last() else { return };
        let holder = self.chain(node.prefix(), before.iter().copied());
        self.changed(&holder, var.start_position());
        let Suffix::Index(index) = last else { return };
        if name_of(index).is_none() {
            self.added(&holder, &value, var.start_position());
        }
        let place = self.index(&holder, index);
        self.given(&place, &value);
    }

    /// A table is changed.
    fn changed(&mut self, table: &Shape<'a>, at: Option<Position>) {
        if let Shape::Step(path) = table {
            let message = format!("`{path}` is changed, from which every rule is made: change a `tidegate.copy` of it");
            self.mistake(at, "shared-input", message);
        }
    }

    /// A list gets one more entry.
    fn added(&mut self, list: &Shape<'a>, entry: &Shape<'a>, at: Option<Position>) {
        let Shape::Part { path, .. } = list else { return };
        if let Shape::Part { path: of, is_copy: false, .. } = entry
            && *of == format!("{path}[]")
        {
            let message =
                format!("an entry of `{path}` is put into it once more, and is the same table: add a `tidegate.copy`");
            self.mistake(at, "shared-input", message);
        }
        self.given(&element(list), entry);
    }

    /// What is put in a place of the object.
    fn given(&mut self, place: &Shape<'a>, value: &Shape<'a>) {
        let Shape::Table(table) = value else { return };
        if matches!(place, Shape::Unknown | Shape::Step(_) | Shape::Input | Shape::Host(_)) {
            return;
        }
        for field in table.fields() {
            let (inner, value) = match field {
                Field::NameKey { key, value, .. } => {
                    (self.member(place, &text(key), Some(key.token().start_position())), &**value)
                }
                Field::NoKey(value) => (element(place), value),
                _ => continue,
            };
            if let Expression::TableConstructor(table) = value {
                self.given(&inner, &Shape::Table(table));
            }
        }
    }
}

/// What an entry of a list or map is.
fn element<'a>(of: &Shape<'a>) -> Shape<'a> {
    match of {
        Shape::Step(path) => Shape::Step(format!("{path}[]")),
        Shape::Part { schema, path, is_copy } => match schema::element(schema) {
            Some(schema) => Shape::Part { schema, path: format!("{path}[]"), is_copy: *is_copy },
            None => Shape::Unknown,
        },
        _ => Shape::Unknown,
    }
}

/// The name in `.name` or `["name"]`, and where it is.
fn name_of(index: &Index) -> Option<(String, Option<Position>)> {
    let at = match index {
        Index::Dot { name, .. } => Some(name.token().start_position()),
        Index::Brackets { expression, .. } => expression.start_position(),
        _ => None,
    };
    Some((field(&Suffix::Index(index.clone()))?, at))
}
