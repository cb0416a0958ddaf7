-- AWS Load Balancer Controller, Ingresses of class alb. Lua 5.1, also valid Luau.
-- caps: weight,header,query,path,regex,method,cookie,sticky,ports,several,http; accept: A5
-- versions: v1
-- grace: 60
-- ingress: in-place
--
-- Changes the Ingress itself: a backend becomes an action (port use-annotation), and annotation actions.<name> says which
-- Services share its requests. Conditions and transforms of the backend go along. Target groups that are not ours keep
-- their share, and stickiness stays.
--
-- Matches become paths in front of the one that they are copied from, each with an action to the canary alone and
-- conditions.<name>; they win over a weight. A header named canary-by-cookie stands for a cookie that must be "always".
-- Values are matched as they are, without wildcards. Regular expressions match a header's whole value.
--
-- Not expressible: regular expressions of paths and query parameters, more than 5 values to a rule, request header
-- changes, no canary Service. Authentication annotations of a Service hold for an action with one target group only.

local GATEWAY = "AWS ALB"
local PREFIX = "alb.ingress.kubernetes.io/"
local ANNOTATED = "use-annotation"
-- Limits of AWS, and of an annotation's key, which the word before the name takes its part of.
local MOST_GROUPS, MOST_VALUES, MOST_WEIGHT, LONGEST_NAME = 5, 5, 999, 63 - #"conditions."

local stable, canary = obj.stableService, obj.canaryService
local spec = obj.data.spec
local annotations = obj.data.annotations or {}
obj.data.annotations = annotations

local function service_of(backend)
  return type(backend) == "table" and type(backend.service) == "table" and backend.service or {}
end

local function port_of(service)
  local port = type(service.port) == "table" and service.port or {}
  return port.name or port.number
end

-- The controller reads keys in any case, and other tools capitalise them.
local function canonical(value, names)
  if type(value) ~= "table" then return {} end
  for _, name in ipairs(names) do
    local key = string.upper(string.sub(name, 1, 1)) .. string.sub(name, 2)
    if value[name] == nil and value[key] ~= nil then
      value[name], value[key] = value[key], nil
    end
  end
  return value
end

local function decoded(key)
  local text = annotations[PREFIX .. key]
  if text == nil then return nil end
  local value, problem = json.decode(text)
  if type(value) ~= "table" then
    tidegate.fail("annotation " .. PREFIX .. key .. " is no JSON object or list: " .. tostring(problem))
  end
  return value
end

-- An action of the Ingress that forwards to target groups, in canonical keys.
local function forward(name)
  local action = canonical(decoded("actions." .. name), { "type", "forwardConfig" })
  canonical(action.forwardConfig, { "targetGroups" })
  for _, group in ipairs((action.forwardConfig or {}).targetGroups or {}) do
    canonical(group, { "serviceName", "servicePort", "weight" })
  end
  return action
end

local TARGETS = {
  is_stable = function(group) return group.serviceName == stable end,
  is_canary = function(group) return group.serviceName == canary end,
  belongs = function(a, b) return tostring(a.servicePort) == tostring(b.servicePort) end,
  canary = function(group)
    local result = tidegate.copy(group)
    result.serviceName = canary
    return result
  end,
  lone = true,
  most = MOST_WEIGHT,
}

-- What routes to the stable Service: paths, and the default backend, each as { backend, service, action, at }. `action` is
-- the name of an annotated one.
local function base_of(backend, at)
  local service = service_of(backend)
  if service.name == nil then return nil end
  if port_of(service) ~= ANNOTATED then
    if service.name ~= stable then return nil end
    return { backend = backend, service = service, at = at }
  end
  if annotations[PREFIX .. "actions." .. service.name] == nil then return nil end
  for _, group in ipairs((forward(service.name).forwardConfig or {}).targetGroups or {}) do
    if TARGETS.is_stable(group) then
      return { backend = backend, service = service, action = service.name, at = at }
    end
  end
  return nil
end

-- Names of actions that nothing else has.
local used = {}
for key in pairs(annotations) do
  local name = string.match(key, "^" .. string.gsub(PREFIX, "[%.%-]", "%%%0") .. "%a+%.(.+)$")
  if name then used[name] = true end
end
local function unused(suffix)
  local n = 1
  while true do
    local tail = suffix .. (n > 1 and "-" .. n or "")
    local name = string.gsub(string.sub(stable, 1, LONGEST_NAME - #tail), "%-+$", "") .. tail
    if not used[name] then
      used[name] = true
      return name
    end
    n = n + 1
  end
end

-- Takes what the controller keeps by the name of a backend to a new name.
local function carry(from, to)
  for _, word in ipairs({ "conditions.", "transforms." }) do
    annotations[PREFIX .. word .. to] = annotations[PREFIX .. word .. from]
  end
end

local function annotated(name)
  return { service = { name = name, port = { name = ANNOTATED } } }
end

local function plain_forward(base)
  return {
    type = "forward",
    forwardConfig = { targetGroups = { { serviceName = stable, servicePort = port_of(base.service) } } },
  }
end

local function bases_of_rules(visit)
  for i, rule in ipairs(spec.rules or {}) do
    local http = rule.http or {}
    for j, path in ipairs(http.paths or {}) do
      local base = base_of(path.backend, "rules[" .. i .. "].http.paths[" .. j .. "]")
      if base then
        base.rule, base.path = rule, path
        visit(base)
      end
    end
  end
end

local function apply_weight(weight)
  local named, shared = false, false
  -- By port: several paths to one port share an action.
  local made, split = {}, {}
  local function visit(base)
    local name = base.action or made[tostring(port_of(base.service))]
    if name == nil or not split[name] then
      local action = base.action and forward(base.action) or plain_forward(base)
      local groups = action.forwardConfig.targetGroups
      local names, canaries = tidegate.split(groups, weight, TARGETS, base.at)
      named = named or names
      if canaries == nil then return end
      shared = true
      for _, group in ipairs(groups) do group.weight = group.weight or 0 end
      tidegate.at_most(#groups, MOST_GROUPS, GATEWAY, "target groups in an action")
      if name == nil then
        name = unused("-tidegate")
        made[tostring(port_of(base.service))] = name
        carry(base.service.name, name)
      end
      split[name] = true
      annotations[PREFIX .. "actions." .. name] = json.encode(action)
    end
    shared = true
    if not base.action then base.backend.service = annotated(name).service end
  end
  bases_of_rules(visit)
  local default = base_of(spec.defaultBackend, "defaultBackend")
  if default then visit(default) end
  if not named then tidegate.no_route("path of Ingress") end
  if not shared then tidegate.drained("action") end
end

-- A value as the controller's wildcards see it.
local function literal(text)
  return (string.gsub(text, "[%*%?\\]", "\\%0"))
end

local function conditions_of(match, at)
  local conditions = {}
  for i, header in ipairs(match.headers or {}) do
    local config
    if header.name == "canary-by-cookie" then
      config = { httpHeaderName = "cookie", values = { "*" .. literal(header.value) .. "=always*" } }
    elseif header.type == "RegularExpression" then
      config = { httpHeaderName = header.name, regexValues = { header.value } }
    else
      config = { httpHeaderName = header.name, values = { literal(header.value) } }
    end
    conditions[i] = { field = "http-header", httpHeaderConfig = config }
  end
  for i, parameter in ipairs(match.queryParams or {}) do
    if parameter.type == "RegularExpression" then
      tidegate.refuse(GATEWAY, at .. ".queryParams[" .. i .. "].type RegularExpression", "match exactly")
    end
    local values = { { key = literal(parameter.name), value = literal(parameter.value) } }
    conditions[#conditions + 1] = { field = "query-string", queryStringConfig = { values = values } }
  end
  return conditions
end

-- Values of a condition of any kind: lists of `values` and `regexValues`.
local function count_values(value)
  local count = 0
  for key, item in pairs(value) do
    if string.find(tostring(key), "^[vV]alues$") or key == "regexValues" then
      count = count + #item
    elseif type(item) == "table" then
      count = count + count_values(item)
    end
  end
  return count
end

local KINDS = { Exact = "exact", Prefix = "prefix" }

-- Whether another path of the rule takes requests for `text` before the base's does.
local function is_shadowed(base, text)
  for _, path in ipairs(base.rule.http.paths) do
    if path ~= base.path and KINDS[path.pathType] and #(path.path or "/") > #(base.path.path or "/") then
      local condition = { [KINDS[path.pathType]] = path.path or "/" }
      if tidegate.narrow(condition, { exact = text }, "path", base.at, { is_path = true, segments = true }) then
        return true
      end
    end
  end
  return false
end

-- Path and pathType of a copy of the base's path that holds for the step's path as well; nil when none does.
local function narrowed(base, match, at)
  local path, kind = base.path.path, base.path.pathType
  if match.path == nil then return path, kind end
  local wanted = tidegate.path_condition(match.path, at .. ".path")
  if wanted.regex then tidegate.refuse(GATEWAY, at .. ".path.type RegularExpression", "match a prefix or exactly") end
  local written
  if KINDS[kind] then
    written = { [KINDS[kind]] = path or "/" }
  elseif path == nil or path == "/*" then
    written = { prefix = "/" }
  else
    tidegate.refuse(GATEWAY, at .. ".path", "the path " .. path .. " of the Ingress is a pattern that it cannot narrow")
  end
  local both = tidegate.narrow(written, wanted, "path", at .. ".path", { is_path = true, segments = true })
  if both == nil then return nil end
  local text = both.exact or both.prefix
  if is_shadowed(base, text) then return nil end
  if text == path then return path, kind end
  return text, both.exact and "Exact" or "Prefix"
end

local function canary_action(base)
  local action = base.action and forward(base.action) or plain_forward(base)
  local names, canaries = tidegate.canaries(action.forwardConfig.targetGroups, TARGETS)
  if canaries == nil then return names, nil end
  for _, group in ipairs(canaries) do group.weight = #canaries > 1 and group.weight or nil end
  action.forwardConfig.targetGroups = canaries
  return names, action
end

local function apply_matches(matches)
  local named, shared, holds = false, false, {}
  -- By backend and match: paths to one backend share an action.
  local made, added = {}, {}
  bases_of_rules(function(base)
    local names, action = canary_action(base)
    named = named or names
    if action == nil then return end
    shared = true
    local before = {}
    for i, match in ipairs(matches) do
      local at = "matches[" .. i .. "]"
      local path, kind = narrowed(base, match, at)
      if kind then
        holds[i] = true
        local key = i .. " " .. base.service.name .. " " .. tostring(port_of(base.service))
        local name = made[key]
        local conditions = decoded("conditions." .. base.service.name) or {}
        for _, condition in ipairs(conditions_of(match, at)) do table.insert(conditions, condition) end
        -- The path is one, and the host.
        local values = count_values(conditions) + 1 + (base.rule.host and 1 or 0)
        tidegate.at_most(values, MOST_VALUES, GATEWAY, "values in a rule, host and path among them")
        if name == nil then
          name = unused("-canary-" .. i)
          made[key] = name
          carry(base.service.name, name)
          if #conditions > 0 then annotations[PREFIX .. "conditions." .. name] = json.encode(conditions) end
          annotations[PREFIX .. "actions." .. name] = json.encode(action)
        end
        local entry = tidegate.copy(base.path)
        entry.path, entry.pathType, entry.backend = path, kind, annotated(name)
        before[#before + 1] = entry
      end
    end
    added[base.path] = before
  end)
  if named and not shared then tidegate.drained("action") end
  if not named then
    if base_of(spec.defaultBackend, "defaultBackend") then
      tidegate.refuse(GATEWAY, "matches of defaultBackend", "add a rule with path / for Service \"" .. stable .. '"')
    end
    tidegate.no_route("path of Ingress")
  end
  for i in ipairs(matches) do
    if not holds[i] then
      tidegate.fail("matches[" .. i .. '] can never hold together with the paths that route to Service "' .. stable .. '"')
    end
  end
  for _, rule in ipairs(spec.rules) do
    local paths = {}
    for _, path in ipairs((rule.http or {}).paths or {}) do
      for _, entry in ipairs(added[path] or {}) do paths[#paths + 1] = entry end
      paths[#paths + 1] = path
    end
    if #paths > 0 then rule.http.paths = paths end
  end
end

tidegate.step(GATEWAY, {
  weight = apply_weight,
  matches = apply_matches,
  refuses = { requestHeaderModifier = "remove it" },
})
return obj.data
