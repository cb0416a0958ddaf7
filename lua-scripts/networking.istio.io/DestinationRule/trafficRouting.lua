-- Istio DestinationRule; one schema in all versions.
-- caps: weight,header,query,path,regex,subset,sticky,http,tcp,tls; accept: A4
-- versions: v1, v1beta1, v1alpha3
--
-- Every step gives the DestinationRule of the stable Service a subset `canary`, whatever the step's weight and matches:
-- the labels that the canary's pods were patched with, or istio.service.tag: gray when they were patched with none.
-- A subset of that name that is there already keeps its place and traffic policy, and gets the labels.
--
-- No match is unsupported: which requests go to the subset is the VirtualService's matter.
--
-- Errors, after the kind and name of the object:
--   host "H" is not Service "S"

local CANARY_SUBSET = "canary"

local spec = obj.data.spec

if not tidegate.names_service(spec.host, obj.stableService) then
  tidegate.fail('host "' .. tostring(spec.host) .. '" is not Service "' .. obj.stableService .. '"')
end

local labels = {}
for key, value in pairs((obj.patchPodMetadata or {}).labels or {}) do labels[key] = value end
if next(labels) == nil then labels["istio.service.tag"] = "gray" end

spec.subsets = spec.subsets or {}
for _, subset in ipairs(spec.subsets) do
  if subset.name == CANARY_SUBSET then
    subset.labels = labels
    return obj.data
  end
end
table.insert(spec.subsets, { name = CANARY_SUBSET, labels = labels })
return obj.data
