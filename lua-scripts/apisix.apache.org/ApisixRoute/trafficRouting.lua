-- Apache APISIX ApisixRoute.
-- caps: weight,header,query,path,regex,rhm,method,cookie,mirror,ports,several,http; accept: A1
-- versions: v2
--
-- Weight steps split every backend of `http` rules that is the stable Service; other backends and upstreams keep their
-- share. Match steps put copies of each of our rules before it, one for each of the step's matches, with one more
-- priority and the step's conditions among `exprs`. Plugins, such as mirrors and rewrites, go with them. Matches win
-- over a weight. An absent weight is 100.
--
-- A path of a step narrows the rule's paths; where a longer path is another rule's, that rule keeps it. PathPrefix
-- means whole segments, as /api and /api/*. Regular expressions are PCRE and match anywhere in the value. A cookie is
-- a header: name `Cookie`, type RegularExpression. Header changes go into the canary rule's plugin proxy-rewrite.
--
-- Not expressible: shares of `stream` rules; shares beside a plugin traffic-split; header changes in weight steps;
-- one Service for both versions.
--
-- Errors, after the kind and name of the object:
--   no http rule routes to Service "S"
--   every http rule that routes to Service "S" gives it weight 0: there is no share to split
--   ApisixRoute tells versions apart by Service only, and Service "S" is both
--   ApisixRoute cannot express a share of stream[i] | a step beside plugin traffic-split of http rule "R"
--   ApisixRoute cannot express requestHeaderModifier beside a weight | ... beside headers of an older proxy-rewrite
--   ApisixRoute cannot express matches[i].path; a rule of another Service takes some of its requests
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported

local copy, is_empty, refuse = tidegate.copy, tidegate.is_empty, tidegate.refuse
local BACKEND = tidegate.references({ default = 100 }, "serviceName", "servicePort")

local spec = obj.data.spec
local modifier = tidegate.modifier()

local function names_stable(rule) return tidegate.has_stable(rule.backends, BACKEND) end

local function plugin(rule, name)
  for _, entry in ipairs(rule.plugins or {}) do
    if entry.name == name then return entry end
  end
  return nil
end

local function check(rule)
  local own = plugin(rule, "traffic-split")
  if own and own.enable ~= false then
    local at = 'of http rule "' .. rule.name .. '"'
    refuse("ApisixRoute", "a step beside plugin traffic-split " .. at, "write backends instead")
  end
end

-- ---- weights ---------------------------------------------------------------------------------------------------

local function apply_weight(weight)
  for i, rule in ipairs(spec.stream or {}) do
    if rule.backend and BACKEND.is_stable(rule.backend) then
      refuse("ApisixRoute", "a share of stream[" .. i .. "]", "a stream has one backend")
    end
  end
  local lists = {}
  for i, rule in ipairs(spec.http or {}) do
    if names_stable(rule) then
      check(rule)
      local entries = rule.backends
      if rule.upstreams then
        -- They share with the backends.
        entries = {}
        for _, list in ipairs({ rule.backends, rule.upstreams }) do
          for _, entry in ipairs(list) do entries[#entries + 1] = entry end
        end
      end
      lists[#lists + 1] = { entries = entries, rule = rule, before = #entries }
    end
  end
  tidegate.split_lists(lists, weight, BACKEND, "http rule", function(list)
    if list.rule.upstreams then
      for i = list.before + 1, #list.entries do table.insert(list.rule.backends, list.entries[i]) end
    end
  end)
end

-- ---- matches ---------------------------------------------------------------------------------------------------

local function path_of(text)
  if string.sub(text, -1) == "*" then return { prefix = string.sub(text, 1, -2) } end
  return { exact = text }
end

local function text_of(path)
  return path.exact or path.prefix .. "*"
end

-- The step's path in the words of APISIX; nil for every path.
local function step_paths(path)
  if path.exact then return { path } end
  local prefix = string.gsub(path.prefix, "/+$", "")
  if prefix == "" then return nil end
  return { { exact = prefix }, { prefix = prefix .. "/" } }
end

local function same_hosts(a, b)
  local hosts = {}
  for _, host in ipairs(a.match.hosts or {}) do hosts[host] = true end
  for _, host in ipairs(b.match.hosts or {}) do
    if hosts[host] then return true end
  end
  return is_empty(a.match.hosts) or is_empty(b.match.hosts)
end

local function search(rule)
  return {
    rules = spec.http,
    bases = function(other) return same_hosts(rule, other) and other.match.paths or nil end,
    path = path_of,
    asks_more = function(_, other)
      local match = other.match
      return match.filter_func ~= nil or not is_empty(match.exprs) or not is_empty(match.methods)
        or not is_empty(match.remoteAddrs) or not is_empty(match.hosts)
    end,
    is_ours = names_stable,
    gateway = "ApisixRoute",
  }
end

-- The rule's paths that are the step's too.
local function narrowed(rule, wanted, at)
  local how, found = search(rule), {}
  for _, text in ipairs(rule.match.paths or {}) do
    local own = path_of(text)
    for _, step in ipairs(wanted) do
      local both = tidegate.narrow(own, step, "path", at)
      if both and (both == own or not tidegate.path_of_another(both, own, rule, at, how)) then
        found[#found + 1] = text_of(both)
      end
    end
  end
  return tidegate.unique(found)
end

local function combine(_, match, at, rule)
  local result = copy(rule.match)
  local exprs = result.exprs or {}
  if match.path then
    local path = tidegate.path_condition(match.path, at .. ".path")
    local wanted = not path.regex and step_paths(path)
    if path.regex then
      table.insert(exprs, { subject = { scope = "Path" }, op = "RegexMatch", value = path.regex })
    elseif wanted then
      result.paths = narrowed(rule, wanted, at .. ".path")
      if #result.paths == 0 then return nil end
    end
  end
  tidegate.add_conditions(match, at, function(field, entry, wanted)
    table.insert(exprs, {
      subject = { scope = field == "headers" and "Header" or "Query", name = entry.name },
      op = wanted.regex and "RegexMatch" or "Equal",
      value = wanted.regex or wanted.exact,
    })
  end)
  if #exprs > 0 then result.exprs = exprs end
  return result
end

-- Merges the step's header changes into plugin proxy-rewrite; the step wins.
local function modify(rule)
  if not modifier then return end
  local rewrite = plugin(rule, "proxy-rewrite")
  if not rewrite then
    rewrite = { name = "proxy-rewrite", enable = true }
    rule.plugins = rule.plugins or {}
    table.insert(rule.plugins, rewrite)
    if rule.plugin_config_name then
      tidegate.warn("proxy-rewrite of the canary's rule takes the place of that in " .. rule.plugin_config_name)
    end
  end
  rewrite.enable = true
  rewrite.config = rewrite.config or {}
  local headers = rewrite.config.headers or {}
  for key in pairs(headers) do
    if key ~= "set" and key ~= "add" and key ~= "remove" then
      refuse("ApisixRoute", "requestHeaderModifier beside headers of an older proxy-rewrite",
        "put them into headers.set")
    end
  end
  tidegate.modify_header_maps(headers, modifier)
  rewrite.config.headers = headers
end

local function apply_matches(matches)
  local unused_name = tidegate.names_beside(spec.http)
  spec.http = tidegate.fork(spec.http, matches, {
    entries = function(rule) return rule.backends end,
    bases = function() return nil end,
    combine = combine,
    add = function(rule, both, backends, into)
      check(rule)
      for _, match in ipairs(both) do
        local added = copy(rule)
        added.name, added.match, added.priority = unused_name(rule.name), match, (rule.priority or 0) + 1
        added.backends, added.upstreams = copy(backends), nil
        modify(added)
        table.insert(into, added)
      end
    end,
    backend = BACKEND,
    what = "http rule",
  })
end

tidegate.step("ApisixRoute", {
  weight = apply_weight,
  matches = apply_matches,
  refuses = { ["requestHeaderModifier beside a weight"] = "use matches" },
})
return obj.data
