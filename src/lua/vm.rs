//! One virtual machine, for one run.

use std::{rc::Rc, time::Instant};

use mlua::{
    Error as LuaError, Function, Lua, LuaOptions, LuaString, MultiValue, StdLib, Table, Value as LuaValue,
    chunk::ChunkMode,
};
use serde_json::Value;

use super::{
    ErrorKind, Limits, Outcome, Script, ScriptError, compile, convert,
    error::one_line,
    json,
    meter::{Meter, Stop},
};

const PRELUDE: &str = include_str!("prelude.lua");
/// What the VM calls the prelude in positions. Not a name that a script can have.
const PRELUDE_NAME: &str = "[tidegate]";
/// What the VM calls the script; errors put the script's own name in its place.
const CHUNK_NAME: &str = "script";
const OUT_OF_MEMORY: &str = "not enough memory";
const TRACEBACK_LINES: usize = 12;

/// Bytecode of the prelude.
///
/// # Errors
/// Only if the prelude itself is broken.
pub(super) fn prelude() -> Result<Vec<u8>, String> {
    compile::compile(PRELUDE).map_err(|e| format!("prelude, line {:?}: {e}", e.line))
}

/// A fresh VM with the prelude in place. It runs one script and is then dropped, so that nothing leaks from one
/// script, or one user, to the next.
pub(super) struct Vm {
    lua: Lua,
    meter: Rc<Meter>,
    marks: Table,
}

/// A result, and its weight for a cache in bytes.
pub(super) type Run = (Result<Outcome, ScriptError>, usize);

impl Vm {
    pub fn new(prelude: &[u8], limits: &Limits) -> mlua::Result<Self> {
        // No `sandbox(true)`: it makes the libraries read-only, which breaks scripts that OpenKruise accepts.
        let lua = Lua::new_with(StdLib::MATH | StdLib::TABLE | StdLib::STRING, LuaOptions::new())?;
        let meter = Rc::new(Meter::new(limits));
        let marks = lua.create_table()?;
        let host = host_functions(&lua, &meter, &marks, limits)?;
        lua.load(prelude).set_name(format!("={PRELUDE_NAME}")).set_mode(ChunkMode::Binary).call::<()>(host)?;
        Ok(Self { lua, meter, marks })
    }

    /// Runs compiled `bytecode` with `obj` as its only global beside the libraries.
    pub fn run(&self, bytecode: &[u8], script: &Script, obj: &Value, limits: &Limits) -> Run {
        let fail = |kind, message: &str| ScriptError::new(kind, script, None, message, limits.error_bytes);
        let input = match convert::to_lua(&self.lua, obj) {
            Ok(input) => input,
            Err(e) => return (Err(fail(ErrorKind::Input, &format!("cannot convert the input: {e}"))), 0),
        };
        let returned = self.call(bytecode, &input.object, limits);
        if let Some(stop) = self.meter.stopped() {
            return (Err(self.stopped(stop, script, limits)), 0);
        }
        let returned = match returned {
            Ok(values) => values,
            Err(e) => return (Err(self.failed(&e, script, limits)), 0),
        };
        // As in OpenKruise, the last returned value counts.
        let table = match returned.into_vec().pop() {
            Some(LuaValue::Table(table)) => table,
            other => {
                let kind = other.map_or("nothing", |v| v.type_name());
                let message = format!("the script must return a table, but returned {kind}");
                return (Err(fail(ErrorKind::Output, &message)), 0);
            }
        };
        match convert::from_lua(&table, &input, &self.marks, limits) {
            Ok(output) => {
                let outcome = Outcome {
                    value: output.value,
                    prints: self.meter.prints.take(),
                    fuel_used: self.meter.used(),
                    warnings: output.warnings,
                };
                (Ok(outcome), output.bytes)
            }
            Err(message) => (Err(fail(ErrorKind::Output, &message)), 0),
        }
    }

    fn call(&self, bytecode: &[u8], object: &LuaValue, limits: &Limits) -> mlua::Result<MultiValue> {
        self.lua.globals().raw_set("obj", object)?;
        let chunk = self.lua.load(bytecode).set_name(format!("={CHUNK_NAME}")).set_mode(ChunkMode::Binary);
        let function = chunk.into_function()?;
        // After the conversion: with a limit set every allocation takes a slower path, and the input has its own cap.
        self.lua.set_memory_limit(self.lua.used_memory() + limits.memory_bytes)?;
        let meter = Rc::clone(&self.meter);
        self.lua.set_interrupt(move |lua| {
            if meter.charge(1) {
                return Ok(mlua::VmState::Continue);
            }
            if meter.site.borrow().is_empty() {
                let site = lua.traceback(None, 0).map(|t| t.to_string_lossy()).unwrap_or_default();
                *meter.site.borrow_mut() = format!("{site}\n");
            }
            Err(LuaError::RuntimeError("stopped".to_owned()))
        });
        self.meter.start(Instant::now() + limits.wall);
        let returned = function.call::<MultiValue>(());
        self.lua.remove_interrupt();
        self.lua.set_memory_limit(0)?;
        returned
    }

    fn stopped(&self, stop: Stop, script: &Script, limits: &Limits) -> ScriptError {
        let (kind, message) = match stop {
            Stop::Fuel => {
                (ErrorKind::Fuel, format!("the script used up its {} steps; look for a loop without end", limits.fuel))
            }
            Stop::Time => (ErrorKind::Time, format!("the script ran longer than {:?}", limits.wall)),
            Stop::Memory => return memory_error(script, limits),
        };
        let site = self.meter.site.take();
        let calls = Calls::read(&site);
        let mut error = ScriptError::new(kind, script, calls.line(), &message, limits.error_bytes);
        error.traceback = calls.text(&script.name);
        error
    }

    fn failed(&self, error: &LuaError, script: &Script, limits: &Limits) -> ScriptError {
        let text = match error {
            LuaError::MemoryError(_) => return memory_error(script, limits),
            LuaError::RuntimeError(text) => text.clone(),
            LuaError::CallbackError { traceback, cause } => {
                if let LuaError::MemoryError(_) = **cause {
                    return memory_error(script, limits);
                }
                format!("{cause}\n{traceback}")
            }
            other => other.to_string(),
        };
        let (message, traceback) = text.split_once("stack traceback:").unwrap_or((&text, ""));
        let message = message.trim_end();
        if message == OUT_OF_MEMORY {
            return memory_error(script, limits);
        }
        let calls = Calls::read(traceback);
        let (line, message) = match position(message) {
            Some((CHUNK_NAME, line, rest)) => (Some(line), rest),
            // The position is inside the prelude: what counts is who called it.
            Some((PRELUDE_NAME, _, rest)) => (calls.line(), rest),
            _ => (calls.line(), message),
        };
        let thrown = self.meter.thrown.take();
        let message = match &thrown {
            // Lua itself would show the table's address.
            Some(json) if is_table_address(message) => json,
            _ => message,
        };
        let mut error = ScriptError::new(ErrorKind::Runtime, script, line, message, limits.error_bytes);
        error.traceback = calls.text(&script.name);
        error
    }
}

fn memory_error(script: &Script, limits: &Limits) -> ScriptError {
    let message = format!("the script asked for more than its {} MiB of memory", limits.memory_bytes >> 20);
    ScriptError::new(ErrorKind::Memory, script, None, &message, limits.error_bytes)
}

/// Splits `name:line: message`.
fn position(text: &str) -> Option<(&str, u32, &str)> {
    let (name, rest) = text.split_once(':')?;
    let (line, message) = rest.split_once(':')?;
    Some((name, line.parse().ok()?, message.trim_start()))
}

fn is_table_address(text: &str) -> bool {
    text.strip_prefix("table: 0x").is_some_and(|a| !a.is_empty() && a.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The script's own frames of a traceback, innermost first.
struct Calls<'t>(Vec<(u32, &'t str)>);

impl<'t> Calls<'t> {
    fn read(traceback: &'t str) -> Self {
        let frames = traceback.lines().filter_map(|line| match position(line.trim()) {
            Some((CHUNK_NAME, line, rest)) => Some((line, rest)),
            _ => None,
        });
        Self(frames.collect())
    }

    fn line(&self) -> Option<u32> {
        self.0.first().map(|(line, _)| *line)
    }

    fn text(&self, script: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        for (i, (line, what)) in self.0.iter().take(TRACEBACK_LINES).enumerate() {
            let anonymous =
                what.strip_prefix("in function <").and_then(|at| at.trim_end_matches('>').rsplit(':').next());
            let what = match anonymous {
                _ if i + 1 == self.0.len() => "in the script itself".to_owned(),
                Some(defined) => format!("in the function of line {defined}"),
                None => one_line(what, 200),
            };
            lines.push(format!("{script}:{line}: {what}"));
        }
        if self.0.len() > TRACEBACK_LINES {
            lines.push(format!("... and {} more", self.0.len() - TRACEBACK_LINES));
        }
        lines.join("\n")
    }
}

/// What the prelude may ask of the host. None of these raises: an error of ours would reach the script as userdata.
fn host_functions(lua: &Lua, meter: &Rc<Meter>, marks: &Table, limits: &Limits) -> mlua::Result<Table> {
    let host = lua.create_table_with_capacity(0, 9)?;
    host.raw_set("marks", marks)?;

    let m = Rc::clone(meter);
    host.raw_set("charge", lua.create_function(move |_, units: f64| Ok(m.charge(units as u64)))?)?;

    let m = Rc::clone(meter);
    let print = move |_: &Lua, line: LuaString| {
        let line = line.as_bytes();
        if m.charge_bytes(line.len()) {
            m.print(&line);
        }
        Ok(())
    };
    host.raw_set("print", lua.create_function(print)?)?;

    let m = Rc::clone(meter);
    let fault = move |_: &Lua, message: LuaString| {
        if message.to_string_lossy().contains(OUT_OF_MEMORY) {
            m.stop(Stop::Memory);
        }
        Ok(())
    };
    host.raw_set("fault", lua.create_function(fault)?)?;

    let (m, marked, l) = (Rc::clone(meter), marks.clone(), limits.clone());
    let thrown = move |_: &Lua, value: LuaValue| {
        *m.thrown.borrow_mut() = json::encode(&value, &marked, &m, &l).ok();
        Ok(())
    };
    host.raw_set("thrown", lua.create_function(thrown)?)?;

    let (m, l) = (Rc::clone(meter), limits.clone());
    let compile =
        move |lua: &Lua, (source, name): (LuaString, Option<LuaString>)| compile_chunk(lua, &source, name, &m, &l);
    host.raw_set("compile", lua.create_function(compile)?)?;

    let (m, marked, l) = (Rc::clone(meter), marks.clone(), limits.clone());
    let encode = move |lua: &Lua, value: LuaValue| match json::encode(&value, &marked, &m, &l) {
        Ok(text) => Ok((guarded(&m, lua.create_string(text)), None)),
        Err(message) => Ok((None, Some(message))),
    };
    host.raw_set("encode", lua.create_function(encode)?)?;

    let (m, l) = (Rc::clone(meter), limits.clone());
    let decode = move |lua: &Lua, text: LuaString| match json::decode(lua, &text.as_bytes(), &m, &l) {
        Ok(value) => Ok((true, value)),
        Err(message) => Ok((false, guarded(&m, lua.create_string(message)).map_or(LuaValue::Nil, LuaValue::String))),
    };
    host.raw_set("decode", lua.create_function(decode)?)?;
    Ok(host)
}

/// The value, or none and the run stopped when there was no memory for it.
fn guarded<T>(meter: &Meter, result: mlua::Result<T>) -> Option<T> {
    if result.is_err() {
        meter.stop(Stop::Memory);
    }
    result.ok()
}

/// Compiles text that the script made, for `loadstring` and `load`.
fn compile_chunk(
    lua: &Lua,
    source: &LuaString,
    name: Option<LuaString>,
    meter: &Meter,
    limits: &Limits,
) -> mlua::Result<(Option<Function>, Option<String>)> {
    let bytes = source.as_bytes();
    if bytes.len() > limits.chunk_bytes {
        return Ok((None, Some(format!("source is longer than {} bytes", limits.chunk_bytes))));
    }
    // Compilation takes some 20 times as long a byte as other host work.
    if !meter.charge(bytes.len() as u64 + 20) {
        return Ok((None, Some("the run was stopped".to_owned())));
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Ok((None, Some("source is not valid UTF-8".to_owned())));
    };
    let name = match name {
        Some(name) => one_line(&name.to_string_lossy(), 200),
        None => format!("=[string \"{}\"]", one_line(text, 40)),
    };
    match compile::compile(text) {
        Ok(bytecode) => {
            let chunk = lua.load(bytecode).set_name(name).set_mode(ChunkMode::Binary);
            Ok((guarded(meter, chunk.into_function()), None))
        }
        Err(e) => {
            let name = name.trim_start_matches(['=', '@']);
            Ok((None, Some(e.line.map_or_else(|| format!("{name}: {e}"), |line| format!("{name}:{line}: {e}")))))
        }
    }
}
