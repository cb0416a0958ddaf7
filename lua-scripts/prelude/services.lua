-- Which of an object's backends are the stable Service and the canary's.
local tidegate = ...
local G, next, type = _G, next, type
local match, sub = string.match, string.sub

-- Namespace of the Services, and that of the object; nil where it is not known.
local function namespaces()
  local obj = G.obj
  local metadata = obj.data and obj.data.metadata
  local own = metadata and metadata.namespace
  return obj.serviceNamespace or own, own
end

-- What follows the Service's name in a host that names `service`: "", ".ns" or ".ns.svc..."; nil for any other host.
local function host_suffix(host, service)
  -- Most hosts are another's: tell those apart without a pattern.
  if type(host) ~= "string" or sub(host, 1, #service) ~= service then return nil end
  local suffix = sub(host, #service + 1)
  local expected, own = namespaces()
  local namespace = own
  if suffix ~= "" then
    local rest
    namespace, rest = match(suffix, "^%.([^.]+)(.*)$")
    if namespace == nil then return nil end
    -- `app.example.com` is a host outside the cluster, however its first label reads.
    if rest ~= "" and match(rest, "^%.([^.]+)") ~= "svc" then return nil end
  end
  -- A short name belongs to the namespace of the object that holds it.
  if expected and namespace and namespace ~= expected then return nil end
  return suffix
end

tidegate.host_suffix = host_suffix

function tidegate.names_service(host, service)
  return host_suffix(host, service) ~= nil
end

function tidegate.is_service(reference, service)
  if type(reference) ~= "table" or reference.name ~= service then return false end
  local kind, group = reference.kind, reference.group
  if kind ~= nil and kind ~= "Service" or group ~= nil and group ~= "" and group ~= "core" then return false end
  local expected, own = namespaces()
  local namespace = reference.namespace or own
  return not (expected and namespace and namespace ~= expected)
end

-- How a list of references is read that name a Service in a field of theirs; `more` are further fields of a backend.
function tidegate.references(more, name_field, port_field)
  local obj, copy = G.obj, tidegate.copy
  local stable, canary = obj.stableService, obj.canaryService
  local is_service, name, port = tidegate.is_service, name_field or "name", port_field or "port"
  if name ~= "name" then
    is_service = function(entry, service) return entry[name] == service end
  end
  local backend = {
    is_stable = function(entry) return is_service(entry, stable) end,
    is_canary = function(entry) return is_service(entry, canary) end,
    belongs = function(entry, twin) return entry[port] == twin[port] end,
    canary = function(entry)
      local twin = copy(entry)
      twin[name] = canary
      return twin
    end,
  }
  for field, value in next, more do backend[field] = value end
  return backend
end

function tidegate.is_one_service()
  return G.obj.stableService == G.obj.canaryService
end

-- ---- one Service, whose pods are told apart by label --------------------------------------------------------------

local function patched_labels()
  local patch = G.obj.patchPodMetadata
  return patch and patch.labels or {}
end

-- Whether pods that have these labels can only be the canary's.
function tidegate.chooses_canary(labels)
  local patched, chooses = patched_labels(), false
  for key, value in next, labels or {} do
    if patched[key] == value then
      chooses = true
    elseif patched[key] ~= nil then
      return false
    end
  end
  return chooses
end

-- The labels of the canary's pods, by the keys that choose the stable ones; nil when those choose the canary's too.
function tidegate.canary_labels(labels)
  local patched, result = patched_labels(), nil
  for key, value in next, labels or {} do
    if patched[key] ~= nil and patched[key] ~= value then
      result = result or tidegate.copy(labels)
      result[key] = patched[key]
    end
  end
  return result
end

function tidegate.need_canary_service(gateway)
  if G.obj.stableService == G.obj.canaryService then
    tidegate.fail(gateway .. " tells versions apart by Service only, and Service \"" .. G.obj.stableService
      .. "\" is both; let the controller make the canary Service (leave disableGenerateCanaryService and"
      .. " createCanaryService: false out)")
  end
end

function tidegate.no_route(what)
  tidegate.fail("no " .. what .. " routes to Service \"" .. G.obj.stableService .. "\"")
end

function tidegate.drained(what)
  tidegate.fail("every " .. what .. " that routes to Service \"" .. G.obj.stableService
    .. "\" gives it weight 0: there is no share to split")
end
