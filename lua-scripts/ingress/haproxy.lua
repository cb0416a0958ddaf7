-- HAProxy Ingress (haproxy-ingress.github.io), 0.15 and later; request header changes need 0.17. Lua 5.1, also valid
-- Luau.
-- caps: header,regex,rhm,ports,http; accept: A6
-- versions: v1
-- grace: 10
--
-- Returns the annotations of the canary Ingress: an ordinary Ingress with the same hosts and paths that asks for headers.
-- What the stable Ingress asks for itself is asked for as well. Regular expressions match any part of the value.
--
-- Not expressible: shares (class haproxy-pods divides the pods of one Service by label), paths,
-- query parameters, cookies, two entries of matches, no canary Service.

local GATEWAY = "HAProxy Ingress"
local PREFIX, OTHER = "haproxy-ingress.github.io/", "ingress.kubernetes.io/"

tidegate.need_canary_service(GATEWAY)
local matches = tidegate.matches()
if matches == nil then
  tidegate.refuse(GATEWAY, "a share of requests", "give the step matches, or use class haproxy-pods")
end
if #matches > 1 then
  tidegate.refuse(GATEWAY, "matches[2]", "all that it is asked for must hold; keep one entry of matches")
end
local match = matches[1]
if match.path then tidegate.refuse(GATEWAY, "matches[1].path", "the paths are those of the Ingress") end
if match.queryParams then tidegate.refuse(GATEWAY, "matches[1].queryParams", "match on a header") end

-- Adds lines to what the Ingress says under either prefix.
local annotations = obj.annotations or {}
local function add(key, lines)
  if #lines == 0 then return end
  local written = annotations[PREFIX .. key] or annotations[OTHER .. key]
  annotations[OTHER .. key] = nil
  annotations[PREFIX .. key] = tidegate.more_lines(written, lines)
end

local function line(header, at)
  if string.find(header.value, "[\r\n]") then tidegate.refuse(GATEWAY, at .. ".value", "it must be one line") end
  return header.name .. ": " .. header.value
end

local exact, regex = {}, {}
for i, header in ipairs(match.headers) do
  local at = "matches[1].headers[" .. i .. "]"
  if header.name == "canary-by-cookie" then tidegate.refuse(GATEWAY, at .. ", a cookie", "match on a header") end
  local list = header.type == "RegularExpression" and regex or exact
  list[#list + 1] = line(header, at)
end
add("http-header-match", exact)
add("http-header-match-regex", regex)

local modifier = tidegate.modifier() or {}
for _, operation in ipairs({ "set", "add" }) do
  local lines = {}
  for i, header in ipairs(modifier[operation] or {}) do
    lines[i] = line(header, "requestHeaderModifier." .. operation .. "[" .. i .. "]")
  end
  add("request-" .. operation .. "-headers", lines)
end
if not tidegate.is_empty(modifier.remove) then
  local written = annotations[PREFIX .. "request-del-headers"] or annotations[OTHER .. "request-del-headers"]
  annotations[OTHER .. "request-del-headers"] = nil
  local names = table.concat(modifier.remove, ",")
  annotations[PREFIX .. "request-del-headers"] = written and written .. "," .. names or names
end
return annotations
