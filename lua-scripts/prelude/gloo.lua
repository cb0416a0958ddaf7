-- Destinations of Gloo: those of RouteTables and of UpstreamGroups.
local tidegate = ...
local G, ipairs, pairs, tonumber = _G, ipairs, pairs, tonumber
local match, sub = string.match, string.sub
local insert, remove, sort = table.insert, table.remove, table.sort
local copy, is_service, same_header = tidegate.copy, tidegate.is_service, tidegate.same_header
local status = tidegate.status

local gloo = {}
tidegate.gloo = gloo

-- Gloo names the Upstream that it makes for a port of a Service `<namespace>-<service>-<port>`.
local function upstream_port(destination, service)
  local upstream, obj = destination.upstream, G.obj
  local namespace = obj.serviceNamespace or obj.data.metadata and obj.data.metadata.namespace
  if not upstream or not namespace then return nil end
  local head = namespace .. "-" .. service .. "-"
  return sub(upstream.name, 1, #head) == head and match(sub(upstream.name, #head + 1), "^%d+$") or nil
end

local function names(entry, service)
  local destination = entry.destination or {}
  local ref = destination.kube and destination.kube.ref
  if ref then return is_service(ref, service) end
  return upstream_port(destination, service) ~= nil
end

local function labels_of(entry)
  local subset = (entry.destination or {}).subset
  return subset and subset.values
end

local function port_of(entry)
  local destination = entry.destination or {}
  if destination.kube then return destination.kube.port end
  return destination.upstream and tonumber(match(destination.upstream.name, "%d+$"))
end

-- How weighted destinations are read, and what a canary is made of.
function gloo.backend()
  local stable, canary = G.obj.stableService, G.obj.canaryService
  local by_labels = tidegate.is_one_service()
  return {
    is_stable = function(entry)
      return names(entry, stable) and not (by_labels and tidegate.chooses_canary(labels_of(entry)))
    end,
    is_canary = function(entry)
      return names(entry, canary) and (not by_labels or tidegate.chooses_canary(labels_of(entry)))
    end,
    belongs = function(entry, twin) return port_of(entry) == port_of(twin) end,
    canary = function(entry)
      local twin = copy(entry)
      local destination = twin.destination
      local labels = tidegate.canary_labels(labels_of(twin))
      if labels then destination.subset.values = labels end
      if by_labels then
        if not labels then
          tidegate.refuse("Gloo", "a destination for both versions", "its subset must leave out the canary's pods:"
            .. " choose by a label that patchPodTemplateMetadata gives them with another value")
        end
      elseif destination.kube then
        destination.kube.ref.name = canary
      else
        local port = upstream_port(destination, stable)
        local namespace = sub(destination.upstream.name, 1, -#stable - #port - 3)
        local name = namespace .. "-" .. canary .. "-" .. port
        if #name > 63 then
          tidegate.refuse("Gloo", "upstream " .. name .. ", whose name it shortens", "use a kube destination")
        end
        destination.upstream.name = name
      end
      return twin
    end,
    lone = true,
    refuses_zero = "Gloo",
    most = 4294967295,
  }
end

local function drop(list, name, name_of)
  for i = #list, 1, -1 do
    if same_header(name_of(list[i]), name) then remove(list, i) end
  end
end

local function key_of(entry) return entry.header and entry.header.key or "" end
local function itself(entry) return entry end

-- Merges the step's header changes into the options of a route or weighted destination; the step wins.
function gloo.modify(holder, modifier)
  if not modifier then return end
  holder.options = holder.options or {}
  local headers = holder.options.headerManipulation or {}
  holder.options.headerManipulation = headers
  local added, removed = headers.requestHeadersToAdd or {}, headers.requestHeadersToRemove or {}
  for _, name in ipairs(modifier.remove or {}) do
    drop(added, name, key_of)
    drop(removed, name, itself)
    insert(removed, name)
  end
  for _, field in ipairs({ "set", "add" }) do
    for _, header in ipairs(modifier[field] or {}) do
      if field == "set" then drop(added, header.name, key_of) end
      drop(removed, header.name, itself)
      insert(added, { header = { key = header.name, value = header.value }, append = field == "add" })
    end
  end
  headers.requestHeadersToAdd = #added > 0 and added or nil
  headers.requestHeadersToRemove = #removed > 0 and removed or nil
end

-- ---- what Gloo says ---------------------------------------------------------------------------------------------

-- Older versions write numbers.
local STATES = { [0] = "Pending", "Accepted", "Rejected", "Warning" }

local function of_reporter(said)
  local state = STATES[said.state] or said.state
  local words = status.words("state is " .. (state or "not known"), said.reason)
  if state == "Rejected" then return status.refused(words, true) end
  if state == "Accepted" or state == "Warning" then return status.accepted(true) end
  return status.waiting(words)
end

-- One status, or one a reporter.
function gloo.accepted()
  local said = G.obj.status or {}
  local reporters, answers = {}, {}
  for name in pairs(said.statuses or {}) do
    insert(reporters, name)
  end
  sort(reporters)
  for _, name in ipairs(reporters) do
    insert(answers, of_reporter(said.statuses[name]))
  end
  if said.state then insert(answers, of_reporter(said)) end
  return status.worst(answers) or status.unreported()
end
