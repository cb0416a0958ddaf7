//! One virtual machine, for one run.

use std::{rc::Rc, time::Instant};

use mlua::{
    Error as LuaError, Function, Lua, LuaOptions, LuaString, MultiValue, StdLib, Table, Value as LuaValue,
    chunk::ChunkMode,
};
use serde_json::Value;

use super::{
    ErrorKind, Limits, Outcome, Script, ScriptError, compile, convert,
    error::{absent_name, one_line},
    json,
    meter::{Meter, Stop},
    output,
};

/// Makes Luau the Lua that scripts know.
const COMPATIBILITY: &str = include_str!("prelude.lua");
/// What the VM calls the prelude in positions. Not a name that a script can have.
const PRELUDE_NAME: &str = "[tidegate]";
/// The global through which scripts reach the shared functions of [`super::Library::shared`].
const SHARED: &str = "tidegate";
/// What the VM calls the script; errors put the script's own name in its place.
const CHUNK_NAME: &str = "script";
const OUT_OF_MEMORY: &str = "not enough memory";
const TRACEBACK_LINES: usize = 12;

/// What a VM runs before its script.
pub(super) struct Prelude {
    compatibility: Vec<u8>,
    /// Parts of the shared functions, in the order in which they build on each other.
    shared: Vec<Vec<u8>>,
}

impl Prelude {
    /// Compiles it, with these shared functions.
    ///
    /// # Errors
    /// Only if the prelude itself is broken.
    pub fn compile(shared: &[Script]) -> Result<Self, String> {
        let compiled = |name: &str, text: &str| {
            compile::compile_prelude(text).map_err(|e| format!("prelude {name}, line {:?}: {e}", e.line))
        };
        let shared = shared.iter().map(|part| compiled(&part.name, &part.source)).collect::<Result<_, _>>()?;
        Ok(Self { compatibility: compiled("prelude.lua", COMPATIBILITY)?, shared })
    }
}

/// A fresh VM with the prelude in place. It runs one script and is then dropped, so that nothing leaks from one
/// script, or one user, to the next.
pub(super) struct Vm {
    lua: Lua,
    meter: Rc<Meter>,
    marks: Table,
    /// The prelude's way to call the script.
    invoke: Function,
}

/// A result, and its weight for a cache in bytes.
pub(super) type Run = (Result<Outcome, ScriptError>, usize);

impl Vm {
    pub fn new(prelude: &Prelude, limits: &Limits) -> mlua::Result<Self> {
        // No `sandbox(true)`: it makes the libraries read-only, which breaks scripts that OpenKruise accepts.
        let lua = Lua::new_with(StdLib::MATH | StdLib::TABLE | StdLib::STRING, LuaOptions::new())?;
        let meter = Rc::new(Meter::new(limits));
        let marks = lua.create_table()?;
        let host = host_functions(&lua, &meter, &marks, limits)?;
        let chunk = |code: &[u8]| {
            lua.load(code).set_name(format!("={PRELUDE_NAME}")).set_mode(ChunkMode::Binary).into_function()
        };
        let (invoke, native) = chunk(&prelude.compatibility)?.call::<(Function, Table)>(host)?;
        let shared = lua.create_table()?;
        for part in &prelude.shared {
            chunk(part)?.call::<()>((&shared, &native))?;
        }
        for table in shared.pairs::<LuaValue, LuaValue>() {
            if let (_, LuaValue::Table(table)) = table? {
                table.set_readonly(true);
            }
        }
        shared.set_readonly(true);
        lua.globals().raw_set(SHARED, shared)?;
        Ok(Self { lua, meter, marks, invoke })
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
            Ok((true, values)) => values,
            // There may have been no memory left to note even that.
            Ok((false, error)) if is_out_of_memory(&error) => {
                return (Err(self.stopped(Stop::Memory, script, limits)), 0);
            }
            Ok((false, error)) => return (Err(self.failed(error, script, limits)), 0),
            Err(LuaError::MemoryError(_)) => return (Err(self.stopped(Stop::Memory, script, limits)), 0),
            Err(e) => return (Err(fail(ErrorKind::Runtime, &e.to_string())), 0),
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
        match output::from_lua(&table, &input, &self.marks, limits) {
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

    fn call(&self, bytecode: &[u8], object: &LuaValue, limits: &Limits) -> mlua::Result<(bool, MultiValue)> {
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
        let returned = self.invoke.call::<(bool, MultiValue)>(function);
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
            Stop::Memory => (
                ErrorKind::Memory,
                format!("the script asked for more than its {} MiB of memory", limits.memory_bytes >> 20),
            ),
        };
        let site = self.meter.site.take();
        let calls = Calls::read(&site);
        let mut error = ScriptError::new(kind, script, calls.line(), &message, limits.error_bytes);
        error.traceback = calls.text(&script.name);
        error
    }

    fn failed(&self, error: MultiValue, script: &Script, limits: &Limits) -> ScriptError {
        // Without a note of ours the handler itself failed, for want of stack; then Lua's own text has to do.
        let raised = self.meter.raised.take().unwrap_or_else(|| match error.into_vec().first() {
            Some(LuaValue::String(s)) => s.to_string_lossy(),
            other => format!("an error of type {}", other.map_or("nil", LuaValue::type_name)),
        });
        let site = self.meter.site.take();
        let calls = Calls::read(&site);
        let (line, message) = match position(&raised) {
            Some((CHUNK_NAME, line, rest)) => (Some(line), rest),
            // The position is inside the prelude: what counts is who called it.
            Some((PRELUDE_NAME, _, rest)) => (calls.line(), rest),
            _ => (calls.line(), raised.as_str()),
        };
        let absent = line.filter(|_| message.contains("nil")).and_then(|line| absent_name(&script.source, line));
        let message = absent.map_or_else(|| message.to_owned(), |name| format!("{message}; scripts have no `{name}`"));
        let mut error = ScriptError::new(ErrorKind::Runtime, script, line, &message, limits.error_bytes);
        error.traceback = calls.text(&script.name);
        error
    }
}

/// Splits `name:line: message`.
fn position(text: &str) -> Option<(&str, u32, &str)> {
    let (name, rest) = text.split_once(':')?;
    let (line, message) = rest.split_once(':')?;
    Some((name, line.parse().ok()?, message.trim_start()))
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
    let failed = move |lua: &Lua, error: LuaValue| {
        note_failure(lua, &error, &marked, &m, &l);
        Ok(())
    };
    host.raw_set("failed", lua.create_function(failed)?)?;

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

/// Notes an error that the script did not catch. Runs where it was raised, with the script's calls still on the stack.
fn note_failure(lua: &Lua, error: &LuaValue, marks: &Table, meter: &Meter, limits: &Limits) {
    if meter.stopped().is_some() {
        return;
    }
    // The script is over, as it runs no finalizers: what is left to do must not fail for want of memory.
    let _ = lua.set_memory_limit(0);
    if let Ok(site) = lua.traceback(None, 0) {
        *meter.site.borrow_mut() = site.to_string_lossy();
    }
    let text = match error {
        LuaValue::String(s) if s.as_bytes() == OUT_OF_MEMORY.as_bytes() => return meter.stop(Stop::Memory),
        LuaValue::String(s) => s.to_string_lossy(),
        LuaValue::Error(e) if e.to_string().contains(OUT_OF_MEMORY) => return meter.stop(Stop::Memory),
        LuaValue::Error(e) => e.to_string(),
        other => json::encode(other, marks, meter, limits).unwrap_or_else(|e| e),
    };
    *meter.raised.borrow_mut() = Some(text);
}

fn is_out_of_memory(values: &MultiValue) -> bool {
    matches!(values.front(), Some(LuaValue::String(s)) if s.as_bytes() == OUT_OF_MEMORY.as_bytes())
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
