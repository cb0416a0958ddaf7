-- Calls shared functions as a case says, for what no built-in script asks of them. `calls` names the function, its
-- arguments, and fields of `obj` that are another in this call; `results` are what it returned and what became of tables.
local function resolved(argument)
  if type(argument) == "table" and argument.references then
    return tidegate.references(argument.references, argument.name, argument.port)
  end
  return argument
end

local spec = obj.data.spec
local data = obj.data
local results = {}
for i, call in ipairs(spec.calls) do
  local saved = {}
  for _, field in ipairs({ "canaryWeight", "matches", "requestHeaderModifier", "serviceNamespace", "data" }) do
    saved[field] = obj[field]
    if call.obj and call.obj[field] ~= nil then obj[field] = call.obj[field] end
  end
  local called, arguments = tidegate, {}
  for part in string.gmatch(call.name, "[^.]+") do called = called[part] end
  for n, argument in ipairs(call.args or {}) do arguments[n] = resolved(argument) end
  local ok, first, second = pcall(called, unpack(arguments))
  if type(first) == "function" then
    -- Of names: one for each base.
    local made = {}
    for n, base in ipairs(call.bases) do
      local fine, name = pcall(first, base)
      made[n] = fine and name or "error: " .. string.gsub(name, "^.-:%d+: ", "")
    end
    first = made
  end
  if not ok then first = "error: " .. string.gsub(first, "^.-:%d+: ", "") end
  results[i] = { name = call.name, first = first, second = second, args = call.shows and call.args or nil }
  for field, value in pairs(saved) do obj[field] = value end
  if saved.matches == nil then obj.matches = nil end
  if saved.requestHeaderModifier == nil then obj.requestHeaderModifier = nil end
end
return { spec = { results = results }, labels = data.labels, annotations = data.annotations }
