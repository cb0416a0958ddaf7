//! JSON to Lua tables and back, so that what a script leaves alone comes back exactly.
//!
//! Each table made for the input is remembered with the node it stands for. When such a table is found in the
//! result, wherever the script moved it, it *is* that node: empty, it is `[]` or `{}` as the node was; null fields,
//! which Lua cannot hold, return; numbers that are still equal keep their exact form.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use mlua::{Lua, Table, Value as LuaValue};
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use super::{
    Limits,
    places::{Place, Step, path, sibling_shape},
};

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
    root: &'a Value,
    nodes: Addresses<&'a Value>,
    /// Keeps every table of the input alive, so that no address is used twice.
    anchor: Table,
}

/// Checks size and depth of an input and returns a hash of its content.
///
/// # Errors
/// A message that names the place where the nesting is too deep, or the size limit.
pub(super) fn fingerprint(value: &Value, limits: &Limits) -> Result<[u8; 32], String> {
    struct Walk<'l> {
        hash: Sha256,
        bytes: usize,
        limits: &'l Limits,
    }
    impl Walk<'_> {
        fn add(&mut self, tag: u8, bytes: &[u8]) {
            self.hash.update([tag]);
            self.hash.update((bytes.len() as u64).to_le_bytes());
            self.hash.update(bytes);
            self.bytes += bytes.len() + 3;
        }

        fn walk(&mut self, value: &Value, depth: usize) -> Result<(), String> {
            if depth > self.limits.depth {
                return Err(String::new());
            }
            match value {
                Value::Null => self.add(b'n', &[]),
                Value::Bool(b) => self.add(b'b', &[u8::from(*b)]),
                Value::Number(n) => {
                    if let Some(n) = n.as_u64() {
                        self.add(b'u', &n.to_le_bytes());
                    } else if let Some(n) = n.as_i64() {
                        self.add(b'i', &n.to_le_bytes());
                    } else {
                        self.add(b'f', &n.as_f64().unwrap_or(f64::NAN).to_bits().to_le_bytes());
                    }
                }
                Value::String(s) => self.add(b's', s.as_bytes()),
                Value::Array(items) => {
                    self.add(b'[', &(items.len() as u64).to_le_bytes());
                    for (i, item) in items.iter().enumerate() {
                        self.walk(item, depth + 1).map_err(|below| above(Step::Index(i), &below))?;
                    }
                }
                Value::Object(fields) => {
                    self.add(b'{', &(fields.len() as u64).to_le_bytes());
                    for (key, item) in fields {
                        self.add(b'k', key.as_bytes());
                        self.walk(item, depth + 1).map_err(|below| above(Step::Key(key), &below))?;
                    }
                }
            }
            Ok(())
        }
    }
    fn above(step: Step<'_>, below: &str) -> String {
        let dot = if below.is_empty() || below.starts_with('[') { "" } else { "." };
        format!("{}{dot}{below}", path([step]))
    }
    let mut walk = Walk { hash: Sha256::new(), bytes: 0, limits };
    walk.walk(value, 0).map_err(|path| {
        let shown: String = path.chars().take(200).collect();
        format!("the input is nested deeper than {} levels, at {shown}", limits.depth)
    })?;
    if walk.bytes > limits.input_bytes {
        return Err(format!(
            "the input has about {} bytes, more than the {} that a script may be given",
            walk.bytes, limits.input_bytes
        ));
    }
    Ok(walk.hash.finalize().into())
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

const TOO_MANY: &str = "too many values";

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

/// Reads what a script returned.
pub(super) struct Reader<'r, 'a> {
    input: &'r Input<'a>,
    /// Tables that the script marked with `json.array` or `json.object`.
    marks: &'r Table,
    limits: &'r Limits,
    values: usize,
    bytes: usize,
    warnings: Vec<String>,
}

/// The result as JSON, how much of it there is, and what was doubtful.
pub(super) struct Output {
    pub value: Value,
    pub bytes: usize,
    pub warnings: Vec<String>,
}

/// Turns the returned table into JSON, reading raw contents only: no code of the script runs.
///
/// # Errors
/// A message that names the place in the result that cannot be written as JSON, or the limit that it exceeds.
pub(super) fn from_lua(table: &Table, input: &Input<'_>, marks: &Table, limits: &Limits) -> Result<Output, String> {
    let mut reader = Reader { input, marks, limits, values: 0, bytes: 0, warnings: Vec::new() };
    // A script's new top-level table usually stands for `obj.data`, what custom references are given.
    let hint = input.root.get("data").filter(|d| d.is_object()).unwrap_or(input.root);
    let value = reader.table(table, None, None, Some(hint))?;
    Ok(Output { value, bytes: reader.bytes, warnings: reader.warnings })
}

const WARNINGS: usize = 20;

impl<'a> Reader<'_, 'a> {
    fn fail<T>(&self, place: Option<&Place<'_, '_>>, step: Option<Step<'_>>, what: &str) -> Result<T, String> {
        Err(format!("{what}, at {}", path(steps(place, step))))
    }

    fn too_many<T>(&self) -> Result<T, String> {
        Err(format!("the result has more than {} values", self.limits.output_values))
    }

    fn value(
        &mut self,
        value: &LuaValue,
        up: &Place<'_, 'a>,
        step: Step<'_>,
        hint: Option<&'a Value>,
        numbers: Option<&'a [Value]>,
    ) -> Result<Value, String> {
        self.values += 1;
        self.bytes += 4;
        if self.values > self.limits.output_values {
            return self.too_many();
        }
        match value {
            LuaValue::Nil => Ok(Value::Null),
            LuaValue::Boolean(b) => Ok(Value::Bool(*b)),
            LuaValue::Integer(i) => self.number(*i as f64, up, step, hint, numbers),
            LuaValue::Number(n) => self.number(*n, up, step, hint, numbers),
            LuaValue::String(s) => Ok(Value::String(self.text(s, Some(up), Some(step))?)),
            LuaValue::Table(t) => self.table(t, Some(up), Some(step), hint),
            other => self.fail(Some(up), Some(step), &format!("cannot encode {} to JSON", other.type_name())),
        }
    }

    fn text(
        &mut self,
        s: &mlua::LuaString,
        up: Option<&Place<'_, 'a>>,
        step: Option<Step<'_>>,
    ) -> Result<String, String> {
        let bytes = s.as_bytes();
        self.bytes += bytes.len();
        if self.bytes > self.limits.output_bytes {
            return Err(format!("the result is larger than {} bytes", self.limits.output_bytes));
        }
        match std::str::from_utf8(&bytes) {
            Ok(s) => Ok(s.to_owned()),
            Err(_) => self.fail(up, step, "a string is not valid UTF-8"),
        }
    }

    fn number(
        &self,
        n: f64,
        up: &Place<'_, 'a>,
        step: Step<'_>,
        hint: Option<&'a Value>,
        numbers: Option<&'a [Value]>,
    ) -> Result<Value, String> {
        let same = |original: &&Value| original.is_number() && original.as_f64() == Some(n);
        if let Some(original) = hint.filter(same) {
            return Ok(original.clone());
        }
        // In a list the script may have moved it.
        if let Some(original) = numbers.and_then(|all| all.iter().find(same)) {
            return Ok(original.clone());
        }
        match plain_number(n) {
            Some(number) => Ok(Value::Number(number)),
            None => self.fail(Some(up), Some(step), &format!("cannot encode {} to JSON", not_finite(n))),
        }
    }

    fn table(
        &mut self,
        table: &Table,
        up: Option<&Place<'_, 'a>>,
        step: Option<Step<'_>>,
        hint: Option<&'a Value>,
    ) -> Result<Value, String> {
        let address = table.to_pointer() as usize;
        let mut depth = 0;
        for place in up.iter().flat_map(|p| p.upwards()) {
            depth += 1;
            if place.address == address {
                return self.fail(up, step, "cannot encode recursively nested tables to JSON");
            }
        }
        if depth > self.limits.depth {
            return self.fail(up, step, &format!("the result is nested deeper than {} levels", self.limits.depth));
        }
        let node = self.input.nodes.get(&address).copied();
        let place = Place { up, step, address, node };
        let original = node.or(hint);
        let most = self.limits.output_values.saturating_sub(self.values);
        let contents = match contents(table, most) {
            Ok(contents) => contents,
            Err(what) if what == TOO_MANY => return self.too_many(),
            Err(what) => return self.fail(up, step, &what),
        };
        match contents {
            Contents::Empty => Ok(self.empty(table, &place, hint)),
            Contents::List(items) => self.list(&items, &place, original),
            Contents::Map(fields) => self.map(&fields, &place, original),
        }
    }

    fn list(
        &mut self,
        items: &[LuaValue],
        place: &Place<'_, 'a>,
        original: Option<&'a Value>,
    ) -> Result<Value, String> {
        let originals: &'a [Value] = original.and_then(Value::as_array).map_or(&[], Vec::as_slice);
        let mut present = originals.iter().filter(|v| !v.is_null());
        let numbers = Some(originals).filter(|all| place.node.is_some() && all.iter().any(is_exotic));
        let mut list = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            list.push(self.value(item, place, Step::Index(i), present.next(), numbers)?);
        }
        // A list that lost nothing but its nulls is as it was.
        if place.node.is_some()
            && list.len() < originals.len()
            && list.iter().eq(originals.iter().filter(|v| !v.is_null()))
        {
            return Ok(Value::Array(originals.to_vec()));
        }
        Ok(Value::Array(list))
    }

    fn map(
        &mut self,
        fields: &[(mlua::LuaString, LuaValue)],
        place: &Place<'_, 'a>,
        original: Option<&'a Value>,
    ) -> Result<Value, String> {
        let originals = original.and_then(Value::as_object);
        let mut map = Map::new();
        for (key, item) in fields {
            let key = self.text(key, Some(place), None)?;
            let hint = originals.and_then(|o| o.get(&key));
            let value = self.value(item, place, Step::Key(&key), hint, None)?;
            map.insert(key, value);
        }
        if place.node.is_some() {
            restore_nulls(&mut map, originals);
        }
        Ok(Value::Object(map))
    }

    /// An empty table says nothing of its own: it is what it was made from, what it was marked as, or what the
    /// original has in that place or beside it.
    fn empty(&mut self, table: &Table, place: &Place<'_, 'a>, hint: Option<&'a Value>) -> Value {
        match place.node {
            Some(Value::Array(nodes)) if nodes.iter().all(Value::is_null) => return Value::Array(nodes.clone()),
            Some(Value::Array(_)) => return Value::Array(Vec::new()),
            Some(node) => {
                let mut map = Map::new();
                restore_nulls(&mut map, node.as_object());
                return Value::Object(map);
            }
            None => {}
        }
        if let Ok(mark) = self.marks.raw_get::<String>(table) {
            return if mark == "array" { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
        }
        let here = steps(Some(place), None);
        let shape = hint.filter(|h| h.is_array() || h.is_object()).or_else(|| self.shape_beside(place, &here));
        match shape {
            Some(Value::Array(_)) => Value::Array(Vec::new()),
            Some(_) => Value::Object(Map::new()),
            // At the top and for these two only a map is possible.
            None if matches!(here.as_slice(), [] | [Step::Key("labels" | "annotations")]) => Value::Object(Map::new()),
            None => {
                if self.warnings.len() < WARNINGS {
                    self.warnings.push(format!(
                        "{}: an empty table may be [] or {{}}, and the original has nothing in that place; written as \
                         null. Return json.array({{}}) or json.object({{}}), or leave the field out",
                        path(here)
                    ));
                }
                Value::Null
            }
        }
    }

    fn shape_beside(&self, place: &Place<'_, 'a>, here: &[Step<'_>]) -> Option<&'a Value> {
        for (above, base) in place.upwards().enumerate() {
            let Some(node) = base.node else { continue };
            let below = here.get(here.len().saturating_sub(above)..).unwrap_or(here);
            if let Some(shape) = sibling_shape(node, below) {
                return Some(shape);
            }
        }
        let data = self.input.root.get("data");
        data.and_then(|data| sibling_shape(data, here)).or_else(|| sibling_shape(self.input.root, here))
    }
}

fn restore_nulls(map: &mut Map<String, Value>, originals: Option<&Map<String, Value>>) {
    for (key, _) in originals.iter().flat_map(|o| o.iter()).filter(|(_, v)| v.is_null()) {
        if !map.contains_key(key) {
            map.insert(key.clone(), Value::Null);
        }
    }
}

/// Steps from the root.
fn steps<'p>(place: Option<&'p Place<'p, '_>>, last: Option<Step<'p>>) -> Vec<Step<'p>> {
    let mut steps: Vec<Step<'p>> = last.into_iter().collect();
    steps.extend(place.iter().flat_map(|p| p.upwards()).filter_map(|p| p.step));
    steps.reverse();
    steps
}

/// Whether a number would look different after a trip through Lua.
fn is_exotic(value: &Value) -> bool {
    match value {
        Value::Number(n) => n.as_f64().and_then(plain_number).as_ref() != Some(n),
        _ => false,
    }
}

/// The number as JSON: without a fraction where it has none and an integer can hold it. None for NaN and infinity.
pub(super) fn plain_number(n: f64) -> Option<Number> {
    const I64: f64 = 9_223_372_036_854_775_808.0;
    if n.fract() == 0.0 && (-I64..I64).contains(&n) {
        Some(Number::from(n as i64))
    } else if n.fract() == 0.0 && (I64..2.0 * I64).contains(&n) {
        Some(Number::from(n as u64))
    } else {
        Number::from_f64(n)
    }
}

pub(super) fn not_finite(n: f64) -> &'static str {
    if n.is_nan() {
        "NaN"
    } else if n > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}
