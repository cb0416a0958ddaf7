-- What weight steps and match steps do to the rules of an object, whatever its rules look like.
local tidegate = ...
local ipairs = ipairs
local sub, insert = string.sub, table.insert
local is_empty, refuse = tidegate.is_empty, tidegate.refuse

-- What of a step gateways may not know, in the order in which it is said.
local EXTRAS = { "requestHeaderModifier", "requestHeaderModifier beside a weight", "requestHeaderModifier.add",
  "requestHeaderModifier.remove" }

-- Whether the step asks for one of them.
local function asks_for(extra, modifier, weight)
  if extra == "requestHeaderModifier" then return true end
  if extra == "requestHeaderModifier beside a weight" then return weight ~= nil end
  return not is_empty(modifier[sub(extra, #"requestHeaderModifier." + 1)])
end

-- Does what the step asks: `how.matches(matches)` or `how.weight(weight)`; matches win. `how.refuses` has a remedy, or
-- "", for each thing that the gateway cannot express; `how.subset` says that one Service for both versions will do.
function tidegate.step(gateway, how)
  local matches, weight, refuses = tidegate.matches(), tidegate.weight(), how.refuses or {}
  if not (matches or weight) then return end
  local function refuse_it(what)
    refuse(gateway, what, refuses[what] ~= "" and refuses[what] or nil)
  end
  if matches and not how.matches then refuse_it("matches") end
  if not how.subset then tidegate.need_canary_service(gateway) end
  if matches then weight = nil end
  local modifier = tidegate.modifier()
  for _, extra in ipairs(EXTRAS) do
    if modifier and refuses[extra] and asks_for(extra, modifier, weight) then refuse_it(extra) end
  end
  if matches then how.matches(matches) else how.weight(weight) end
end

-- Whether one of the entries is the stable Service.
function tidegate.has_stable(entries, backend)
  for _, entry in ipairs(entries or {}) do
    if backend.is_stable(entry) then return true end
  end
  return false
end

-- Splits each of the lists { entries, at }, `at` where a gateway refuses weights of 0; `done` is told of those of which the canary got a part.
function tidegate.split_lists(lists, weight, backend, what, done, split)
  local named, shared = false, false
  split = split or tidegate.split
  for _, list in ipairs(lists) do
    local names, canaries = split(list.entries, weight, backend, list.at)
    named = named or names
    if canaries then
      shared = true
      if done then done(list, canaries) end
    end
  end
  if not named then tidegate.no_route(what) end
  if not shared then tidegate.drained(what) end
end

-- Puts canary rules right before the rules that route to the stable Service.
function tidegate.forking(matches, how)
  local crossing = tidegate.crossing(matches, how.combine)
  local named, shared = false, false
  local forking = {}

  -- A new list of rules, in which those given are as they were.
  function forking.of(rules)
    local result = {}
    for _, rule in ipairs(rules or {}) do
      local entries = how.entries(rule)
      if not is_empty(entries) then
        local names, canaries = tidegate.canaries(entries, how.backend)
        named = named or names
        if canaries then
          shared = true
          local both = {}
          for _, list in ipairs(crossing.of(how.bases(rule), rule)) do
            for _, match in ipairs(list) do both[#both + 1] = match end
          end
          if #both > 0 then how.add(rule, both, canaries, result) end
        end
      end
      insert(result, rule)
    end
    return result
  end

  -- Stops when no rule was ours, or one of the step's matches held with none.
  function forking.check()
    if not named then tidegate.no_route(how.what) end
    if not shared then tidegate.drained(how.what) end
    crossing.check()
  end

  return forking
end

-- The rules with the canary's before those that route to the stable Service.
function tidegate.fork(rules, matches, how)
  local forking = tidegate.forking(matches, how)
  local result = forking.of(rules)
  forking.check()
  return result
end

-- A list without what it says about one thing twice.
function tidegate.unique(list)
  local seen, result = {}, {}
  for _, text in ipairs(list) do
    if not seen[text] then
      seen[text] = true
      result[#result + 1] = text
    end
  end
  return result
end

-- Whether a path that is narrower than its rule's was another rule's, where a longer path wins. Some of its requests
-- for another Service cannot be told apart.
function tidegate.path_of_another(path, own, rule, at, how)
  if path.regex then return false end
  local known = #(own and (own.prefix or own.exact) or "/")
  for _, other in ipairs(how.rules) do
    if other ~= rule then
      for _, match in ipairs(how.bases(other) or {}) do
        local theirs = how.path(match)
        if theirs and not theirs.regex and (theirs.exact or #theirs.prefix > known)
          and tidegate.narrow(path, theirs, "path", at, how.options) == path then
          if not how.asks_more(match, other) then return true end
          if not how.is_ours(other) then
            refuse(how.gateway, at, "a rule of another Service takes some of its requests by other conditions")
          end
        end
      end
    end
  end
  return false
end

-- A rule's path together with the step's; nil when both never hold, or where it was another rule's. `own` itself when the
-- step's says no more. `at` is the place of the step's match; `how` as for tidegate.path_of_another, and `rewrites(rule)` where a rule may replace the prefix
-- that matched, in a field that is called `rewrite`.
function tidegate.path_within(own, step, rule, at, how)
  local both = tidegate.narrow(own, step, "path", at, how.options)
  if both == nil or both == own then return both end
  at = at .. ".path"
  if tidegate.path_of_another(both, own, rule, at, how) then return nil end
  if how.rewrites and both.prefix ~= "/" and how.rewrites(rule) then
    refuse(how.gateway, at .. " beside " .. how.rewrite, "the part that is replaced would change")
  end
  return both
end
