//! Lua values to JSON text.

use std::fmt::Write as _;

use mlua::{Table, Value as LuaValue};

use super::{
    super::{
        Limits,
        convert::{Contents, contents},
        meter::Meter,
        output::not_finite,
    },
    STOPPED,
};

/// Writes a value as Go would: keys sorted, `<`, `>` and `&` escaped, an empty table as null unless marked.
///
/// # Errors
/// A message, in the words that OpenKruise's scripts know.
pub(in crate::lua) fn encode(
    value: &LuaValue,
    marks: &Table,
    meter: &Meter,
    limits: &Limits,
) -> Result<String, String> {
    let mut encoder = Encoder { out: String::new(), marks, meter, limits, open: Vec::new(), values: 0 };
    encoder.value(value)?;
    Ok(encoder.out)
}

struct Encoder<'e> {
    out: String,
    marks: &'e Table,
    meter: &'e Meter,
    limits: &'e Limits,
    open: Vec<usize>,
    values: usize,
}

impl Encoder<'_> {
    fn value(&mut self, value: &LuaValue) -> Result<(), String> {
        self.values += 1;
        if !self.meter.charge(1) {
            return Err(STOPPED.to_owned());
        }
        if self.values > self.limits.output_values || self.out.len() > self.limits.output_bytes {
            return Err(format!(
                "cannot encode more than {} values or {} bytes to JSON",
                self.limits.output_values, self.limits.output_bytes
            ));
        }
        match value {
            LuaValue::Nil => self.out.push_str("null"),
            LuaValue::Boolean(b) => self.out.push_str(if *b { "true" } else { "false" }),
            LuaValue::Integer(i) => number(&mut self.out, *i as f64)?,
            LuaValue::Number(n) => number(&mut self.out, *n)?,
            LuaValue::String(s) => self.string(&s.as_bytes())?,
            LuaValue::Table(t) => self.table(t)?,
            other => return Err(format!("cannot encode {} to JSON", other.type_name())),
        }
        Ok(())
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), String> {
        if !self.meter.charge_bytes(bytes.len()) {
            return Err(STOPPED.to_owned());
        }
        if self.out.len() + bytes.len() > self.limits.output_bytes {
            return Err(format!("cannot encode more than {} bytes to JSON", self.limits.output_bytes));
        }
        string(&mut self.out, bytes);
        Ok(())
    }

    fn table(&mut self, table: &Table) -> Result<(), String> {
        let address = table.to_pointer() as usize;
        if self.open.contains(&address) {
            return Err("cannot encode recursively nested tables to JSON".to_owned());
        }
        if self.open.len() >= self.limits.depth {
            return Err(format!("cannot encode tables nested deeper than {} to JSON", self.limits.depth));
        }
        match contents(table, self.limits.output_values.saturating_sub(self.values))? {
            Contents::Empty => match self.marks.raw_get::<String>(table).as_deref() {
                Ok("array") => self.out.push_str("[]"),
                Ok(_) => self.out.push_str("{}"),
                Err(_) => self.out.push_str("null"),
            },
            Contents::List(items) => {
                self.open.push(address);
                for (i, item) in items.iter().enumerate() {
                    self.out.push(if i == 0 { '[' } else { ',' });
                    self.value(item)?;
                }
                self.out.push(']');
                self.open.pop();
            }
            Contents::Map(fields) => {
                self.open.push(address);
                let mut fields: Vec<(Vec<u8>, LuaValue)> =
                    fields.into_iter().map(|(k, v)| (k.as_bytes().to_vec(), v)).collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                for (i, (key, item)) in fields.iter().enumerate() {
                    self.out.push(if i == 0 { '{' } else { ',' });
                    self.string(key)?;
                    self.out.push(':');
                    self.value(item)?;
                }
                self.out.push('}');
                self.open.pop();
            }
        }
        Ok(())
    }
}

/// Go's form of a float: shortest digits, an exponent below 1e-6 and from 1e21.
fn number(out: &mut String, n: f64) -> Result<(), String> {
    if !n.is_finite() {
        return Err(format!("json: unsupported value: {}", not_finite(n)));
    }
    let size = n.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{n:e}");
        let text = if text.contains("e-") { text } else { text.replace('e', "e+") };
        out.push_str(&text);
    } else {
        let _ = write!(out, "{n}");
    }
    Ok(())
}

/// Go's form of a string, with HTML escaping; a byte that is not UTF-8 becomes `\ufffd`.
fn string(out: &mut String, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '<' | '>' | '&' | '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(out, "\\u{:04x}", c as u32);
                }
                c => out.push(c),
            }
        }
        for _ in chunk.invalid() {
            out.push_str("\\ufffd");
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_writes_them() {
        let table: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (100.0 / 3.0, "33.333333333333336"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (0.000001, "0.000001"),
            (1e-7, "1e-7"),
            (1.25e-9, "1.25e-9"),
            (9_007_199_254_740_993.0, "9007199254740992"),
        ];
        for (n, text) in table {
            let mut out = String::new();
            number(&mut out, *n).unwrap();
            assert_eq!(out, *text);
        }
        assert_eq!(number(&mut String::new(), f64::NAN), Err("json: unsupported value: NaN".to_owned()));
        assert_eq!(number(&mut String::new(), f64::INFINITY), Err("json: unsupported value: +Inf".to_owned()));
    }

    #[test]
    fn strings_as_go_writes_them() {
        let table: &[(&[u8], &str)] = &[
            (b"a\"b\\c/d", r#""a\"b\\c/d""#),
            (b"\n\r\t\x08\x0c\x00\x1f\x7f", "\"\\n\\r\\t\\b\\f\\u0000\\u001f\x7f\""),
            (b"<a>&", r#""\u003ca\u003e\u0026""#),
            ("é\u{2028}\u{2029}".as_bytes(), "\"é\\u2028\\u2029\""),
            (b"a\xff\xfeb", r#""a\ufffd\ufffdb""#),
        ];
        for (bytes, text) in table {
            let mut out = String::new();
            string(&mut out, bytes);
            assert_eq!(out, *text);
        }
    }
}
