//! What the tables of a script are, as far as it shows without being run: parts of the object, which its schema knows, and
//! parts of the step, from which every rule is made.
//!
//! A value is followed through locals, fields, loops and the script's own functions. Whatever is not clear is unknown, and
//! nothing is said of it.

mod values;
mod writes;

use std::collections::{BTreeSet, HashMap};

use full_moon::{
    ast::{
        Ast, Block, Call, Expression, FunctionBody, FunctionCall, GenericFor, LastStmt, Prefix, Stmt, Suffix,
        TableConstructor, punctuated::Punctuated,
    },
    node::Node,
    tokenizer::{Position, TokenReference},
};
use serde_json::Value;

use self::values::element;
use super::walk::text;

/// Calls of functions are followed so many times.
const PASSES: usize = 4;

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
}
