//! What a script writes, and into what.

use full_moon::{
    ast::{Expression, Field, Suffix, Var},
    node::Node,
    tokenizer::Position,
};

use super::{
    super::walk::text,
    Flow, Shape,
    values::{element, name_of},
};

impl<'a> Flow<'a> {
    pub(super) fn write(&mut self, var: &'a Var, value: Shape<'a>) {
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
    pub(super) fn changed(&mut self, table: &Shape<'a>, at: Option<Position>) {
        if let Shape::Step(path) = table {
            let message = format!("`{path}` is changed, from which every rule is made: change a `tidegate.copy` of it");
            self.mistake(at, "shared-input", message);
        }
    }

    /// A list gets one more entry.
    pub(super) fn added(&mut self, list: &Shape<'a>, entry: &Shape<'a>, at: Option<Position>) {
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
    pub(super) fn given(&mut self, place: &Shape<'a>, value: &Shape<'a>) {
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
