//! `json.encode` and `json.decode` for scripts, with the text that Go's `encoding/json` writes: it ends up inside
//! annotations, where a migration must not change a byte.
//!
//! Both charge the run for their work, and neither raises: the prelude turns a failure into `nil, message`.

use std::fmt::Write as _;

use mlua::{Lua, Table, Value as LuaValue};

use super::{
    Limits,
    convert::{Contents, contents, not_finite},
    meter::{Meter, Stop},
};

/// Writes a value as Go would: keys sorted, `<`, `>` and `&` escaped, an empty table as null unless marked.
///
/// # Errors
/// A message, in the words that OpenKruise's scripts know.
pub(super) fn encode(value: &LuaValue, marks: &Table, meter: &Meter, limits: &Limits) -> Result<String, String> {
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

const STOPPED: &str = "the run was stopped";

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

/// Reads JSON text straight into Lua values, so that the run's memory limit counts them. Nulls are left out.
///
/// # Errors
/// A message in Go's words.
pub(super) fn decode(lua: &Lua, text: &[u8], meter: &Meter, limits: &Limits) -> Result<LuaValue, String> {
    if text.len() > limits.decode_bytes {
        return Err(format!("cannot decode more than {} bytes of JSON", limits.decode_bytes));
    }
    if !meter.charge_bytes(text.len()) {
        return Err(STOPPED.to_owned());
    }
    let mut decoder = Decoder { lua, text, at: 0, meter, limits };
    let value = decoder.value(0)?;
    decoder.space();
    match decoder.peek() {
        None => Ok(value),
        Some(_) => decoder.unexpected("after top-level value"),
    }
}

struct Decoder<'d> {
    lua: &'d Lua,
    text: &'d [u8],
    at: usize,
    meter: &'d Meter,
    limits: &'d Limits,
}

impl Decoder<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn unexpected<T>(&self, place: &str) -> Result<T, String> {
        let Some(byte) = self.peek() else { return Err("unexpected end of JSON input".to_owned()) };
        let shown = match byte {
            b'\'' => "'\\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            0x20..=0x7e => format!("'{}'", char::from(byte)),
            b'\n' => "'\\n'".to_owned(),
            b'\r' => "'\\r'".to_owned(),
            b'\t' => "'\\t'".to_owned(),
            0..0x80 => format!("'\\x{byte:02x}'"),
            _ => format!("'{}'", char::from(byte)),
        };
        Err(format!("invalid character {shown} {place}"))
    }

    fn lua<T>(&self, result: mlua::Result<T>) -> Result<T, String> {
        result.map_err(|e| {
            if let mlua::Error::MemoryError(_) = e {
                self.meter.stop(Stop::Memory);
            }
            e.to_string()
        })
    }

    fn value(&mut self, depth: usize) -> Result<LuaValue, String> {
        if depth > self.limits.depth {
            return Err("exceeded max depth".to_owned());
        }
        if !self.meter.charge(1) {
            return Err(STOPPED.to_owned());
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => {
                let bytes = self.string()?;
                Ok(LuaValue::String(self.lua(self.lua.create_string(bytes))?))
            }
            Some(b't') => self.literal("true", LuaValue::Boolean(true)),
            Some(b'f') => self.literal("false", LuaValue::Boolean(false)),
            Some(b'n') => self.literal("null", LuaValue::Nil),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.unexpected("looking for beginning of value"),
        }
    }

    fn literal(&mut self, word: &str, value: LuaValue) -> Result<LuaValue, String> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return self.unexpected(&format!("in literal {word} (expecting '{}')", char::from(expected)));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self, place: &str) -> Result<(), String> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.unexpected(place);
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<LuaValue, String> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        let text = self.text.get(start..self.at).and_then(|t| std::str::from_utf8(t).ok()).unwrap_or_default();
        match text.parse::<f64>() {
            Ok(n) if n.is_finite() => Ok(LuaValue::Number(n)),
            _ => Err(format!("json: cannot unmarshal number {text} into Go value of type float64")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<LuaValue, String> {
        self.at += 1;
        let table = self.lua(self.lua.create_table())?;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(LuaValue::Table(table));
        }
        loop {
            let item = self.value(depth + 1)?;
            if !item.is_nil() {
                self.lua(table.raw_push(item))?;
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(LuaValue::Table(table));
                }
                _ => return self.unexpected("after array element"),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<LuaValue, String> {
        self.at += 1;
        let table = self.lua(self.lua.create_table())?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(LuaValue::Table(table));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return self.unexpected("looking for beginning of object key string");
            }
            let key = self.string()?;
            let key = self.lua(self.lua.create_string(key))?;
            self.space();
            if self.peek() != Some(b':') {
                return self.unexpected("after object key");
            }
            self.at += 1;
            let item = self.value(depth + 1)?;
            self.lua(table.raw_set(key, item))?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(LuaValue::Table(table));
                }
                _ => return self.unexpected("after object key:value pair"),
            }
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    break;
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut text)?;
                }
                Some(byte @ 0x20..) => {
                    text.push(byte);
                    self.at += 1;
                }
                _ => return self.unexpected("in string literal"),
            }
        }
        // As Go: what is not UTF-8 becomes the replacement character.
        match String::from_utf8(text) {
            Ok(text) => Ok(text.into_bytes()),
            Err(e) => {
                let mut clean = String::new();
                for chunk in e.as_bytes().utf8_chunks() {
                    clean.push_str(chunk.valid());
                    clean.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
                }
                Ok(clean.into_bytes())
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), String> {
        let plain = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => c,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.hex()?;
                let mut c = char::from_u32(first);
                if (0xd800..0xdc00).contains(&first) && self.text.get(self.at..self.at + 2) == Some(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    let second = self.hex()?;
                    if (0xdc00..0xe000).contains(&second) {
                        c = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                    } else {
                        self.at = back;
                    }
                }
                let mut buffer = [0; 4];
                let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                return Ok(());
            }
            _ => return self.unexpected("in string escape code"),
        };
        text.push(plain);
        self.at += 1;
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, String> {
        let mut n = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(16)) else {
                return self.unexpected("in \\u hexadecimal character escape");
            };
            n = n * 16 + digit;
            self.at += 1;
        }
        Ok(n)
    }
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
