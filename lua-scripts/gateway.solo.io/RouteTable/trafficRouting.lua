-- Gloo Edge RouteTable.
-- caps: weight,header,query,path,regex,rhm,subset,method,cookie,mirror,sticky,ports,several,http; accept: A3
-- versions: v1
--
-- Weight steps split every destination that is the stable Service, as `kube` or as the Upstream that Gloo makes for it
-- (`<namespace>-<service>-<port>`); `single` becomes `multi`, other destinations keep their share. Match steps put a
-- copy with narrower matchers right before each of our routes, as the first that matches wins. Options, such as
-- timeouts, retries, rewrites, shadowing and hash policies, go with it; a hash pins clients to pods, not to a version.
-- Matches win over a weight. An absent weight is 0. Without a canary Service (stable = canary) the canary's destination has
-- the labels of its pods in `subset`; the destination's own must have one of them, with another value.
--
-- Paths: PathPrefix is Gloo's `prefix`, a plain text prefix. Regular expressions are RE2 and match the whole value.
-- A cookie is a header: name `Cookie`, RegularExpression. Header changes go into options.headerManipulation of the
-- canary's route, in weight steps of its destination.
--
-- Not expressible: shares of Upstreams made by hand and of `upstreamGroup` (reference the UpstreamGroup); paths beside
-- connectMatcher or prefixRewrite.
--
-- Errors, after the kind and name of the object:
--   no route routes to Service "S"
--   every route that routes to Service "S" gives it weight 0: there is no share to split
--   routes[i]: the weights sum to 0, which Gloo refuses
--   Gloo cannot express a destination for both versions; its subset must leave out the canary's pods...
--   RouteTable cannot express matches[i].path beside connectMatcher | ... beside prefixRewrite
--   RouteTable cannot express a share of upstreamGroup "N"; reference the UpstreamGroup
--   Gloo cannot express upstream N, whose name it shortens; use a kube destination
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported
--   matches[i]: path is a regular expression in one of the rule and the step and cannot be combined

local copy, refuse = tidegate.copy, tidegate.refuse
local BACKEND = tidegate.gloo.backend()

local spec = obj.data.spec
local modifier = tidegate.modifier()

-- A route's weighted destinations; redirects, direct responses and delegates have none.
local function destinations(route)
  local action = route.routeAction
  if not action then return nil end
  if action.single then return { { destination = action.single } } end
  return action.multi and action.multi.destinations
end

-- Routes to an UpstreamGroup alone hide their Services.
local function check_groups()
  local group
  for _, route in ipairs(spec.routes or {}) do
    if tidegate.has_stable(destinations(route), BACKEND) then return end
    group = group or route.routeAction and route.routeAction.upstreamGroup
  end
  if group then
    refuse("RouteTable", 'a share of upstreamGroup "' .. tostring(group.name) .. '"', "reference the UpstreamGroup")
  end
end

local function set(route, entries)
  local action = route.routeAction
  if action.single and #entries == 1 then
    action.single = entries[1].destination
  elseif action.single then
    action.single, action.multi = nil, { destinations = entries }
  else
    action.multi.destinations = entries
  end
end

local function apply_weight(weight)
  check_groups()
  local lists = {}
  for i, route in ipairs(spec.routes or {}) do
    local entries = destinations(route)
    if entries then lists[#lists + 1] = { entries = entries, at = "routes[" .. i .. "]", route = route } end
  end
  tidegate.split_lists(lists, weight, BACKEND, "route", function(list, canaries)
    for _, entry in ipairs(canaries) do tidegate.gloo.modify(entry, modifier) end
    set(list.route, list.entries)
  end)
end

-- ---- matches ---------------------------------------------------------------------------------------------------

local PATHS = { "exact", "prefix", "regex" }

local LISTS = { headers = "headers", queryParams = "queryParameters" }

-- Adds a condition; false when it can never hold together with the matcher's own. All of a list must hold.
local function add_condition(matcher, field, entry, wanted)
  local list, any_case = LISTS[field], field == "headers"
  local added = { name = entry.name, value = wanted.regex or wanted.exact, regex = wanted.regex and true or nil }
  for _, own in ipairs(matcher[list] or {}) do
    local same = own.name == entry.name or any_case and tidegate.same_header(own.name, entry.name)
    if same and not own.invertMatch and (own.regex or false) == (wanted.regex ~= nil) then
      if own.value == added.value then return true end
      if own.value and own.value ~= "" and not wanted.regex then return false end
    end
  end
  matcher[list] = matcher[list] or {}
  table.insert(matcher[list], added)
  return true
end

local function combine(base, match, at, route)
  local result = copy(base)
  if match.path then
    local step = tidegate.path_condition(match.path, at .. ".path")
    if base.connectMatcher then refuse("RouteTable", at .. ".path beside connectMatcher") end
    local own
    for _, kind in ipairs(PATHS) do
      if base[kind] then own = { [kind] = base[kind] } end
    end
    local options = { is_path = true, any_case = base.caseSensitive == false }
    local both = tidegate.narrow(own, step, "path", at, options)
    if both == nil then return nil end
    if both ~= own then
      if route.options and route.options.prefixRewrite then
        refuse("RouteTable", at .. ".path beside prefixRewrite", "the part that is replaced would change")
      end
      for _, kind in ipairs(PATHS) do result[kind] = both[kind] end
    end
  elseif next(base) == nil then
    result.prefix = "/"
  end
  local holds = tidegate.add_conditions(match, at, function(field, entry, wanted)
    return add_condition(result, field, entry, wanted)
  end)
  return holds and result or nil
end

local function apply_matches(matches)
  check_groups()
  local unused_name = tidegate.names_beside(spec.routes)
  spec.routes = tidegate.fork(spec.routes, matches, {
    entries = destinations,
    bases = function(route) return route.matchers end,
    combine = combine,
    add = function(route, both, canaries, into)
      local added = copy(route)
      added.matchers = both
      if route.name then added.name = unused_name(route.name) end
      -- A lone entry of a list needs a weight above 0.
      if #canaries == 1 and not route.routeAction.single then canaries[1].weight = 100 end
      set(added, canaries)
      tidegate.gloo.modify(added, modifier)
      table.insert(into, added)
    end,
    backend = BACKEND,
    what = "route",
  })
end

tidegate.step("RouteTable", { weight = apply_weight, matches = apply_matches, subset = true })
return obj.data
