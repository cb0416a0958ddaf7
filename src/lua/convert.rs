//! JSON to Lua tables and back, so that what a script leaves alone comes back exactly.
//!
//! Each table made for the input is remembered with the node it stands for. When such a table is found in the
//! result, wherever the script moved it, it *is* that node: empty, it is `[]` or `{}` as the node was; null fields,
//! which Lua cannot hold, return; numbers that are still equal keep their exact form. See [`super::output`].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use mlua::{Lua, Table, Value as LuaValue};
use serde_json::Value;

/// Addresses are already well spread; a multiplication is enough of a hash.
#[derive(Default)]
pub(super) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

type Addresses<T> = HashMap<usize, T, BuildHasherDefault<AddressHasher>>;

/// The input as Lua sees it, and what each table stands for.
pub(super) struct Input<'a> {
    /// The value of the global `obj`.
    pub object: LuaValue,
    pub root: &'a Value,
    /// What each table stands for, by address.
    pub nodes: Addresses<&'a Value>,
    /// Keeps every table of the input alive, so that no address is used twice.
    anchor: Table,
}

/// Makes Lua tables of the input. Nulls are left out, as Lua has none: absent fields, closed-up lists.
pub(super) fn to_lua<'a>(lua: &Lua, root: &'a Value) -> mlua::Result<Input<'a>> {
    let mut input = Input { object: LuaValue::Nil, root, nodes: Addresses::default(), anchor: lua.create_table()? };
    input.object = build(lua, root, &mut input)?;
    Ok(input)
}

fn build<'a>(lua: &Lua, value: &'a Value, input: &mut Input<'a>) -> mlua::Result<LuaValue> {
    let table = match value {
        Value::Null => return Ok(LuaValue::Nil),
        Value::Bool(b) => return Ok(LuaValue::Boolean(*b)),
        Value::Number(n) => return Ok(LuaValue::Number(n.as_f64().unwrap_or(f64::NAN))),
        Value::String(s) => return Ok(LuaValue::String(lua.create_string(s)?)),
        Value::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for item in items.iter().filter(|i| !i.is_null()) {
                table.raw_push(build(lua, item, input)?)?;
            }
            table
        }
        Value::Object(fields) => {
            let table = lua.create_table_with_capacity(0, fields.len())?;
            for (key, item) in fields {
                if !item.is_null() {
                    table.raw_set(key.as_str(), build(lua, item, input)?)?;
                }
            }
            table
        }
    };
    input.nodes.insert(table.to_pointer() as usize, value);
    input.anchor.raw_push(&table)?;
    Ok(LuaValue::Table(table))
}

/// The message of [`contents`] for a table with too many entries.
pub(super) const TOO_MANY: &str = "too many values";

/// Contents of a table, as JSON would have it.
pub(super) enum Contents {
    Empty,
    /// Keys 1 to n.
    List(Vec<LuaValue>),
    /// String keys, in the table's own order.
    Map(Vec<(mlua::LuaString, LuaValue)>),
}

/// Reads a table without running any of the script's code.
///
/// # Errors
/// A message when the table is neither a list nor a map, or has more than `most` entries.
pub(super) fn contents(table: &Table, most: usize) -> Result<Contents, String> {
    let mut list: Vec<(f64, LuaValue)> = Vec::new();
    let mut map: Vec<(mlua::LuaString, LuaValue)> = Vec::new();
    let mut problem = None;
    let walked = table.for_each(|key: LuaValue, value: LuaValue| {
        match key {
            LuaValue::Integer(i) => list.push((i as f64, value)),
            LuaValue::Number(n) => list.push((n, value)),
            LuaValue::String(s) => map.push((s, value)),
            _ => problem = Some("cannot encode mixed or invalid key types"),
        }
        if list.len() + map.len() > most {
            problem = Some(TOO_MANY);
        }
        if problem.is_some() { Err(mlua::Error::StackError) } else { Ok(()) }
    });
    if let Some(problem) = problem {
        return Err(problem.to_owned());
    }
    walked.map_err(|e| e.to_string())?;
    match (list.is_empty(), map.is_empty()) {
        (true, true) => Ok(Contents::Empty),
        (true, false) => Ok(Contents::Map(map)),
        (false, false) => Err("cannot encode mixed or invalid key types".to_owned()),
        (false, true) => {
            if !list.is_sorted_by(|a, b| a.0 < b.0) {
                list.sort_by(|a, b| a.0.total_cmp(&b.0));
            }
            if list.iter().enumerate().any(|(i, (key, _))| *key != (i + 1) as f64) {
                return Err("cannot encode sparse array".to_owned());
            }
            Ok(Contents::List(list.into_iter().map(|(_, value)| value).collect()))
        }
    }
}
