//! What an expression is.

use full_moon::{
    ast::{Call, Expression, Field, FunctionArgs, FunctionCall, Index, Prefix, Suffix, Var, punctuated::Punctuated},
    node::Node,
    tokenizer::Position,
};

use super::{
    super::{
        schema,
        walk::{field, text},
    },
    Flow, Shape, merge,
};

/// Fields of `obj` from which every rule is made.
const OF_THE_STEP: [&str; 3] = ["matches", "requestHeaderModifier", "patchPodMetadata"];

impl<'a> Flow<'a> {
    pub(super) fn values(&mut self, list: &'a Punctuated<Expression>) -> Vec<Shape<'a>> {
        list.iter().map(|value| self.value(value)).collect()
    }

    pub(super) fn value(&mut self, node: &'a Expression) -> Shape<'a> {
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

    pub(super) fn call(&mut self, call: &'a FunctionCall) -> Shape<'a> {
        self.chain(call.prefix(), call.suffixes())
    }

    pub(super) fn chain(&mut self, prefix: &'a Prefix, suffixes: impl Iterator<Item = &'a Suffix>) -> Shape<'a> {
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

    pub(super) fn arguments(&mut self, args: &'a FunctionArgs) -> Vec<(Shape<'a>, Option<Position>)> {
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

    pub(super) fn index(&mut self, of: &Shape<'a>, index: &'a Index) -> Shape<'a> {
        if let Index::Brackets { expression, .. } = index {
            self.value(expression);
        }
        match name_of(index) {
            Some((name, at)) => self.member(of, &name, at),
            None => element(of),
        }
    }

    pub(super) fn member(&mut self, of: &Shape<'a>, name: &str, at: Option<Position>) -> Shape<'a> {
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
}

/// What an entry of a list or map is.
pub(super) fn element<'a>(of: &Shape<'a>) -> Shape<'a> {
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
pub(super) fn name_of(index: &Index) -> Option<(String, Option<Position>)> {
    let at = match index {
        Index::Dot { name, .. } => Some(name.token().start_position()),
        Index::Brackets { expression, .. } => expression.start_position(),
        _ => None,
    };
    Some((field(&Suffix::Index(index.clone()))?, at))
}
