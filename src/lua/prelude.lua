-- Turns a fresh Luau VM into the Lua 5.1 that scripts of OpenKruise were written for. It runs once in every VM,
-- before the script. It keeps what it needs in locals, so that a script may replace any global without harm.
local host = ...

local error, pcall, xpcall, select, type, next = error, pcall, xpcall, select, type, next
local tostring, unpack = tostring, unpack
local find, gsub, gmatch, rep, format = string.find, string.gsub, string.gmatch, string.rep, string.format
local concat, remove, log = table.concat, table.remove, math.log
local charge, compile, encode, decode, show, fault = host.charge, host.compile, host.encode, host.decode, host.print,
  host.fault
-- For the shared functions alone: scripts never had it.
local native = { clone = table.clone }

local allowed = {
  _G = "_G _VERSION assert collectgarbage error getfenv getmetatable ipairs json load loadstring math next pairs "
    .. "pcall print rawequal rawget rawset select setfenv setmetatable string table tonumber tostring type unpack xpcall",
  math = "abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log log10 max min mod modf pi "
    .. "pow rad random randomseed sin sinh sqrt tan tanh",
  string = "byte char find format gfind gmatch gsub len lower match rep reverse sub upper",
  table = "concat getn insert maxn remove sort",
}
local libraries = { _G = _G, math = math, string = string, table = table }
for library, names in next, allowed do
  local keep, gone = {}, {}
  for name in gmatch(names, "%S+") do
    keep[name] = true
  end
  for name in next, libraries[library] do
    if not keep[name] then
      gone[#gone + 1] = name
    end
  end
  for i = 1, #gone do
    libraries[library][gone[i]] = nil
  end
end

_VERSION = "Lua 5.1"
function collectgarbage()
  return 0
end

local function expect(value, kind, position, name)
  if type(value) ~= kind then
    error("bad argument #" .. position .. " to '" .. name .. "' (" .. kind .. " expected, got " .. type(value) .. ")", 3)
  end
end

-- Text of values. Addresses differ from run to run, so tables and functions are numbered instead.
local ids, last = {}, 0
local function text(value)
  local kind = type(value)
  if kind == "string" then
    return value
  end
  local s = tostring(value)
  if kind ~= "number" and kind ~= "boolean" and kind ~= "nil" and find(s, "^%a+: 0x%x+$") then
    local id = ids[value]
    if not id then
      last = last + 1
      id = format("%s: 0x%08x", kind, last)
      ids[value] = id
    end
    return id
  end
  return s
end

_G.tostring = function(...)
  if select("#", ...) == 0 then
    error("bad argument #1 to 'tostring' (value expected)", 2)
  end
  return text((...))
end

function print(...)
  local parts = {}
  for i = 1, select("#", ...) do
    parts[i] = text((select(i, ...)))
  end
  show(concat(parts, "\t"))
end

-- Errors. A script must not survive its memory budget: the host is told, and stops the run at the next step.
local function check(ok, ...)
  if not ok then
    local e = ...
    if type(e) == "userdata" or e == "not enough memory" then
      fault(text(e))
    end
  end
  return ok, ...
end

function _G.pcall(...)
  return check(pcall(...))
end

function _G.xpcall(f, handler, ...)
  expect(handler, "function", 2, "xpcall")
  return check(xpcall(f, function(e)
    check(false, e)
    return handler(e)
  end, ...))
end

-- Source text.
function _G.loadstring(source, name)
  if type(source) == "number" then
    source = text(source)
  end
  expect(source, "string", 1, "loadstring")
  local f, message = compile(source, name)
  if f == nil then
    return nil, message
  end
  return f
end

function load(reader, name)
  expect(reader, "function", 1, "load")
  local parts = {}
  while true do
    local part = reader()
    if part == nil or part == "" then
      break
    end
    if type(part) ~= "string" then
      return nil, "reader function must return a string"
    end
    parts[#parts + 1] = part
  end
  local f, message = compile(concat(parts), name or "=(load)")
  if f == nil then
    return nil, message
  end
  return f
end

-- math
math.randomseed(1)
function math.log(x)
  return log(x)
end
function math.mod(a, b)
  return a % b
end

-- string
string.gfind = gmatch

-- The native count is 32 bits wide and wraps around.
function string.rep(s, n)
  if type(n) == "number" and n >= 2147483648 and s ~= "" then
    error("resulting string too large", 2)
  end
  return rep(s, n)
end

-- A search for plain text is one native loop of up to #s * #pattern steps that nothing can interrupt.
function string.find(s, pattern, init, plain)
  if type(s) == "string" and type(pattern) == "string" then
    local work = #s * #pattern
    if work > 65536 and not charge(work / 1024) then
      return nil
    end
  end
  return find(s, pattern, init, plain)
end

function string.gsub(s, pattern, replacement, n)
  if type(replacement) == "string" and find(replacement, "%", 1, true) then
    replacement = gsub(replacement, "%%(.?)", function(c)
      if c ~= "%" and not find(c, "%d") then
        return "%%" .. c
      end
    end)
  end
  if n == nil then
    return gsub(s, pattern, replacement)
  end
  return gsub(s, pattern, replacement, n)
end

function string.format(template, ...)
  local count = select("#", ...)
  local plain = type(template) == "string" and not find(template, "%*", 1, true)
  for i = 1, count do
    local kind = type((select(i, ...)))
    if kind ~= "string" and kind ~= "number" then
      plain = false
    end
  end
  if plain or type(template) ~= "string" then
    return format(template, ...)
  end
  local arguments, position = { ... }, 0
  template = gsub(template, "%%([-+ #0]*%d*%.?%d*)(.)", function(flags, kind)
    if kind == "%" then
      return nil
    end
    position = position + 1
    if (kind == "s" or kind == "*") and position <= count then
      arguments[position] = text(arguments[position])
    end
    return "%" .. flags .. (kind == "*" and "s" or kind)
  end)
  return format(template, unpack(arguments, 1, count))
end

-- table
function table.remove(list, position)
  local value
  if position == nil then
    value = remove(list)
  else
    value = remove(list, position)
  end
  return value
end

-- A merge sort, as the native one refuses comparators that contradict themselves and cannot be interrupted.
function table.sort(list, less)
  expect(list, "table", 1, "sort")
  if less ~= nil then
    expect(less, "function", 2, "sort")
  end
  local from, into, n, width = list, {}, #list, 1
  while width < n do
    for low = 1, n, 2 * width do
      local i, middle, high = low, low + width, low + 2 * width
      if middle > n + 1 then
        middle = n + 1
      end
      if high > n + 1 then
        high = n + 1
      end
      local j = middle
      for k = low, high - 1 do
        local right
        if i >= middle then
          right = true
        elseif j >= high then
          right = false
        elseif less then
          right = less(from[j], from[i])
        else
          right = from[j] < from[i]
        end
        if right then
          into[k] = from[j]
          j = j + 1
        else
          into[k] = from[i]
          i = i + 1
        end
      end
    end
    if from == list then
      from, into = into, {}
    else
      from, into = into, from
    end
    width = 2 * width
  end
  if from ~= list then
    for i = 1, n do
      list[i] = from[i]
    end
  end
end

-- json
json = {}
local marks = host.marks

function json.encode(...)
  if select("#", ...) == 0 then
    error("bad argument #1 to encode (value expected)", 2)
  end
  local s, message = encode((...))
  if s == nil then
    return nil, message
  end
  return s
end

function json.decode(s)
  if type(s) == "number" then
    s = text(s)
  end
  expect(s, "string", 1, "decode")
  local ok, value = decode(s)
  if not ok then
    return nil, value
  end
  return value
end

-- Says what an empty table is; unmarked ones get the shape that the original object has in that place.
function json.array(t)
  expect(t, "table", 1, "array")
  marks[t] = "array"
  return t
end

function json.object(t)
  expect(t, "table", 1, "object")
  marks[t] = "object"
  return t
end

-- How the host calls the script: it hears of an error where it happens, with the calls that led there.
local failed = host.failed
return function(script)
  return xpcall(script, failed)
end, native
