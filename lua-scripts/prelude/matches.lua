-- The step's matches, and what becomes of them together with the matches that a rule has.
local tidegate = ...
local G, ipairs, next, tostring = _G, ipairs, next, tostring
local lower, sub = string.lower, string.sub
local fail = tidegate.fail

-- Kinds of a condition on a value, and on a path.
tidegate.VALUE_KINDS = { Exact = "exact", RegularExpression = "regex" }
tidegate.PATH_KINDS = { Exact = "exact", RegularExpression = "regex", PathPrefix = "prefix" }

function tidegate.condition(entry, at)
  local kind = tidegate.VALUE_KINDS[entry.type or "Exact"]
  if kind == nil then fail(at .. " of type " .. tostring(entry.type) .. " is not supported") end
  return { [kind] = entry.value }
end

function tidegate.path_condition(path, at)
  local kind = tidegate.PATH_KINDS[path.type or "PathPrefix"]
  if kind == nil then fail(at .. " of type " .. tostring(path.type) .. " is not supported") end
  return { [kind] = path.value or "/" }
end

-- Calls `add(field, entry, condition, at)` for each header and query parameter of a step's match, whose fields are "headers"
-- and "queryParams"; false as soon as one call says so: they can never hold.
function tidegate.add_conditions(match, at, add)
  for _, field in ipairs({ "headers", "queryParams" }) do
    for i, entry in ipairs(match[field] or {}) do
      local place = at .. "." .. field .. "[" .. i .. "]"
      if add(field, entry, tidegate.condition(entry, place), place) == false then return false end
    end
  end
  return true
end

local function plain(text)
  return text
end

-- Whether a text begins with a prefix; with `segments`, only at the end of a path segment.
local function starts(text, prefix, key, segments)
  if segments then
    while sub(prefix, -1) == "/" do prefix = sub(prefix, 1, -2) end
    if #text > #prefix and sub(text, #prefix + 1, #prefix + 1) ~= "/" then return false end
  end
  return key(sub(text, 1, #prefix)) == key(prefix)
end

local ANY = {}

-- Both conditions on one text, or nil when no text can meet both.
function tidegate.narrow(a, b, what, at, options)
  options = options or ANY
  local function universal(m)
    return next(m) == nil or (options.is_path and (m.prefix == "/" or m.prefix == ""))
  end
  if a == nil or universal(a) then return b end
  if universal(b) then return a end
  local key = options.any_case and lower or plain
  if a.regex or b.regex then
    if a.regex == b.regex then return a end
    fail(at .. ": " .. what .. " is a regular expression in one of the rule and the step and cannot be combined")
  end
  if a.exact and b.exact then
    if key(a.exact) == key(b.exact) then return a end
    return nil
  end
  local segments = options.segments
  if a.exact then return starts(a.exact, b.prefix, key, segments) and a or nil end
  if b.exact then return starts(b.exact, a.prefix, key, segments) and b or nil end
  if starts(a.prefix, b.prefix, key, segments) then return a end
  if starts(b.prefix, a.prefix, key, segments) then return b end
  return nil
end

-- Combines every step match with every match of every rule, and remembers which of the step's ever hold.
function tidegate.crossing(matches, combine)
  local holds = {}
  local crossing = {}

  -- For each of the step's matches in turn, what it gives together with each of a rule's; nothing where both never hold.
  function crossing.of(bases, rule)
    if bases == nil or #bases == 0 then bases = { {} } end
    local lists = {}
    for j, match in ipairs(matches) do
      local list = {}
      for _, base in ipairs(bases) do
        local both = combine(base, match, "matches[" .. j .. "]", rule)
        if both ~= nil then
          holds[j] = true
          list[#list + 1] = both
        end
      end
      lists[j] = list
    end
    return lists
  end

  -- Fails when one of the step's matches held nowhere: what it asks for would not happen.
  function crossing.check()
    for j in ipairs(matches) do
      if not holds[j] then
        fail("matches[" .. j .. '] can never hold together with the matches of the rules that route to Service "'
          .. G.obj.stableService .. '"')
      end
    end
  end

  return crossing
end
