-- The object that a script is given, and how a script says what is wrong with it.
local tidegate, native = ...
local G, error, ipairs, next, print, tonumber, tostring, type = _G, error, ipairs, next, print, tonumber, tostring, type
local clone = native.clone

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = clone(value)
  for key, item in next, value do
    if type(item) == "table" then result[key] = copy(item) end
  end
  return result
end

local function is_empty(value)
  return type(value) ~= "table" or next(value) == nil
end

-- Kind, namespace and name of the object; "" when the host gave none, as for an Ingress class.
local function name_of_object()
  local data = type(G.obj) == "table" and G.obj.data
  if type(data) ~= "table" then return "" end
  local metadata = type(data.metadata) == "table" and data.metadata or {}
  local name = metadata.name or ""
  if metadata.namespace then name = metadata.namespace .. "/" .. name end
  local kind = data.kind or (name ~= "" and "object" or "")
  if kind ~= "" and name ~= "" then return kind .. " " .. name end
  return kind .. name
end

local function fail(message)
  local name = name_of_object()
  -- The host puts the line of the script that led here in place of this one.
  error(name ~= "" and name .. ": " .. message or message, 2)
end

local function refuse(gateway, field, remedy)
  fail(gateway .. " cannot express " .. field .. (remedy and "; " .. remedy or ""))
end

tidegate.copy, tidegate.is_empty, tidegate.fail, tidegate.refuse = copy, is_empty, fail, refuse

function tidegate.warn(message)
  print("warning: " .. message)
end

function tidegate.at_most(count, most, gateway, what)
  if count > most then
    fail(gateway .. " takes at most " .. most .. " " .. what .. "; this step would need " .. count)
  end
end

-- ---- the step --------------------------------------------------------------------------------------------------

function tidegate.weight()
  local given = G.obj.canaryWeight
  local weight = tonumber(given)
  if given == nil or given == "" or weight == -1 then return nil end
  if weight == nil or weight < 0 or weight > 100 or weight % 1 ~= 0 then
    fail("canaryWeight " .. tostring(given) .. " is not a whole number from 0 to 100")
  end
  return weight
end

-- Alternatives of a step, and conditions of one of a kind.
local MOST = 128

function tidegate.matches()
  local matches = G.obj.matches
  if is_empty(matches) then return nil end
  if #matches > MOST then fail("matches has " .. #matches .. " entries; " .. MOST .. " are the most") end
  for i = 1, #matches do
    local match = matches[i]
    -- No API server lets more than a few through; a script's work grows with the square of them.
    for _, list in ipairs({ "headers", "queryParams" }) do
      local count = #(match[list] or {})
      if count > MOST then fail("matches[" .. i .. "]." .. list .. " has " .. count .. " entries; " .. MOST .. " are the most") end
    end
    if not match.path and is_empty(match.headers) and is_empty(match.queryParams) then
      fail("matches[" .. i .. "] has no condition: every request would go to the canary")
    end
  end
  return matches
end

function tidegate.modifier()
  local modifier = G.obj.requestHeaderModifier
  if modifier == nil or (is_empty(modifier.set) and is_empty(modifier.add) and is_empty(modifier.remove)) then
    return nil
  end
  return modifier
end
