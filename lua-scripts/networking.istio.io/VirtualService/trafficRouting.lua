-- Istio VirtualService: v1, v1beta1, v1alpha3 (one schema). Lua 5.1, also valid Luau.
-- caps: weight,header,query,path,rhm,subset,http,tcp,tls; accept: A4
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
local MAX_SUM = 2147483647

local stable, canary = obj.stableService, obj.canaryService
local by_subset = stable == canary
local weight = obj.canaryWeight
local modifier = obj.requestHeaderModifier
local spec = obj.data.spec
local metadata = obj.data.metadata or {}

local function fail(message)
  local name = metadata.name or ""
  if metadata.namespace then name = metadata.namespace .. "/" .. name end
  if name ~= "" then name = " " .. name end
  -- Level 2: the line of the check that failed, not of this helper.
  error("VirtualService" .. name .. ": " .. message, 2)
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for k, v in pairs(value) do result[k] = copy(v) end
  return result
end

local function is_empty(value)
  return value == nil or next(value) == nil
end

-- What follows the Service's name in a host that names `service`: "", ".ns" or ".ns.svc..."; nil for any other host.
local function host_suffix(host, service)
  if type(host) ~= "string" then return nil end
  local name, suffix = string.match(host, "^([^.]+)(.*)$")
  if name ~= service then return nil end
  local expected = obj.serviceNamespace or metadata.namespace
  local namespace = string.match(suffix, "^%.([^.]+)")
  local third = string.match(suffix, "^%.[^.]+%.([^.]+)")
  -- `app.example.com` is a host outside the cluster, however its first label reads.
  if third ~= nil and third ~= "svc" then return nil end
  -- Istio resolves a short name in the namespace of the VirtualService.
  namespace = namespace or metadata.namespace
  if expected and namespace and namespace ~= expected then return nil end
  return suffix
end

local function is_canary(destination)
  if by_subset then
    return destination.subset == CANARY_SUBSET and host_suffix(destination.host, stable) ~= nil
  end
  return host_suffix(destination.host, canary) ~= nil
end

local function is_stable(destination)
  return host_suffix(destination.host, stable) ~= nil and not (by_subset and destination.subset == CANARY_SUBSET)
end

local function port_of(destination)
  return destination.port and destination.port.number
end

-- ---- header modification ---------------------------------------------------------------------------------------

local modifies = modifier ~= nil
  and not (is_empty(modifier.set) and is_empty(modifier.add) and is_empty(modifier.remove))

local function modifies_host()
  for _, list in ipairs({ modifier.set or {}, modifier.add or {} }) do
    for _, header in ipairs(list) do
      local name = string.lower(header.name)
      if name == "host" or name == ":authority" then return true end
    end
  end
  return false
end

-- Drops `name`, in any case, from one map of header operations.
local function drop(request, operation, name)
  local map = request[operation]
  if map == nil then return end
  local doomed = {}
  for key in pairs(map) do
    if string.lower(key) == name then doomed[#doomed + 1] = key end
  end
  for _, key in ipairs(doomed) do map[key] = nil end
  if next(map) == nil then request[operation] = nil end
end

-- Merges the step's request header changes into `holder`, a rule or a weighted destination; the step wins.
local function modify(holder)
  if not modifies then return end
  holder.headers = holder.headers or {}
  holder.headers.request = holder.headers.request or {}
  local request = holder.headers.request
  for _, header in ipairs(modifier.set or {}) do
    local name = string.lower(header.name)
    drop(request, "set", name)
    drop(request, "add", name)
    request.set = request.set or {}
    request.set[name] = header.value
  end
  for _, header in ipairs(modifier.add or {}) do
    local name = string.lower(header.name)
    drop(request, "add", name)
    request.add = request.add or {}
    request.add[name] = header.value
  end
  for _, removed in ipairs(modifier.remove or {}) do
    local name = string.lower(removed)
    drop(request, "set", name)
    drop(request, "add", name)
    local known = false
    for _, other in ipairs(request.remove or {}) do known = known or string.lower(other) == name end
    if not known then
      request.remove = request.remove or {}
      table.insert(request.remove, removed)
    end
  end
end

-- ---- destinations ----------------------------------------------------------------------------------------------

-- The canary's twin of a stable entry: it keeps port, headers and fields that this script does not know.
local function canary_entry(entry)
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
end

-- Effective weight of each entry of a route, and their sum. A lone destination gets everything whatever its number.
local function weights_of(route)
  if #route == 1 then return { 1 }, 1 end
  local weights, sum = {}, 0
  for i, entry in ipairs(route) do
    weights[i] = entry.weight or 0
    sum = sum + weights[i]
  end
  return weights, sum
end

-- Indexes of the stable entries, and for each the index of its canary where the route has one already.
local function roles_of(route)
  local stables, twin, taken = {}, {}, {}
  for i, entry in ipairs(route) do
    if is_stable(entry.destination or {}) then stables[#stables + 1] = i end
  end
  for _, i in ipairs(stables) do
    for j, entry in ipairs(route) do
      local destination = entry.destination or {}
      if not twin[i] and not taken[j] and is_canary(destination)
        and port_of(destination) == port_of(route[i].destination) then
        twin[i], taken[j] = j, true
      end
    end
  end
  return stables, twin
end

local function gcd(a, b)
  while b ~= 0 do a, b = b, a % b end
  return a
end

-- The smallest whole numbers in the ratio of `values`, or multiples of them that sum to `sum` where that is exact.
local function reduce(values, sum)
  local divisor, total = 0, 0
  for _, value in ipairs(values) do divisor = gcd(divisor, value) end
  for i, value in ipairs(values) do
    values[i] = value / divisor
    total = total + values[i]
  end
  local factor = 1
  if sum % total == 0 then factor = sum / total end
  if total * factor > MAX_SUM then factor = MAX_SUM / total end
  for i, value in ipairs(values) do
    local scaled = math.floor(value * factor)
    if value > 0 and scaled < 1 then scaled = 1 end
    values[i] = scaled
  end
end

-- Scales whole numbers to `sum`, rounding so that the errors do not add up.
local function rescale(list, sum)
  local total, so_far, given = 0, 0, 0
  for _, value in ipairs(list) do total = total + value end
  for i, value in ipairs(list) do
    so_far = so_far + value
    local upto = math.floor(so_far * sum / total + 0.5)
    list[i], given = upto - given, upto
  end
end

-- The canary's part of each of our shares, as whole numbers: rounded so that the errors do not add up, and neither part
-- of a share of 2 or more to nothing.
local function parts_of(shares)
  local parts, so_far, given = {}, 0, 0
  for i, share in ipairs(shares) do
    so_far = so_far + weight * share / 100
    local part = math.min(math.max(math.floor(so_far + 0.5) - given, 0), share)
    if weight > 0 and weight < 100 and share > 1 then part = math.min(math.max(part, 1), share - 1) end
    parts[i], given = part, given + part
  end
  return parts
end

-- Divides a route: `shares` are ours, `others` those of other destinations. Returns new weights for the stable entries,
-- their canaries, and the others.
local function divide(shares, others, sum)
  local ours, exact, has_one = 0, true, false
  for _, share in ipairs(shares) do
    ours = ours + share
    exact = exact and weight * share % 100 == 0
    has_one = has_one or share == 1
  end
  if ours == sum then
    if #shares == 1 or (not exact and sum < 100) then rescale(shares, 100) end
  elseif not exact and (sum < 100 or has_one) then
    -- Numbers too small for per cents: larger ones in exactly the same ratio.
    local values = {}
    for _, share in ipairs(shares) do values[#values + 1] = (100 - weight) * share end
    for _, share in ipairs(shares) do values[#values + 1] = weight * share end
    for _, other in ipairs(others) do values[#values + 1] = 100 * other end
    reduce(values, sum)
    local stables, canaries, rest = {}, {}, {}
    for i in ipairs(shares) do stables[i], canaries[i] = values[i], values[#shares + i] end
    for i in ipairs(others) do rest[i] = values[2 * #shares + i] end
    return stables, canaries, rest
  end
  local stables, canaries = {}, parts_of(shares)
  for i, share in ipairs(shares) do stables[i] = share - canaries[i] end
  return stables, canaries, others
end

-- Splits the share of the stable entries of a route. Returns whether it names the stable Service, and whether it
-- gave it a share.
local function split(route, path)
  local stables, twin = roles_of(route)
  if #stables == 0 then return false, false end
  local weights, sum = weights_of(route)
  if sum == 0 then fail(path .. ": the weights sum to 0, which Istio refuses") end

  -- A stable entry owns its share and that of the canary that the original has beside it.
  local sharing, shares, ours = {}, {}, {}
  for _, i in ipairs(stables) do
    local share = weights[i]
    if twin[i] then share = share + weights[twin[i]] end
    if share > 0 then
      sharing[#sharing + 1], shares[#shares + 1] = i, share
      ours[i] = true
      if twin[i] then ours[twin[i]] = true end
    end
  end
  if #sharing == 0 then return true, false end
  local other_at, others = {}, {}
  for i, entry_weight in ipairs(weights) do
    if not ours[i] and entry_weight > 0 then other_at[#other_at + 1], others[#others + 1] = i, entry_weight end
  end

  local new_stables, new_canaries, new_others = divide(shares, others, sum)
  for n, i in ipairs(sharing) do
    local entry = twin[i] and route[twin[i]]
    if not entry then
      entry = canary_entry(route[i])
      table.insert(route, entry)
    end
    route[i].weight, entry.weight = new_stables[n], new_canaries[n]
    if string.sub(path, 1, 4) == "http" then modify(entry) end
  end
  for n, i in ipairs(other_at) do route[i].weight = new_others[n] end
  return true, true
end

local function check_authority(rule, i)
  if modifies and rule.rewrite and rule.rewrite.authority and modifies_host() then
    fail("requestHeaderModifier sets the host, which rewrite.authority of http[" .. i .. "] sets already")
  end
end

local function warn_plain_host(route)
  if not by_subset then return end
  for _, entry in ipairs(route) do
    local destination = entry.destination or {}
    if is_stable(destination) and not destination.subset then
      print("warning: destination " .. destination.host .. " has no subset, so it reaches the canary's pods too")
      return
    end
  end
end

local function apply_weight()
  if weight < 0 or weight > 100 or weight % 1 ~= 0 then
    fail("canaryWeight " .. tostring(weight) .. " is not a whole number from 0 to 100")
  end
  local named, done, http_done = false, false, false
  for _, protocol in ipairs({ "http", "tcp", "tls" }) do
    for i, rule in ipairs(spec[protocol] or {}) do
      -- Redirects, direct responses and delegates have no route.
      if not is_empty(rule.route) then
        local names, split_done = split(rule.route, protocol .. "[" .. i .. "]")
        named = named or names
        done = done or split_done
        if split_done then
          warn_plain_host(rule.route)
          if protocol == "http" then
            http_done = true
            check_authority(rule, i)
          end
        end
      end
    end
  end
  if not named then fail('no http, tcp or tls rule routes to Service "' .. stable .. '"') end
  if not done then
    fail('every rule that routes to Service "' .. stable .. '" gives it weight 0: there is no share to split')
  end
  if modifies and not http_done then
    fail('requestHeaderModifier needs an http rule that routes to Service "' .. stable .. '"')
  end
end

-- ---- matches ---------------------------------------------------------------------------------------------------

-- Names that Istio reserves among the keys of a header match.
local IGNORED_HEADERS = { uri = true, scheme = true, method = true, authority = true }

-- Both conditions on one text, or nil when no text can meet both.
local function narrow(a, b, what, path, fold)
  local function universal(m) return next(m) == nil or (fold ~= nil and (m.prefix == "/" or m.prefix == "")) end
  if a == nil or universal(a) then return b end
  if universal(b) then return a end
  local function key(text) if fold then return string.lower(text) end return text end
  local function starts(text, prefix) return string.sub(key(text), 1, #prefix) == key(prefix) end
  if a.regex or b.regex then
    if a.regex == b.regex then return a end
    fail(path .. ": " .. what .. " is a regular expression in one of the rule and the step and cannot be combined")
  end
  if a.exact and b.exact then
    if key(a.exact) == key(b.exact) then return a end
    return nil
  end
  if a.exact then return starts(a.exact, b.prefix) and a or nil end
  if b.exact then return starts(b.exact, a.prefix) and b or nil end
  if starts(a.prefix, b.prefix) then return a end
  if starts(b.prefix, a.prefix) then return b end
  return nil
end

local KINDS = { Exact = "exact", RegularExpression = "regex" }
local PATH_KINDS = { Exact = "exact", RegularExpression = "regex", PathPrefix = "prefix" }

local function condition(kinds, default, entry, path)
  local kind = kinds[entry.type or default]
  if kind == nil then fail(path .. " of type " .. tostring(entry.type) .. " is not supported") end
  return { [kind] = entry.value }
end

-- Adds a condition on `map[name]`; false when it can never hold.
local function add_condition(match, field, name, wanted, path, any_case)
  match[field] = match[field] or {}
  local key = name
  for existing in pairs(match[field]) do
    if any_case and string.lower(existing) == name then key = existing end
  end
  local result = narrow(match[field][key], wanted, field .. "." .. name, path)
  match[field][key] = result
  return result ~= nil
end

-- The base's match entry (an empty one for a rule without match) AND the step's, or nil when both never hold.
local function combine(base, match, path)
  local result = copy(base)
  if match.path then
    local wanted = condition(PATH_KINDS, "PathPrefix", { type = match.path.type, value = match.path.value or "/" },
      path .. ".path")
    result.uri = narrow(result.uri, wanted, "uri", path, result.ignoreUriCase == true)
    if result.uri == nil then return nil end
  end
  for i, header in ipairs(match.headers or {}) do
    local at = path .. ".headers[" .. i .. "]"
    local name = string.lower(header.name)
    if IGNORED_HEADERS[name] then fail(at .. ': Istio ignores a header named "' .. header.name .. '"') end
    if not add_condition(result, "headers", name, condition(KINDS, "Exact", header, at), path, true) then return nil end
  end
  for i, parameter in ipairs(match.queryParams or {}) do
    local wanted = condition(KINDS, "Exact", parameter, path .. ".queryParams[" .. i .. "]")
    if not add_condition(result, "queryParams", parameter.name, wanted, path, false) then return nil end
  end
  return result
end

-- The route of a canary rule: a canary for each stable destination that has a share, nil when none has. Also returns
-- whether the route names the stable Service.
local function canary_route(route)
  local stables = roles_of(route)
  local weights = weights_of(route)
  local result, shares = {}, {}
  for _, i in ipairs(stables) do
    if weights[i] > 0 then
      result[#result + 1], shares[#shares + 1] = canary_entry(route[i]), weights[i]
    end
  end
  if #result == 0 then return nil, #stables > 0 end
  if #result == 1 then
    result[1].weight = nil
  else
    rescale(shares, 100)
    for i, entry in ipairs(result) do entry.weight = shares[i] end
  end
  return result, true
end

local function is_bare(rule)
  for key in pairs(rule) do
    if key ~= "route" and key ~= "name" then return false end
  end
  return true
end

local used_names = {}

-- A name for a canary rule that no other rule has.
local function unused_name(base)
  local name, n = base .. "-canary", 1
  while used_names[name] do
    n = n + 1
    name = base .. "-canary-" .. n
  end
  used_names[name] = true
  return name
end

local function canary_rule(rule, match, path)
  local combined = {}
  local bases = rule.match
  if is_empty(bases) then bases = { {} } end
  for _, base in ipairs(bases) do combined[#combined + 1] = combine(base, match, path) end
  if #combined == 0 then return nil end
  local result = copy(rule)
  result.match = combined
  result.route = canary_route(rule.route)
  modify(result)
  -- A rule that is only a route gets the original controller's canary rule, which has no name.
  if rule.name then result.name = not is_bare(rule) and unused_name(rule.name) or nil end
  return result
end

local function apply_matches()
  local matches = obj.matches
  local named, shared, holds, rules = false, false, {}, {}
  for i, match in ipairs(matches) do
    if not match.path and is_empty(match.headers) and is_empty(match.queryParams) then
      fail("matches[" .. i .. "] has no condition: every request would go to the canary")
    end
  end
  for _, rule in ipairs(spec.http or {}) do
    if rule.name then used_names[rule.name] = true end
  end
  local reachable = true
  for i, rule in ipairs(spec.http or {}) do
    if reachable and not is_empty(rule.route) then
      local route, names = canary_route(rule.route)
      named = named or names
      if route then
        shared = true
        warn_plain_host(rule.route)
        check_authority(rule, i)
        local canaries = {}
        for j, match in ipairs(matches) do
          local added = canary_rule(rule, match, "matches[" .. j .. "]")
          if added then
            holds[j] = true
            table.insert(canaries, 1, added)
          end
        end
        for _, added in ipairs(canaries) do rules[#rules + 1] = added end
      end
    end
    rules[#rules + 1] = rule
    -- Istio never gets past a rule without match.
    if is_empty(rule.match) then reachable = false end
  end
  if named and not shared then
    fail('every rule that routes to Service "' .. stable .. '" gives it weight 0: there is no share to split')
  end
  if not named then
    fail('matches need an http rule that routes to Service "' .. stable
      .. '"; tcp and tls cannot match on paths, headers or parameters')
  end
  for i in ipairs(matches) do
    if not holds[i] then
      fail("matches[" .. i .. '] can never hold together with the matches of the rules that route to Service "'
        .. stable .. '"')
    end
  end
  spec.http = rules
end

if not is_empty(obj.matches) then
  apply_matches()
elseif weight ~= -1 then
  apply_weight()
end
return obj.data
