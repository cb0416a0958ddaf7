//! What a script returned, as JSON.

use mlua::{Table, Value as LuaValue};
use serde_json::{Map, Number, Value};

use super::{
    Limits,
    convert::{Contents, Input, TOO_MANY, contents},
    places::{Place, Step, path, sibling_shape},
};

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
