-- Skipper RouteGroup.
-- caps: weight,header,query,path,regex,rhm,method,cookie,mirror,sticky,ports,several,http; accept: A4
-- versions: v1
-- grace: 10
--
-- Every backend that is the stable Service, and that a step touches, gets a twin for the canary. Weight steps split
-- the references to it in defaultBackends and in routes; other references keep their share. Match steps put copies of
-- each of our routes before it, one for each of the step's matches, with the step's conditions as predicates. Filters,
-- such as retries, rewrites and mirrors, go with them, and a backend's algorithm with its twin: a hash pins clients to pods,
-- not to a version. Matches win over a weight. An absent weight is 0, and weights
-- of 0 alone share evenly. Without routes there is one for all paths.
--
-- Skipper takes the route of the longest path, then the one with most predicates. A path of a step narrows the route's
-- by whole segments; where a longer path is another route's, that route keeps it. Regular expressions are Go's and
-- match anywhere in the value. A cookie is a header: name `Cookie`, RegularExpression.
--
-- Not expressible: header changes beside a weight; paths beside a route's pathRegexp or path with wildcards; one
-- Service for both versions.
--
-- Errors, after the kind and name of the object:
--   no route routes to Service "S"
--   every route that routes to Service "S" gives it weight 0: there is no share to split
--   RouteGroup tells versions apart by Service only, and Service "S" is both
--   RouteGroup cannot express requestHeaderModifier beside a weight
--   RouteGroup cannot express matches[i].path beside pathRegexp | ... beside wildcards
--   RouteGroup cannot express matches[i].path; a rule of another Service takes some of its requests by other conditions
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported

local copy, refuse, is_empty = tidegate.copy, tidegate.refuse, tidegate.is_empty
local PATH = { is_path = true, segments = true }

local spec = obj.data.spec
local modifier = tidegate.modifier()

-- ---- backends --------------------------------------------------------------------------------------------------

-- Backends by name, and for those of the stable Service the canary's when it is there.
local backends, twin_of, is_twin, used = {}, {}, {}, {}
local unused_name = tidegate.names(used)

local function is_of(backend, service)
  return backend ~= nil and backend.type == "service" and backend.serviceName == service
end

local function is_stable_backend(name) return is_of(backends[name], obj.stableService) end

for _, backend in ipairs(spec.backends or {}) do
  backends[backend.name], used[backend.name] = backend, true
end
for _, backend in ipairs(spec.backends or {}) do
  if is_stable_backend(backend.name) then
    for _, other in ipairs(spec.backends) do
      if not is_twin[other.name] and not twin_of[backend.name] and other.servicePort == backend.servicePort
        and is_of(other, obj.canaryService) then
        twin_of[backend.name], is_twin[other.name] = other.name, true
      end
    end
  end
end

-- The canary's backend for one of the stable Service's; made when there is none.
local function canary_backend(name)
  if not twin_of[name] then
    local twin = copy(backends[name])
    twin.name, twin.serviceName = unused_name(name), obj.canaryService
    table.insert(spec.backends, twin)
    twin_of[name], is_twin[twin.name] = twin.name, true
  end
  return twin_of[name]
end

local BACKEND = {
  is_stable = function(entry) return is_stable_backend(entry.backendName) end,
  is_canary = function(entry) return is_twin[entry.backendName] == true end,
  belongs = function(entry, twin) return twin_of[entry.backendName] == twin.backendName end,
  canary = function(entry)
    local twin = copy(entry)
    twin.backendName = canary_backend(entry.backendName)
    return twin
  end,
  zero = "even",
  lone = true,
}

local function apply_weight(weight)
  local lists = {}
  if not is_empty(spec.defaultBackends) then lists[1] = { entries = spec.defaultBackends } end
  for _, route in ipairs(spec.routes or {}) do
    if not is_empty(route.backends) then lists[#lists + 1] = { entries = route.backends } end
  end
  tidegate.split_lists(lists, weight, BACKEND, "route")
end

-- ---- matches ---------------------------------------------------------------------------------------------------

local function references(route)
  if not is_empty(route.backends) then return route.backends end
  return spec.defaultBackends
end

-- A text in eskip.
local function quoted(text)
  return '"' .. string.gsub(text, '[\\"]', "\\%0") .. '"'
end

local function call(name, ...)
  local arguments = { ... }
  for i, text in ipairs(arguments) do arguments[i] = quoted(text) end
  return name .. "(" .. table.concat(arguments, ", ") .. ")"
end

-- A route's path; nil for all paths.
local function path_of(route)
  if route.path then return { exact = route.path } end
  return route.pathSubtree and { prefix = route.pathSubtree } or nil
end

local PATHS_OF_ROUTES = {
  rules = spec.routes or {},
  bases = function(route) return { route } end,
  path = function(route) return not (route.path and string.find(route.path, "[:*]")) and path_of(route) or nil end,
  asks_more = function(route)
    return route.pathRegexp ~= nil or not is_empty(route.methods) or not is_empty(route.predicates)
  end,
  is_ours = function(route) return tidegate.has_stable(references(route), BACKEND) end,
  gateway = "RouteGroup",
  options = PATH,
}

-- Narrows the path of a copy; false when both never hold.
local function narrow_path(result, path, at, route)
  local step = tidegate.path_condition(path, at .. ".path")
  if step.regex then
    if route.pathRegexp then refuse("RouteGroup", at .. ".path beside pathRegexp") end
    result.pathRegexp = step.regex
    return true
  end
  if step.prefix then step.prefix = string.gsub(step.prefix, "/+$", "") end
  if step.prefix == "" then return true end
  if route.path and string.find(route.path, "[:*]") then refuse("RouteGroup", at .. ".path beside wildcards") end
  local own = path_of(route)
  local both = tidegate.path_within(own, step, route, at, PATHS_OF_ROUTES)
  if both == nil then return false end
  if both == own then return true end
  result.path, result.pathSubtree = both.exact, both.prefix
  return true
end

local function combine(_, match, at, route)
  local result = copy(route)
  if match.path and not narrow_path(result, match.path, at, route) then return nil end
  local predicates = result.predicates or {}
  tidegate.add_conditions(match, at, function(field, entry, wanted)
    local predicate, value = wanted.regex and "HeaderRegexp" or "Header", wanted.regex or wanted.exact
    if field == "queryParams" then
      predicate, value = "QueryParam", wanted.regex or "^" .. tidegate.escape_regex(wanted.exact) .. "$"
    end
    table.insert(predicates, call(predicate, entry.name, value))
  end)
  result.predicates = tidegate.unique(predicates)
  if #predicates == 0 then result.predicates = nil end
  return result
end

local function modify(route)
  if not modifier then return end
  route.filters = route.filters or {}
  for _, action in ipairs({ { "set", "setRequestHeader" }, { "add", "appendRequestHeader" } }) do
    for _, header in ipairs(modifier[action[1]] or {}) do
      table.insert(route.filters, call(action[2], header.name, header.value))
    end
  end
  for _, name in ipairs(modifier.remove or {}) do table.insert(route.filters, call("dropRequestHeader", name)) end
end

local function apply_matches(matches)
  -- Routes take the place of the one that stands for all paths.
  if is_empty(spec.routes) then spec.routes = { { pathSubtree = "/" } } end
  PATHS_OF_ROUTES.rules = spec.routes
  spec.routes = tidegate.fork(spec.routes, matches, {
    entries = references,
    bases = function() return nil end,
    combine = combine,
    add = function(_, both, canaries, into)
      for _, added in ipairs(both) do
        added.backends = copy(canaries)
        modify(added)
        table.insert(into, added)
      end
    end,
    backend = BACKEND,
    what = "route",
  })
end

tidegate.step("RouteGroup", {
  weight = apply_weight,
  matches = apply_matches,
  refuses = { ["requestHeaderModifier beside a weight"] = "use matches" },
})
return obj.data
