-- Header names, and merging a step's changes of request headers into those that a rule has.
local tidegate = ...
local ipairs, next = ipairs, next
local lower = string.lower
local insert, remove = table.insert, table.remove
local fail = tidegate.fail

local function same_header(a, b)
  return a == b or lower(a) == lower(b)
end

-- The entry of a list of `{ name = ... }` with this header name, and its index.
local function find_header(list, name)
  for i, entry in ipairs(list or {}) do
    if same_header(entry.name, name) then return entry, i end
  end
  return nil
end

-- The key of a map that is this header name in any case.
local function header_key(map, name)
  if map == nil then return nil end
  if map[name] ~= nil then return name end
  for key in next, map do
    if same_header(key, name) then return key end
  end
  return nil
end

tidegate.same_header, tidegate.find_header, tidegate.header_key = same_header, find_header, header_key

-- Fails when the step itself says two things about one header.
local function check_actions(modifier)
  local seen = {}
  for _, list in ipairs({ "set", "add", "remove" }) do
    for _, entry in ipairs(modifier[list] or {}) do
      local name = lower(list == "remove" and entry or entry.name)
      if seen[name] then
        fail('requestHeaderModifier names header "' .. name .. '" in ' .. seen[name] .. " and " .. list
          .. "; keep one of them")
      end
      seen[name] = list
    end
  end
end

-- ---- maps: { set = { name = value }, add = { name = value }, remove = { name } } ---------------------------------

-- Drops a name, in any case, from one map.
local function drop_key(request, operation, name)
  local map = request[operation]
  if map == nil then return end
  local doomed = {} -- Its order does not matter: all of them go.
  for key in next, map do
    -- lint: allow pairs-order
    if lower(key) == name then doomed[#doomed + 1] = key end
  end
  for _, key in ipairs(doomed) do map[key] = nil end
  if next(map) == nil then request[operation] = nil end
end

function tidegate.modify_header_maps(request, modifier)
  for _, header in ipairs(modifier.set or {}) do
    local name = lower(header.name)
    drop_key(request, "set", name)
    drop_key(request, "add", name)
    request.set = request.set or {}
    request.set[name] = header.value
  end
  for _, header in ipairs(modifier.add or {}) do
    local name = lower(header.name)
    drop_key(request, "add", name)
    request.add = request.add or {}
    request.add[name] = header.value
  end
  for _, removed in ipairs(modifier.remove or {}) do
    local name = lower(removed)
    drop_key(request, "set", name)
    drop_key(request, "add", name)
    local known = false
    for _, other in ipairs(request.remove or {}) do known = known or lower(other) == name end
    if not known then
      request.remove = request.remove or {}
      insert(request.remove, removed)
    end
  end
end

-- ---- lists: { set = { { name, value } }, add = { { name, value } }, remove = { name } } --------------------------

-- Drops what a filter says about a header, in every list.
local function drop_entries(filter, name)
  for _, operation in ipairs({ "set", "add", "remove" }) do
    local list = filter[operation]
    if list ~= nil then
      for i = #list, 1, -1 do
        if same_header(operation == "remove" and list[i] or list[i].name, name) then remove(list, i) end
      end
      if #list == 0 then filter[operation] = nil end
    end
  end
end

function tidegate.modify_header_lists(filter, modifier)
  check_actions(modifier)
  for _, operation in ipairs({ "set", "add", "remove" }) do
    for _, entry in ipairs(modifier[operation] or {}) do
      local is_name = operation == "remove"
      drop_entries(filter, is_name and entry or entry.name)
      filter[operation] = filter[operation] or {}
      insert(filter[operation], is_name and entry or { name = entry.name, value = entry.value })
    end
  end
end
