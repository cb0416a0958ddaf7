-- Traefik IngressRoute, rules in the syntax of Traefik 3.
-- caps: weight,header,query,path,regex,method,cookie,mirror,sticky,ports,several,http; accept: A6
-- versions: v1alpha1
-- grace: 10
--
-- Weight steps split every service of a route that is the stable Service; other services, and TraefikServices of its
-- name, keep their share. Match steps put a copy of each of our routes before it, whose rule is the route's own AND the
-- step's, and which goes to the canary alone. Middlewares, such as retries, rewrites and mirrors by plugin, go with it.
-- Matches win over a weight. An absent weight is 1.
--
-- Traefik takes the matching route of the highest priority, which is the length of the rule where none is given. The
-- canary's route gets the priority next above its base's, so that it takes no request of a longer rule.
-- Paths: PathPrefix means whole segments, as /api and /api/; the path of a step narrows the route's rule.
-- Regular expressions are Go's and match anywhere in the value. A cookie is a header: name `Cookie`, RegularExpression.
-- Stickiness of a service pins clients to its pods, not to a version: that takes a TraefikService.
--
-- Not expressible: header modifiers; matches beside rules of Traefik 2; one Service for both versions. Whether a step's
-- match and a route's rule ever hold together is not looked at.
--
-- Errors, after the kind and name of the object:
--   no route routes to Service "S"
--   every route that routes to Service "S" gives it weight 0: there is no share to split
--   IngressRoute tells versions apart by Service only, and Service "S" is both
--   IngressRoute cannot express requestHeaderModifier | matches beside rules of Traefik 2 (RULE)
--   matches[i] has no condition: every request would go to the canary
--   matches[i]... of type T is not supported

local BACKEND = tidegate.references({ default = 1 })

local spec = obj.data.spec

-- A text as Traefik reads it.
local function quoted(text)
  if not string.find(text, "`", 1, true) then return "`" .. text .. "`" end
  return '"' .. string.gsub(text, '[\\"]', "\\%0") .. '"'
end

local function call(matcher, ...)
  local arguments = { ... }
  for i, text in ipairs(arguments) do arguments[i] = quoted(text) end
  return matcher .. "(" .. table.concat(arguments, ", ") .. ")"
end

local function path_rule(path, at)
  local wanted = tidegate.path_condition(path, at)
  if wanted.exact then return call("Path", wanted.exact) end
  if wanted.regex then return call("PathRegexp", wanted.regex) end
  local prefix = string.gsub(wanted.prefix, "/+$", "")
  if prefix == "" then return call("PathPrefix", "/") end
  return "(" .. call("Path", prefix) .. " || " .. call("PathPrefix", prefix .. "/") .. ")"
end

local function rule_of(match, at)
  local conditions = {}
  if match.path then conditions[1] = path_rule(match.path, at .. ".path") end
  tidegate.add_conditions(match, at, function(field, entry, wanted)
    local matcher = (field == "headers" and "Header" or "Query") .. (wanted.regex and "Regexp" or "")
    table.insert(conditions, call(matcher, entry.name, wanted.regex or wanted.exact))
  end)
  return table.concat(conditions, " && "), #conditions
end

-- The step's matches as one rule.
local function alternatives(matches)
  local rules = {}
  for i, match in ipairs(matches) do
    local rule, count = rule_of(match, "matches[" .. i .. "]")
    rules[i] = count > 1 and #matches > 1 and "(" .. rule .. ")" or rule
  end
  return "(" .. table.concat(tidegate.unique(rules), " || ") .. ")"
end

local function is_of_traefik_2(route)
  return route.syntax == "v2" or string.find(route.match or "", "Headers%(") ~= nil
    or string.find(route.match or "", "HeadersRegexp%(") ~= nil
end

local function priority_of(route)
  local given = route.priority or 0
  return given ~= 0 and given or #(route.match or "")
end

-- The priority next above a route's.
local function priority_above(route)
  local priority = priority_of(route) + 1
  -- 0 stands for the length of the rule.
  if priority == 0 then priority = 1 end
  for i, other in ipairs(spec.routes) do
    if priority_of(other) == priority and not tidegate.has_stable(other.services, BACKEND) then
      tidegate.warn("routes[" .. i .. "] has priority " .. priority
        .. " as the canary's route; give priorities if both match")
    end
  end
  return priority
end

local function apply_weight(weight)
  local lists = {}
  for _, route in ipairs(spec.routes or {}) do
    if route.services then lists[#lists + 1] = { entries = route.services } end
  end
  tidegate.split_lists(lists, weight, BACKEND, "route")
end

local function apply_matches(matches)
  local asked = alternatives(matches)
  spec.routes = tidegate.fork(spec.routes, matches, {
    entries = function(route) return route.services end,
    bases = function() return nil end,
    combine = function(base) return base end,
    add = function(route, _, services, into)
      if is_of_traefik_2(route) then
        tidegate.refuse("IngressRoute", "matches beside rules of Traefik 2 (" .. route.match .. ")",
          "write them for Traefik 3")
      end
      local added = tidegate.copy(route)
      added.match = route.match and "(" .. route.match .. ") && " .. asked or asked
      added.priority = priority_above(route)
      added.services = services
      table.insert(into, added)
    end,
    backend = BACKEND,
    what = "route",
  })
end

tidegate.step("IngressRoute", {
  weight = apply_weight,
  matches = apply_matches,
  refuses = { requestHeaderModifier = "name a Middleware in the route" },
})
return obj.data
