-- VirtualServer of the NGINX Ingress Controller.
-- caps: weight,header,query,path,rhm,subset,method,cookie,sticky,ports,several,http; accept: A3
-- versions: v1
--
-- Every upstream that is the stable Service, and that a step touches, gets a twin for the canary. Without a canary
-- Service (stable = canary) the twin is the same Service with the labels of the canary's pods as `subselector`; the
-- upstream's own `subselector` must have one of the labels that these are patched with, with another value.
--
-- Weight steps split the actions that pass to such an upstream, those of a route and those of its `matches`; other
-- splits keep their per cents, and all sum to 100. Match steps put an entry of `matches` right before whatever passes to
-- the stable Service, so that earlier entries keep their requests. Matches win over a weight. Redirects, returns and delegated routes
-- stay.
--
-- Conditions compare whole values, without regard to case. A header named canary-by-cookie stands for a cookie: its value is
-- the cookie's name, and the cookie must be "always". A step's path must hold for the whole path of a route of
-- ours; routes of other paths are left out. `sessionCookie` pins clients to pods of an upstream, not to a version.
--
-- Not expressible: regular expressions; values that begin with "!"; header names beyond letters, digits and "-"; a
-- path that only a part of a route has, or that stands alone; changes of headers other than `set`.
--
-- Errors, after the kind and name of the object:
--   no route routes to Service "S"
--   every route that routes to Service "S" gives it weight 0: there is no share to split
--   Service "S" has 1 per cent of a rule, which cannot be split; give it 2 or more
--   VirtualServer cannot express upstream "U" for both versions; its subselector must leave out the canary's pods...
--   VirtualServer cannot express matches[i]... of type RegularExpression | matches[i]...: a value that begins with "!"
--   VirtualServer cannot express matches[i].headers[j]: the name "N" | ...: the cookie "N"
--   VirtualServer cannot express matches[i].path, which is a part of route /P; give that path a route of its own
--   VirtualServer cannot express matches with a path alone; add a header or parameter
--   VirtualServer cannot express requestHeaderModifier.add | requestHeaderModifier.remove
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported

local copy, refuse, is_empty = tidegate.copy, tidegate.refuse, tidegate.is_empty

local spec = obj.data.spec
local by_labels = tidegate.is_one_service()
local modifier = tidegate.modifier()

-- ---- upstreams -------------------------------------------------------------------------------------------------

-- Upstreams by name; those of the stable Service, and for each of them the canary's when it is there.
local upstreams, twin_of, is_twin = {}, {}, {}

-- What is before the Service's name: "", or "namespace/".
local function prefix_of(service, name)
  local namespace, rest = string.match(service or "", "^([^/]+)/(.+)$")
  if not namespace then return service == name and "" or nil end
  return tidegate.is_service({ name = rest, namespace = namespace }, name) and namespace .. "/" or nil
end

local used = {}
local unused_name = tidegate.names(used, 63)

local function is_stable_upstream(name)
  local upstream = upstreams[name]
  return upstream ~= nil and prefix_of(upstream.service, obj.stableService) ~= nil
    and not (by_labels and tidegate.chooses_canary(upstream.subselector))
end

local function is_canary_upstream(upstream)
  return prefix_of(upstream.service, obj.canaryService) ~= nil
    and (not by_labels or tidegate.chooses_canary(upstream.subselector))
end

for _, upstream in ipairs(spec.upstreams or {}) do
  upstreams[upstream.name], used[upstream.name] = upstream, true
end
for _, upstream in ipairs(spec.upstreams or {}) do
  if is_stable_upstream(upstream.name) and (not by_labels or tidegate.canary_labels(upstream.subselector)) then
    for _, other in ipairs(spec.upstreams) do
      if not is_twin[other.name] and not twin_of[upstream.name] and other.port == upstream.port
        and is_canary_upstream(other) then
        twin_of[upstream.name], is_twin[other.name] = other.name, true
      end
    end
  end
end

-- The canary's upstream for one of the stable Service's; made when there is none.
local function canary_upstream(name)
  if not twin_of[name] then
    local twin = copy(upstreams[name])
    twin.name = unused_name(name)
    local labels = tidegate.canary_labels(twin.subselector)
    twin.subselector = labels or twin.subselector
    if by_labels then
      if not labels then
        refuse("VirtualServer", 'upstream "' .. name .. '" for both versions', "its subselector must leave out the"
          .. " canary's pods: choose by a label that patchPodTemplateMetadata gives them with another value")
      end
    else
      twin.service = prefix_of(twin.service, obj.stableService) .. obj.canaryService
    end
    table.insert(spec.upstreams, twin)
    twin_of[name], is_twin[twin.name] = twin.name, true
  end
  return twin_of[name]
end

local function upstream_of(entry)
  local action = entry.action or {}
  return action.pass or action.proxy and action.proxy.upstream
end

-- Sets the step's headers where the canary is asked.
local function modify(entry)
  if not modifier then return end
  local action = entry.action
  if action.pass then action.proxy, action.pass = { upstream = action.pass }, nil end
  action.proxy.requestHeaders = action.proxy.requestHeaders or {}
  tidegate.modify_header_lists(action.proxy.requestHeaders, { set = modifier.set })
end

local BACKEND = {
  is_stable = function(entry) return is_stable_upstream(upstream_of(entry)) end,
  is_canary = function(entry) return is_twin[upstream_of(entry)] == true end,
  belongs = function(entry, twin) return twin_of[upstream_of(entry)] == upstream_of(twin) end,
  canary = function(entry)
    local twin = copy(entry)
    local name = canary_upstream(upstream_of(entry))
    if twin.action.pass then twin.action.pass = name else twin.action.proxy.upstream = name end
    return twin
  end,
}

-- The weighted actions of a route, or of an entry of its matches.
local function entries_of(holder)
  if holder.splits then return holder.splits end
  if upstream_of(holder) then return { { weight = 100, action = holder.action } } end
  return nil
end

local function set(holder, entries)
  if #entries > 1 then
    holder.splits, holder.action = entries, nil
  else
    holder.splits, holder.action = nil, entries[1].action
  end
end

local WHAT = "route"

-- ---- steps -----------------------------------------------------------------------------------------------------

local function apply_weight(weight)
  local lists = {}
  local function add(holder, at)
    local entries = entries_of(holder)
    if entries then lists[#lists + 1] = { entries = entries, at = at, holder = holder } end
  end
  for i, route in ipairs(spec.routes or {}) do
    local at = "routes[" .. i .. "]"
    add(route, at)
    for j, match in ipairs(route.matches or {}) do add(match, at .. ".matches[" .. j .. "]") end
  end
  tidegate.split_lists(lists, weight, BACKEND, WHAT, function(list, canaries)
    for _, entry in ipairs(canaries) do modify(entry) end
    set(list.holder, list.entries)
  end, tidegate.split_percent)
end

local function path_of(route)
  local exact = string.match(route.path, "^=%s*(.*)$")
  if exact then return { exact = exact } end
  local regex = string.match(route.path, "^~%*?%s*(.*)$")
  if regex then return { regex = regex } end
  return { prefix = route.path }
end

-- Whether a step's path holds for a route.
local function holds_for(path, route, at)
  local step, own = tidegate.path_condition(path, at), path_of(route)
  if step.regex then refuse("VirtualServer", at .. " of type RegularExpression", "use Exact or PathPrefix") end
  if step.prefix == "/" then return true end
  local both = not own.regex and tidegate.narrow(own, step, "path", at)
  if both == own then return true end
  if not own.regex and both == nil then return false end
  refuse("VirtualServer", at .. ", which is a part of route " .. route.path, "give that path a route of its own")
end

local FIELDS = { headers = "header", queryParams = "argument" }

local function add_condition(conditions, field, entry, wanted, at)
  if wanted.regex then
    refuse("VirtualServer", at .. " of type RegularExpression", "use Exact")
  end
  if string.sub(entry.value, 1, 1) == "!" then
    refuse("VirtualServer", at .. ': a value that begins with "!"', "that means any other value")
  end
  if field == "headers" and entry.name == "canary-by-cookie" then
    if not string.match(entry.value, "^[%w_]+$") then
      refuse("VirtualServer", at .. ': the cookie "' .. entry.value .. '"', 'use letters, digits and "_"')
    end
    return table.insert(conditions, { cookie = entry.value, value = "always" })
  end
  if field == "headers" and not string.match(entry.name, "^[%w-]+$") then
    refuse("VirtualServer", at .. ': the name "' .. entry.name .. '"', 'use letters, digits and "-"')
  end
  table.insert(conditions, { [FIELDS[field]] = entry.name, value = entry.value })
end

local function combine(base, match, at, route)
  if match.path and not holds_for(match.path, route, at .. ".path") then return nil end
  local conditions = copy(base.conditions or {})
  tidegate.add_conditions(match, at, function(field, entry, wanted, place)
    add_condition(conditions, field, entry, wanted, place)
  end)
  return { conditions = conditions }
end

-- Entries of a route's matches with the canary's before those of the stable Service.
local function apply_matches(matches)
  local route
  local how = {
    entries = entries_of,
    bases = function(holder) return { holder } end,
    combine = function(base, match, at) return combine(base, match, at, route) end,
    add = function(_, both, canaries, into)
      for _, entry in ipairs(canaries) do modify(entry) end
      for _, match in ipairs(both) do
        if is_empty(match.conditions) then
          refuse("VirtualServer", "matches with a path alone", "add a header or parameter")
        end
        set(match, copy(canaries))
        table.insert(into, match)
      end
    end,
    backend = BACKEND,
    what = WHAT,
  }
  local forking = tidegate.forking(matches, how)
  local lists = {}
  for i, each in ipairs(spec.routes or {}) do
    route = each
    -- The route itself is what is left when none of its matches holds.
    local holders = {}
    for _, match in ipairs(each.matches or {}) do holders[#holders + 1] = match end
    holders[#holders + 1] = { action = each.action, splits = each.splits }
    local list = forking.of(holders)
    table.remove(list)
    lists[i] = #list > 0 and list or nil
  end
  forking.check()
  for i, each in ipairs(spec.routes) do
    if lists[i] then each.matches = lists[i] end
  end
end

tidegate.step("VirtualServer", {
  weight = apply_weight,
  matches = apply_matches,
  refuses = { ["requestHeaderModifier.add"] = "set the header", ["requestHeaderModifier.remove"] = "" },
  subset = true,
})
return obj.data
