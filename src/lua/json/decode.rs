//! JSON text to Lua values.

use mlua::{Lua, Value as LuaValue};

use super::{
    super::{
        Limits,
        meter::{Meter, Stop},
    },
    STOPPED,
};

/// Reads JSON text straight into Lua values, so that the run's memory limit counts them. Nulls are left out.
///
/// # Errors
/// A message in Go's words.
pub(in crate::lua) fn decode(lua: &Lua, text: &[u8], meter: &Meter, limits: &Limits) -> Result<LuaValue, String> {
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
