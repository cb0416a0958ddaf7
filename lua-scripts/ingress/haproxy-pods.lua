-- HAProxy Ingress (haproxy-ingress.github.io), shares by label of the pods of one Service. Lua 5.1, also valid Luau.
-- caps: weight,subset,sticky,ports,several,http; accept: A6
-- versions: v1
-- grace: 10
-- ingress: in-place
--
-- Changes the Ingress itself: annotation blue-green-balance, a list of label=value=weight, says which pods get which share.
-- Yours names the stable pods, as track=stable=100, by a label that the canary's pods are patched with; the script divides
-- that entry, and other entries keep their share. Pods that no entry names get no requests. A weight counts for all pods of
-- an entry together (blue-green-mode deploy). All paths of the Ingress have the same shares.
--
-- Not expressible: matches and header changes (use class haproxy), a canary Service, blue-green-mode pod.

local GATEWAY = "HAProxy Ingress"
local PREFIXES = { "haproxy-ingress.github.io/", "ingress.kubernetes.io/" }
local MOST = 256

local annotations = obj.data.annotations or {}
local patched = (obj.patchPodMetadata or {}).labels or {}

-- The key under which an annotation is, or would be.
local function key_of(name)
  for _, prefix in ipairs(PREFIXES) do
    if annotations[prefix .. name] then return prefix .. name end
  end
  return PREFIXES[1] .. name
end

-- The older name is read where the newer one says nothing.
local key = key_of("blue-green-balance")
if not annotations[key] and annotations[key_of("blue-green-deploy")] then key = key_of("blue-green-deploy") end

local function read(text)
  local entries = {}
  for part in string.gmatch(text .. ",", "([^,]*),") do
    local label, value, weight = string.match(part, "^([^=]+)=([^=]+)=(%d+)$")
    if not label then tidegate.fail("annotation " .. key .. ' is no list of label=value=weight at "' .. part .. '"') end
    entries[#entries + 1] = { label = label, value = value, weight = math.min(tonumber(weight), MOST) }
  end
  return entries
end

local function write(entries)
  local parts = {}
  for i, entry in ipairs(entries) do parts[i] = entry.label .. "=" .. entry.value .. "=" .. entry.weight end
  return table.concat(parts, ",")
end

local PODS = {
  is_stable = function(entry) return patched[entry.label] ~= nil and patched[entry.label] ~= entry.value end,
  is_canary = function(entry) return patched[entry.label] == entry.value end,
  belongs = function(entry, twin) return entry.label == twin.label end,
  canary = function(entry)
    local twin = tidegate.copy(entry)
    twin.value = patched[entry.label]
    return twin
  end,
  most = MOST,
}

local function names_stable(backend)
  return ((backend or {}).service or {}).name == obj.stableService
end

local function routes_to_stable()
  if names_stable(obj.data.spec.defaultBackend) then return true end
  for _, rule in ipairs(obj.data.spec.rules or {}) do
    for _, path in ipairs((rule.http or {}).paths or {}) do
      if names_stable(path.backend) then return true end
    end
  end
  return false
end

local function apply(weight)
  if not tidegate.is_one_service() then
    tidegate.refuse(GATEWAY, "a share of another Service", "set disableGenerateCanaryService: true, or route by an HTTPRoute")
  end
  if annotations[key_of("blue-green-mode")] == "pod" then
    tidegate.refuse(GATEWAY, "a share beside blue-green-mode pod", "use deploy, whose weights are those of all pods")
  end
  if not routes_to_stable() then tidegate.no_route("path of Ingress") end
  local entries = read(annotations[key] or tidegate.fail("annotation " .. key
    .. " is missing; let it name the stable pods, as track=stable=100"))
  local named, canaries = tidegate.split(entries, weight, PODS, key)
  if not named then
    tidegate.fail("annotation " .. key .. " names no pods by a label that patchPodTemplateMetadata gives the canary's")
  end
  if not canaries then tidegate.drained("entry of " .. key) end
  annotations[key] = write(entries)
end

tidegate.step(GATEWAY, {
  weight = apply,
  refuses = { matches = "use class haproxy", requestHeaderModifier = "use class haproxy" },
  subset = true,
})
return obj.data
