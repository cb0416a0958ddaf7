-- Consul ServiceSplitter, whose name is a service's.
-- caps: weight,rhm,subset,several,http; accept: A2
-- versions: v1alpha1
--
-- Weight steps split every entry of the stable Service, named or meant by no name; other entries keep their per cents.
-- A splitter without `splits` gets them. Numbers stay whole where the original's are, and hundredths otherwise. Header
-- changes go into the canary's entry. Without a canary Service (stable = canary) the canary is serviceSubset `canary`,
-- which a ServiceResolver must define, and the stable entry should name a subset of its own.
--
-- Not expressible: matches, which are a ServiceRouter's.
--
-- Errors, after the kind and name of the object:
--   no split routes to Service "S"
--   every split that routes to Service "S" gives it weight 0: there is no share to split
--   Service "S" has 1 per cent of a rule, which cannot be split; give it 2 or more
--   ServiceSplitter cannot express matches; use a weight

local CANARY_SUBSET = "canary"

local spec = obj.data.spec
local name = obj.data.metadata and obj.data.metadata.name
local by_subset = tidegate.is_one_service()

local function service_of(entry)
  return entry.service ~= nil and entry.service ~= "" and entry.service or name
end

local function names(entry, service)
  return tidegate.is_service({ name = service_of(entry), namespace = entry.namespace }, service)
end

local function is_canary(entry)
  if by_subset then return entry.serviceSubset == CANARY_SUBSET and names(entry, obj.canaryService) end
  return names(entry, obj.canaryService)
end

local BACKEND = {
  is_stable = function(entry) return names(entry, obj.stableService) and not (by_subset and is_canary(entry)) end,
  is_canary = is_canary,
  canary = function(entry)
    local twin = tidegate.copy(entry)
    if by_subset then
      twin.serviceSubset = CANARY_SUBSET
    else
      twin.service = obj.canaryService
      -- A subset belongs to the stable service's ServiceResolver.
      twin.serviceSubset = nil
    end
    return twin
  end,
}

local function apply(weight)
  local modifier = tidegate.modifier()
  if tidegate.is_empty(spec.splits) then spec.splits = { { weight = 100 } } end
  local unit = 1
  for _, entry in ipairs(spec.splits) do
    if (entry.weight or 0) % 1 ~= 0 then unit = 100 end
  end
  for _, entry in ipairs(spec.splits) do entry.weight = math.floor((entry.weight or 0) * unit + 0.5) end
  tidegate.split_lists({ { entries = spec.splits } }, weight, BACKEND, "split", function(_, canaries)
    for _, entry in ipairs(canaries) do
      if modifier then
        entry.requestHeaders = entry.requestHeaders or {}
        tidegate.modify_header_maps(entry.requestHeaders, modifier)
      end
    end
  end, tidegate.split_percent)
  for _, entry in ipairs(spec.splits) do
    entry.weight = entry.weight / unit
    if by_subset and BACKEND.is_stable(entry) and not entry.serviceSubset then
      tidegate.warn("the split of " .. service_of(entry) .. " has no subset, so it reaches the canary's pods too")
    end
  end
end

tidegate.step("ServiceSplitter", { weight = apply, refuses = { matches = "use a weight" }, subset = true })
return obj.data
