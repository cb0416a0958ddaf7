-- What the routes of the Gateway API have in common: backendRefs, filters, limits, and canary rules.
local tidegate = ...
local G, ipairs, next = _G, ipairs, next
local insert = table.insert
local copy, at_most, is_empty = tidegate.copy, tidegate.at_most, tidegate.is_empty
local status = tidegate.status

-- Of the API's definitions.
local MOST = { rules = 16, matches = 64, all_matches = 128, conditions = 16, backends = 16, filters = 16, names = 253 }
local MODIFIER = "RequestHeaderModifier"
local GROUP = "gateway.networking.k8s.io"

local function kind()
  return G.obj.data.kind or "the Gateway API"
end

-- How backendRefs are read, and what a canary is made of. The API server writes the default. A ServiceImport or a
-- gateway's own kind of the same name is another backend.
local function backends()
  return tidegate.references({ default = 1, most = 1000000, keeps_number = true })
end

-- Merges the step's header modifier into the filters of a rule or backendRef.
local function modify(holder, modifier)
  if not modifier then return end
  local found
  for _, filter in ipairs(holder.filters or {}) do
    if filter.type == MODIFIER then found = filter end
  end
  if not found then
    found = { type = MODIFIER, requestHeaderModifier = {} }
    holder.filters = holder.filters or {}
    insert(holder.filters, found)
    at_most(#holder.filters, MOST.filters, kind(), "filters in a list")
  end
  found.requestHeaderModifier = found.requestHeaderModifier or {}
  local headers = found.requestHeaderModifier
  tidegate.modify_header_lists(headers, modifier)
  for _, list in ipairs({ "set", "add", "remove" }) do
    at_most(#(headers[list] or {}), MOST.conditions, kind(), "entries in requestHeaderModifier." .. list)
  end
end

local function replaces_prefix(holder)
  for _, filter in ipairs(holder.filters or {}) do
    for _, field in ipairs({ "urlRewrite", "requestRedirect" }) do
      local path = filter[field] and filter[field].path
      if path and path.type == "ReplacePrefixMatch" then return true end
    end
  end
  return false
end

-- Whether a rule or one of its backends puts another prefix in place of the one that matched.
local function rewrites_prefix(rule)
  if replaces_prefix(rule) then return true end
  for _, entry in ipairs(rule.backendRefs or {}) do
    if replaces_prefix(entry) then return true end
  end
  return false
end

local function apply_weight(spec, weight, modifier)
  local lists = {}
  for i, rule in ipairs(spec.rules or {}) do
    -- Redirects have no backends.
    if not is_empty(rule.backendRefs) then
      lists[#lists + 1] = { entries = rule.backendRefs, at = "rules[" .. i .. "]", rule = rule }
    end
  end
  tidegate.split_lists(lists, weight, backends(), "rule", function(list, canaries)
    at_most(#list.entries, MOST.backends, kind(), "backendRefs in a rule")
    for _, entry in ipairs(canaries) do modify(entry, modifier) end
    if list.rule.sessionPersistence then
      tidegate.warn(list.at .. ".sessionPersistence keeps known clients where they were, whatever the weights")
    end
  end)
end

-- Copies of a rule that send what matches to the canary: one with all matches, as they are alternatives, but one for
-- each where a prefix is replaced, which the API allows beside a single match only.
local function canary_rules(rule, matches, refs, unused_name, modifier, into, most)
  local groups = { {} }
  for _, match in ipairs(matches) do
    if #groups[#groups] > 0 and rewrites_prefix(rule) then groups[#groups + 1] = {} end
    insert(groups[#groups], match)
  end
  for _, group in ipairs(groups) do
    at_most(#group, most, kind(), "matches in a rule")
    local added = copy(rule)
    added.matches, added.backendRefs = group, copy(refs)
    -- Older servers drop a name that they do not know: an unnamed rule's copy has none either.
    if rule.name then added.name = unused_name(rule.name) end
    modify(added, modifier)
    insert(into, added)
  end
end

local function apply_matches(spec, matches, combine, modifier, most)
  local unused_name = tidegate.names_beside(spec.rules, MOST.names)
  -- Right before its base: some gateways go by the order, and all of them where rules are equally specific.
  local rules = tidegate.fork(spec.rules, matches, {
    entries = function(rule) return rule.backendRefs end,
    bases = function(rule) return rule.matches end,
    combine = combine,
    add = function(rule, both, refs, into) canary_rules(rule, both, refs, unused_name, modifier, into, most) end,
    backend = backends(),
    what = "rule",
  })
  local count = 0
  for _, rule in ipairs(rules) do
    count = count + (is_empty(rule.matches) and 1 or #rule.matches)
  end
  at_most(count, MOST.all_matches, kind(), "matches in all rules together")
  at_most(#rules, MOST.rules, kind(), "rules")
  spec.rules = rules
end

local gateway_api = {}
tidegate.gateway_api = gateway_api

-- Adds the step's conditions to a match's list; false when they can never hold together with those of the rule.
function gateway_api.add_conditions(result, field, wanted, at, any_case)
  for i, entry in ipairs(wanted or {}) do
    local place = at .. "." .. field .. "[" .. i .. "]"
    local step, found = tidegate.condition(entry, place), nil
    for _, other in ipairs(result[field] or {}) do
      if other.name == entry.name or any_case and tidegate.same_header(other.name, entry.name) then found = other end
    end
    if found then
      local own = tidegate.condition(found, place)
      if tidegate.narrow(own, step, field .. "." .. entry.name, at) == nil then return false end
    else
      result[field] = result[field] or {}
      insert(result[field], { type = entry.type or "Exact", name = entry.name, value = entry.value })
      at_most(#result[field], MOST.conditions, kind(), field .. " in a match")
    end
  end
  return true
end

gateway_api.replaces_prefix, gateway_api.modify = replaces_prefix, modify

local function is_ours(rule)
  return tidegate.has_stable(rule.backendRefs, backends())
end

-- Whether what a step asks of a rule was another rule's. `takes` says of another rule's match whether it takes all (true),
-- some (false) or none (nil) of those requests. Some of them for another Service cannot be told apart.
function gateway_api.belongs_to_another(rule, at, takes)
  for _, other in ipairs(G.obj.data.spec.rules) do
    if other ~= rule then
      for _, match in ipairs(other.matches or {}) do
        local taken = takes(match)
        if taken then return true end
        if taken == false and not is_ours(other) then
          tidegate.refuse(kind(), at, "a rule of another Service takes some of its requests by other conditions")
        end
      end
    end
  end
  return false
end

local TYPES = { exact = "Exact", prefix = "PathPrefix", regex = "RegularExpression" }
local PATH = { is_path = true, segments = true }

-- A path in the words of the API.
function gateway_api.path(condition)
  local type, value = next(condition)
  return { type = TYPES[type], value = value }
end

-- How the paths of rules are read, for tidegate.path_within.
function gateway_api.paths(rules, has_stable, rewrites)
  return {
    rules = rules,
    bases = function(rule) return rule.matches end,
    path = function(match) return tidegate.path_condition(match.path or {}, "rules[].matches[].path") end,
    asks_more = function(match)
      return match.method ~= nil or not is_empty(match.headers) or not is_empty(match.queryParams)
    end,
    is_ours = has_stable,
    rewrites = rewrites,
    rewrite = "ReplacePrefixMatch",
    gateway = kind(),
    options = PATH,
  }
end

-- A match of an HTTPRoute's rule together with the step's; nil when both never hold.
function gateway_api.combine_http(base, match, at, rule)
  local result = copy(base)
  if match.path then
    local step = tidegate.path_condition(match.path, at .. ".path")
    local own = base.path and tidegate.path_condition(base.path, at .. ".path")
    local both = tidegate.path_within(own, step, rule, at,
      gateway_api.paths(G.obj.data.spec.rules, is_ours, rewrites_prefix))
    if both == nil then return nil end
    if both ~= own then result.path = gateway_api.path(both) end
  end
  if not gateway_api.add_conditions(result, "headers", match.headers, at, true) then return nil end
  if not gateway_api.add_conditions(result, "queryParams", match.queryParams, at, false) then return nil end
  return result
end

-- Makes the route do what the step asks. `combine` as for tidegate.crossing; none for routes that know no matches.
-- `most_matches` in a rule where it is not the Gateway API's number.
function gateway_api.apply(combine, most_matches)
  local spec, modifier = G.obj.data.spec, tidegate.modifier()
  tidegate.step(kind(), {
    weight = function(weight)
      if modifier and not combine then
        tidegate.refuse(kind(), "requestHeaderModifier: it does not look into requests")
      end
      apply_weight(spec, weight, modifier)
    end,
    matches = function(matches)
      if not combine then
        tidegate.refuse(kind(), "matches: it does not look into requests", "use traffic, a share")
      end
      apply_matches(spec, matches, combine, modifier, most_matches or MOST.matches)
    end,
  })
end

-- ---- what gateways say ------------------------------------------------------------------------------------------

-- PartiallyInvalid is only ever True, of a route that some rules of were left out or an older form of is kept.
local function of_parent(entry)
  for _, condition in ipairs(entry.conditions or {}) do
    if condition.type == "PartiallyInvalid" and condition.status == "True" then
      return status.refused(status.words("condition PartiallyInvalid is True", condition.reason, condition.message))
    end
  end
  return status.conditions(entry.conditions, { "Accepted", "ResolvedRefs", "Programmed" })
end

-- Controllers write defaults in, "core" for the core group, or leave out what narrows the reference.
local function is_parent(said, parent)
  local function group(ref)
    local name = ref.group or GROUP
    return name == "core" and "" or name
  end
  local own = G.obj.metadata.namespace
  return said.name == parent.name
    and group(said) == group(parent)
    and (said.kind or "Gateway") == (parent.kind or "Gateway")
    and (said.namespace or own) == (parent.namespace or own)
    and (said.sectionName == nil or said.sectionName == parent.sectionName)
    and (said.port == nil or said.port == parent.port)
end

-- Whether every parent has taken the route; of several controllers that report on one parent, one is enough.
function gateway_api.accepted()
  local parents = {}
  for _, parent in ipairs(G.obj.spec.parentRefs or {}) do
    local said = {}
    for _, entry in ipairs(G.obj.status and G.obj.status.parents or {}) do
      if is_parent(entry.parentRef, parent) then insert(said, of_parent(entry)) end
    end
    local name = (parent.kind or "Gateway") .. " " .. parent.name
    local answer = status.best(said) or status.unreported("no controller has reported on it")
    if answer.reason then answer.reason = name .. ": " .. answer.reason end
    insert(parents, answer)
  end
  return status.worst(parents) or status.unreported("it has no parentRefs, so no gateway takes it")
end
