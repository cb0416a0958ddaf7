-- Contour HTTPProxy.
-- caps: weight,header,query,path,regex,rhm,method,cookie,mirror,sticky,ports,several,http,tcp; accept: A1
-- versions: v1
--
-- Weight steps split every service of `routes` and `tcpproxy` that is the stable Service; other services keep their
-- share, mirrors stay. Match steps put copies of each of our routes before it, one for each of the step's matches.
-- Includes and redirects stay. Matches win over a weight. An absent weight is 0, and weights of 0 alone share evenly.
--
-- Contour goes by how specific conditions are, not by order, and of two routes with equal conditions it drops the
-- first: a step that would make such a pair is refused. Paths: PathPrefix is Contour's `prefix`, a plain text prefix;
-- where a longer path is another route's, that route keeps it. Regular expressions are RE2 and match the whole value.
-- A cookie is a header: name `Cookie`, RegularExpression. Header changes are a route's, in weight steps the canary's.
-- Session affinity pins clients to pods, not to a version.
--
-- Not expressible: adding a value to a header; Host in weight steps; paths beside replacePrefix, and those of a proxy
-- that another one includes; header changes for tcpproxy; one Service for both versions.
--
-- Errors, after the kind and name of the object:
--   no route routes to Service "S"
--   every route that routes to Service "S" gives it weight 0: there is no share to split
--   HTTPProxy tells versions apart by Service only, and Service "S" is both
--   HTTPProxy cannot express requestHeaderModifier.add | ... of Host beside a weight | ... of tcpproxy
--   HTTPProxy cannot express matches[i].path beside replacePrefix | matches[i].path in an included proxy
--   HTTPProxy cannot express matches[i].path; a rule of another Service takes some of its requests by other conditions
--   HTTPProxy cannot express matches: a route has their conditions already
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported
--   matches[i]: path is a regular expression in one of the rule and the step and cannot be combined

local copy, refuse = tidegate.copy, tidegate.refuse
local BACKEND = tidegate.references({ zero = "even", lone = true })

local spec = obj.data.spec
local modifier = tidegate.modifier()

-- The services that answer.
local function answering(services)
  local list = {}
  for _, entry in ipairs(services or {}) do
    if not entry.mirror then list[#list + 1] = entry end
  end
  return list
end

local function modify(holder)
  if not modifier then return end
  holder.requestHeadersPolicy = holder.requestHeadersPolicy or {}
  tidegate.modify_header_lists(holder.requestHeadersPolicy, modifier)
end

-- ---- weights ---------------------------------------------------------------------------------------------------

local function apply_weight(weight)
  if modifier and tidegate.find_header(modifier.set, "Host") then
    refuse("HTTPProxy", "requestHeaderModifier of Host beside a weight", "use matches")
  end
  local lists = {}
  local function add(holder)
    local entries = answering(holder.services)
    lists[#lists + 1] = { entries = entries, holder = holder, before = #entries }
  end
  for _, route in ipairs(spec.routes or {}) do
    if route.services then add(route) end
  end
  if spec.tcpproxy and spec.tcpproxy.services then add(spec.tcpproxy) end
  tidegate.split_lists(lists, weight, BACKEND, "route", function(list, canaries)
    if modifier and list.holder == spec.tcpproxy then
      refuse("HTTPProxy", "requestHeaderModifier of tcpproxy: it looks into no request")
    end
    for i = list.before + 1, #list.entries do table.insert(list.holder.services, list.entries[i]) end
    for _, entry in ipairs(canaries) do modify(entry) end
  end)
end

-- ---- matches ---------------------------------------------------------------------------------------------------

local PATHS = { "exact", "prefix", "regex" }

-- The path among conditions, and where it is.
local function path_of(conditions)
  for i, condition in ipairs(conditions) do
    for _, kind in ipairs(PATHS) do
      if condition[kind] then return { [kind] = condition[kind] }, i end
    end
  end
  return nil
end

local PATHS_OF_ROUTES = {
  rules = spec.routes or {},
  bases = function(route) return { route.conditions or {} } end,
  path = function(conditions) return path_of(conditions) or { prefix = "/" } end,
  asks_more = function(conditions) return #conditions > 1 end,
  is_ours = function(route) return tidegate.has_stable(answering(route.services), BACKEND) end,
  rewrites = function(route)
    return route.pathRewritePolicy and not tidegate.is_empty(route.pathRewritePolicy.replacePrefix)
  end,
  rewrite = "replacePrefix",
  gateway = "HTTPProxy",
  options = { is_path = true },
}

local function narrow_path(conditions, path, at, route)
  local step = tidegate.path_condition(path, at .. ".path")
  if not spec.virtualhost then
    refuse("HTTPProxy", at .. ".path in an included proxy", "its paths are below those of the including one")
  end
  local own, place = path_of(conditions)
  local both = tidegate.path_within(own, step, route, at, PATHS_OF_ROUTES)
  if both == nil then return false end
  if both == own then return true end
  if place then conditions[place] = both else table.insert(conditions, 1, both) end
  return true
end

local FIELDS = { headers = "header", queryParams = "queryParameter" }

-- Adds a condition on a header or parameter; false when it can never hold.
local function add_condition(conditions, field, entry, wanted)
  local any_case = field == "headers"
  for _, condition in ipairs(conditions) do
    local own = condition[FIELDS[field]]
    if own and (own.name == entry.name or any_case and tidegate.same_header(own.name, entry.name)) then
      -- Two exact conditions on one header are no route.
      if own.exact and wanted.exact then return own.exact == wanted.exact end
      if own.regex and own.regex == wanted.regex then return true end
    end
  end
  wanted.name = entry.name
  table.insert(conditions, { [FIELDS[field]] = wanted })
  return true
end

local function combine(base, match, at, route)
  local conditions = copy(base)
  if match.path and not narrow_path(conditions, match.path, at, route) then return nil end
  local holds = tidegate.add_conditions(match, at, function(field, entry, wanted)
    return add_condition(conditions, field, entry, wanted)
  end)
  return holds and conditions or nil
end

-- Conditions as a text that is the same for equal ones.
local function key_of(conditions)
  local texts = {}
  for i, condition in ipairs(conditions) do texts[i] = json.encode(condition) end
  if not path_of(conditions) then texts[#texts + 1] = json.encode({ prefix = "/" }) end
  table.sort(texts)
  return table.concat(texts, "\n")
end

local function apply_matches(matches)
  local known, made = {}, {}
  for _, route in ipairs(spec.routes or {}) do known[key_of(route.conditions or {})] = true end
  spec.routes = tidegate.fork(spec.routes, matches, {
    entries = function(route) return answering(route.services) end,
    bases = function(route) return { route.conditions or {} } end,
    combine = combine,
    add = function(route, both, services, into)
      for _, conditions in ipairs(both) do
        local key = key_of(conditions)
        if known[key] then
          refuse("HTTPProxy", "matches: a route has their conditions already", "give the step others")
        end
        if not made[key] then
          made[key] = true
          local added = copy(route)
          added.conditions, added.services = conditions, copy(services)
          for _, entry in ipairs(route.services) do
            if entry.mirror then table.insert(added.services, copy(entry)) end
          end
          modify(added)
          table.insert(into, added)
        end
      end
    end,
    backend = BACKEND,
    what = "route",
  })
end

tidegate.step("HTTPProxy", {
  weight = apply_weight,
  matches = apply_matches,
  refuses = { ["requestHeaderModifier.add"] = "set the header" },
})
return obj.data
