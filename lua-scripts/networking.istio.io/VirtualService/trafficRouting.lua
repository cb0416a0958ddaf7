-- Istio VirtualService; one schema in all versions.
-- caps: weight,header,query,path,regex,rhm,subset,method,cookie,mirror,sticky,ports,several,http,tcp,tls; accept: A4
-- versions: v1, v1beta1, v1alpha3
--
-- Weight steps change every http, tcp and tls rule that routes to the stable Service, with or without `match`.
-- Match steps put canary rules, copies of their rule with narrower matches, right in front of it; the later of two
-- `matches` entries comes first. Matches win over a weight. Without a canary Service (stable = canary) the canary is
-- subset `canary` of the stable host, and the stable destination should name a subset of its own.
--
-- Weights: the canary gets its per cent of the stable destination's share; other destinations keep theirs. A route to one
-- destination sums to 100, any other to what it summed to before, rounded where whole numbers cannot hold the exact
-- share. Small numbers that cannot be split, such as 1 and 1, become larger ones in the exact ratio.
-- Paths: PathPrefix is Istio's `prefix`, a plain text prefix. RegularExpression is RE2 and must match the whole value.
--
-- Not expressible: matches on tcp or tls; two conditions on one value of which one is a regular expression; headers
-- named uri, scheme, method or authority; request header changes for tcp and tls; a host header beside rewrite.authority.
--
-- Errors, after the kind and name of the object:
--   no http, tcp or tls rule routes to Service "S"
--   every rule that routes to Service "S" gives it weight 0: there is no share to split
--   http|tcp|tls[i]: the weights sum to 0, which Istio refuses
--   canaryWeight N is not a whole number from 0 to 100
--   matches need an http rule that routes to Service "S"; tcp and tls cannot match on paths, headers or parameters
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported
--   matches[i].headers[j]: Istio ignores a header named "N"
--   matches[i]: WHAT is a regular expression in one of the rule and the step and cannot be combined
--   requestHeaderModifier needs an http rule that routes to Service "S"
--   requestHeaderModifier sets the host, which rewrite.authority of http[i] sets already

local CANARY_SUBSET = "canary"

local copy, fail, is_empty, host_suffix = tidegate.copy, tidegate.fail, tidegate.is_empty, tidegate.host_suffix
local stable, canary = obj.stableService, obj.canaryService
local by_subset = tidegate.is_one_service()
local modifier = tidegate.modifier()
local spec = obj.data.spec

local function is_canary(entry)
  local destination = entry.destination or {}
  if by_subset then
    return destination.subset == CANARY_SUBSET and host_suffix(destination.host, stable) ~= nil
  end
  return host_suffix(destination.host, canary) ~= nil
end

local function is_stable(entry)
  local destination = entry.destination or {}
  return host_suffix(destination.host, stable) ~= nil and not (by_subset and destination.subset == CANARY_SUBSET)
end

local function port_of(entry)
  local port = (entry.destination or {}).port
  return port and port.number
end

-- How a route's destinations are read, and what a canary is made of.
local DESTINATIONS = {
  is_stable = is_stable,
  is_canary = is_canary,
  belongs = function(entry, canary_entry) return port_of(entry) == port_of(canary_entry) end,
  -- It keeps port, headers and fields that this script does not know.
  canary = function(entry)
    local result = copy(entry)
    local destination = result.destination
    if by_subset then
      destination.subset = CANARY_SUBSET
    else
      destination.host = canary .. host_suffix(destination.host, stable)
      -- A subset belongs to the stable host's DestinationRule and does not exist for the canary's.
      destination.subset = nil
    end
    return result
  end,
  -- A lone destination gets everything whatever its number.
  lone = true,
  refuses_zero = "Istio",
}

-- ---- header modification ---------------------------------------------------------------------------------------

local function modifies_host()
  for _, list in ipairs({ modifier.set or {}, modifier.add or {} }) do
    if tidegate.find_header(list, "host") or tidegate.find_header(list, ":authority") then return true end
  end
  return false
end

-- Merges the step's request header changes into `holder`, a rule or a weighted destination; the step wins.
local function modify(holder)
  if not modifier then return end
  holder.headers = holder.headers or {}
  holder.headers.request = holder.headers.request or {}
  tidegate.modify_header_maps(holder.headers.request, modifier)
end

local function check_authority(rule, i)
  if modifier and rule.rewrite and rule.rewrite.authority and modifies_host() then
    fail("requestHeaderModifier sets the host, which rewrite.authority of http[" .. i .. "] sets already")
  end
end

local function warn_plain_host(route)
  if not by_subset then return end
  for _, entry in ipairs(route) do
    if is_stable(entry) and not entry.destination.subset then
      tidegate.warn("destination " .. entry.destination.host .. " has no subset, so it reaches the canary's pods too")
      return
    end
  end
end

local function apply_weight(weight)
  local named, done, http_done = false, false, false
  for _, protocol in ipairs({ "http", "tcp", "tls" }) do
    for i, rule in ipairs(spec[protocol] or {}) do
      -- Redirects, direct responses and delegates have no route.
      if not is_empty(rule.route) then
        local names, canaries = tidegate.split(rule.route, weight, DESTINATIONS, protocol .. "[" .. i .. "]")
        named = named or names
        if canaries then
          done = true
          warn_plain_host(rule.route)
          if protocol == "http" then
            http_done = true
            for _, entry in ipairs(canaries) do modify(entry) end
            check_authority(rule, i)
          end
        end
      end
    end
  end
  if not named then tidegate.no_route("http, tcp or tls rule") end
  if not done then tidegate.drained("rule") end
  if modifier and not http_done then
    fail('requestHeaderModifier needs an http rule that routes to Service "' .. stable .. '"')
  end
end

-- ---- matches ---------------------------------------------------------------------------------------------------

-- Names that Istio reserves among the keys of a header match.
local IGNORED_HEADERS = { uri = true, scheme = true, method = true, authority = true }

-- Adds a condition on `map[name]`; false when it can never hold.
local function add_condition(match, field, name, wanted, path, any_case)
  match[field] = match[field] or {}
  local key = any_case and tidegate.header_key(match[field], name) or name
  local result = tidegate.narrow(match[field][key], wanted, field .. "." .. name, path)
  match[field][key] = result
  return result ~= nil
end

-- The base's match entry (an empty one for a rule without match) AND the step's, or nil when both never hold.
local function combine(base, match, path)
  local result = copy(base)
  if match.path then
    local wanted = tidegate.path_condition(match.path, path .. ".path")
    local options = { is_path = true, any_case = result.ignoreUriCase == true }
    result.uri = tidegate.narrow(result.uri, wanted, "uri", path, options)
    if result.uri == nil then return nil end
  end
  local holds = tidegate.add_conditions(match, path, function(field, entry, wanted, at)
    if field == "queryParams" then return add_condition(result, field, entry.name, wanted, path, false) end
    local name = string.lower(entry.name)
    if IGNORED_HEADERS[name] then fail(at .. ': Istio ignores a header named "' .. entry.name .. '"') end
    return add_condition(result, field, name, wanted, path, true)
  end)
  return holds and result or nil
end

local function is_bare(rule)
  for key in pairs(rule) do
    if key ~= "route" and key ~= "name" then return false end
  end
  return true
end

local unused_name = tidegate.names_beside(spec.http)

-- A copy of the rule with these matches and this route.
local function canary_rule(rule, matches, route)
  local result = copy(rule)
  result.match, result.route = matches, route
  modify(result)
  -- A rule that is only a route gets the original controller's canary rule, which has no name.
  if rule.name then result.name = not is_bare(rule) and unused_name(rule.name) or nil end
  return result
end

local function apply_matches(matches)
  local named, shared, rules = false, false, {}
  local crossing = tidegate.crossing(matches, combine)
  local reachable = true
  for i, rule in ipairs(spec.http or {}) do
    if reachable and not is_empty(rule.route) then
      local names, route = tidegate.canaries(rule.route, DESTINATIONS)
      named = named or names
      if route then
        shared = true
        warn_plain_host(rule.route)
        check_authority(rule, i)
        local canaries = {}
        for _, combined in ipairs(crossing.of(rule.match)) do
          if #combined > 0 then table.insert(canaries, 1, canary_rule(rule, combined, copy(route))) end
        end
        for _, added in ipairs(canaries) do rules[#rules + 1] = added end
      end
    end
    rules[#rules + 1] = rule
    -- Istio never gets past a rule without match.
    if is_empty(rule.match) then reachable = false end
  end
  if named and not shared then tidegate.drained("rule") end
  if not named then
    fail('matches need an http rule that routes to Service "' .. stable
      .. '"; tcp and tls cannot match on paths, headers or parameters')
  end
  crossing.check()
  spec.http = rules
end

tidegate.step("VirtualService", { weight = apply_weight, matches = apply_matches, subset = true })
return obj.data
