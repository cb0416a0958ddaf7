-- Kuma and Kong Mesh MeshHTTPRoute.
-- caps: weight,header,query,path,regex,rhm,method,cookie,mirror,ports,several,http; accept: A4
-- versions: v1alpha1
--
-- Weight steps split every backendRef that is the stable Service's MeshService, by labels, by name, or by Kuma's own
-- name `<service>_<namespace>_svc_<port>`; other backends keep their share. A rule without backendRefs goes where its
-- `to` goes, and gets both. Match steps put a canary rule, a copy with narrower matches, right before each of our
-- rules; the modifier goes into its filters. Matches win over a weight. An absent weight is 1.
--
-- Kuma goes by how specific matches are, not by order, and rules with equal matches are one: a step that would make
-- such a pair is refused. A path of a step narrows the rule's by whole segments; where a longer path is another
-- rule's, that rule keeps it. A cookie is a header: name `Cookie`, type RegularExpression. Kuma takes
-- names of headers in lower case only, so all are written so.
--
-- Not expressible: header changes beside a weight; two conditions on one value of which one is a regular expression;
-- paths that narrow a rule which replaces the prefix that it matched; one Service for both versions.
--
-- Errors, after the kind and name of the object:
--   no rule routes to Service "S"
--   every rule that routes to Service "S" gives it weight 0: there is no share to split
--   MeshHTTPRoute tells versions apart by Service only, and Service "S" is both
--   MeshHTTPRoute cannot express requestHeaderModifier beside a weight | matches[i].path beside ReplacePrefixMatch
--   MeshHTTPRoute cannot express matches: a rule has them already
--   MeshHTTPRoute cannot express matches[i].path; a rule of another Service takes some of its requests
--   requestHeaderModifier names header "N" in LIST and LIST
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported
--   matches[i]: WHAT is a regular expression in one of the rule and the step and cannot be combined

local copy, is_empty, refuse = tidegate.copy, tidegate.is_empty, tidegate.refuse
local DISPLAY_NAME, NAMESPACE = "kuma.io/display-name", "k8s.kuma.io/namespace"

local spec = obj.data.spec
local modifier = copy(tidegate.modifier())
if modifier then
  for _, list in ipairs({ modifier.set or {}, modifier.add or {} }) do
    for _, header in ipairs(list) do header.name = string.lower(header.name) end
  end
end
local namespace = obj.serviceNamespace or obj.data.metadata and obj.data.metadata.namespace

-- What follows the Service's name in Kuma's own name for it.
local function own_name(name, service)
  if string.sub(name or "", 1, #service + 1) ~= service .. "_" then return nil end
  local suffix = string.sub(name, #service + 1)
  local of = string.match(suffix, "^_([^_]+)_svc_%d+$") or string.match(suffix, "^_([^_]+)_svc$")
  return of and (namespace == nil or of == namespace) and suffix or nil
end

local function names(reference, service)
  if reference.kind ~= "MeshService" then return false end
  local labels = reference.labels
  if labels and labels[DISPLAY_NAME] then
    local of = labels[NAMESPACE]
    return labels[DISPLAY_NAME] == service and (of == nil or namespace == nil or of == namespace)
  end
  if own_name(reference.name, service) then return true end
  return tidegate.is_service({ name = reference.name, namespace = reference.namespace }, service)
end

local BACKEND = {
  is_stable = function(entry) return names(entry, obj.stableService) end,
  is_canary = function(entry) return names(entry, obj.canaryService) end,
  belongs = function(entry, twin) return entry.port == twin.port and entry.sectionName == twin.sectionName end,
  canary = function(entry)
    local twin = copy(entry)
    if twin.labels and twin.labels[DISPLAY_NAME] then
      twin.labels[DISPLAY_NAME] = obj.canaryService
    else
      twin.name = obj.canaryService .. (own_name(twin.name, obj.stableService) or "")
    end
    return twin
  end,
  default = 1,
  most = 4294967295,
  -- The API server writes the default.
  keeps_number = true,
}

-- The `to` that a rule is under.
local target_of = {}
for _, to in ipairs(spec.to or {}) do
  for _, rule in ipairs(to.rules or {}) do target_of[rule] = to.targetRef end
end

-- The rule's backendRefs; for one without, what its `to` stands for, if that is ours.
local function backends_of(rule)
  local default = rule.default or {}
  if not is_empty(default.backendRefs) then return default.backendRefs end
  local target = target_of[rule]
  if not target or not names(target, obj.stableService) then return nil end
  local own = copy(target)
  -- The API server would write it.
  own.weight = 1
  if own.sectionName and string.match(own.sectionName, "^%d+$") then
    own.port, own.sectionName = tonumber(own.sectionName), nil
  end
  return { own }
end

local function apply_weight(weight)
  local lists = {}
  for _, to in ipairs(spec.to or {}) do
    for _, rule in ipairs(to.rules or {}) do
      local entries = backends_of(rule)
      if entries then lists[#lists + 1] = { entries = entries, rule = rule } end
    end
  end
  tidegate.split_lists(lists, weight, BACKEND, "rule", function(list)
    list.rule.default = list.rule.default or {}
    list.rule.default.backendRefs = list.entries
  end)
end

-- ---- matches ---------------------------------------------------------------------------------------------------

-- A condition of a rule; `Present` and `Absent` are none on the value.
local function own_condition(entry)
  if entry.type == "Prefix" then return { prefix = entry.value } end
  if entry.type == "RegularExpression" then return { regex = entry.value } end
  return { exact = entry.value }
end

-- Adds a condition of the step's; false when it can never hold together with the rule's. And whether that says more.
local function add_condition(result, field, entry, step, at)
  local any_case, found = field == "headers", nil
  for _, other in ipairs(result[field] or {}) do
    if other.name == entry.name or any_case and tidegate.same_header(other.name, entry.name) then found = other end
  end
  local name = any_case and string.lower(entry.name) or entry.name
  local added = { type = step.regex and "RegularExpression" or "Exact", name = name, value = entry.value }
  if not found then
    result[field] = result[field] or {}
    table.insert(result[field], added)
    return true, true
  end
  if found.type == "Absent" then return false, false end
  if found.type ~= "Present" then
    local both = tidegate.narrow(own_condition(found), step, field .. "." .. entry.name, at)
    if both ~= step then return both ~= nil, false end
  end
  found.type, found.value = added.type, added.value
  return true, true
end

local rules_of_to

local function has_stable(rule) return tidegate.has_stable(backends_of(rule), BACKEND) end
local function replaces_prefix(rule) return tidegate.gateway_api.replaces_prefix(rule.default or {}) end

local function combine(base, match, at, rule)
  local result, says_more = copy(base), false
  if match.path then
    local step = tidegate.path_condition(match.path, at .. ".path")
    -- No slash may end a prefix.
    if step.prefix and step.prefix ~= "/" then step.prefix = string.gsub(step.prefix, "/+$", "") end
    local own = base.path and tidegate.path_condition(base.path, at .. ".path")
    local both = tidegate.path_within(own, step, rule, at,
      tidegate.gateway_api.paths(rules_of_to, has_stable, replaces_prefix))
    if both == nil then return nil end
    if both ~= own then
      result.path = tidegate.gateway_api.path(both)
      says_more = true
    end
  end
  local holds = tidegate.add_conditions(match, at, function(field, entry, wanted)
    local can_hold, more = add_condition(result, field, entry, wanted, at)
    says_more = says_more or more
    return can_hold
  end)
  if not holds then return nil end
  if not says_more then
    refuse("MeshHTTPRoute", "matches: a rule has them already", "give the step others")
  end
  return result
end

local function apply_matches(matches)
  local forking = tidegate.forking(matches, {
    entries = backends_of,
    bases = function(rule) return rule.matches end,
    combine = combine,
    add = function(rule, both, backends, into)
      local added = copy(rule)
      added.matches = both
      added.default = added.default or {}
      added.default.backendRefs = backends
      if modifier then tidegate.gateway_api.modify(added.default, modifier) end
      table.insert(into, added)
    end,
    backend = BACKEND,
    what = "rule",
  })
  local lists = {}
  for i, to in ipairs(spec.to or {}) do
    rules_of_to = to.rules or {}
    lists[i] = forking.of(to.rules)
  end
  forking.check()
  for i, to in ipairs(spec.to or {}) do
    if to.rules then to.rules = lists[i] end
  end
end

tidegate.step("MeshHTTPRoute", {
  weight = apply_weight,
  matches = apply_matches,
  refuses = { ["requestHeaderModifier beside a weight"] = "use matches" },
})
return obj.data
