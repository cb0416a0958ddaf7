-- Istio DestinationRule: v1, v1beta1, v1alpha3 (one schema). Lua 5.1, also valid Luau.
-- caps: weight,header,query,path,subset; accept: A4
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
local metadata = obj.data.metadata or {}

local function fail(message)
  local name = metadata.name or ""
  if metadata.namespace then name = metadata.namespace .. "/" .. name end
  if name ~= "" then name = " " .. name end
  error("DestinationRule" .. name .. ": " .. message, 2)
end

-- Whether a host names the Service: by its short name, with its namespace, or in full.
local function names_service(host, service)
  if type(host) ~= "string" then return false end
  local name, suffix = string.match(host, "^([^.]+)(.*)$")
  if name ~= service then return false end
  local expected = obj.serviceNamespace or metadata.namespace
  local namespace = string.match(suffix, "^%.([^.]+)") or metadata.namespace
  local third = string.match(suffix, "^%.[^.]+%.([^.]+)")
  if third ~= nil and third ~= "svc" then return false end
  return not (expected and namespace and namespace ~= expected)
end

if not names_service(spec.host, obj.stableService) then
  fail('host "' .. tostring(spec.host) .. '" is not Service "' .. obj.stableService .. '"')
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
