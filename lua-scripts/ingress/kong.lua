-- Kong Ingress Controller. Lua 5.1, also valid Luau.
-- caps: header,regex,ports,http; accept: A6
-- versions: v1
-- grace: 10
--
-- Returns the annotations of the canary Ingress: an ordinary Ingress with the same hosts and paths that asks for headers,
-- which Kong therefore tries first. Annotations of the stable Ingress (plugins, methods, its own headers) go along.
--
-- All headers of an entry must hold. Several entries are alternatives of one header's exact values.
--
-- Not expressible: shares, paths, query parameters, cookies, alternatives of any other kind, request header changes
-- (a plugin does that), no canary Service.

local GATEWAY = "Kong Ingress"
local PREFIX = "konghq.com/headers."
local SEPARATOR = "konghq.com/headers-separator"

tidegate.need_canary_service(GATEWAY)
if tidegate.modifier() then
  tidegate.refuse(GATEWAY, "requestHeaderModifier", "put a request-transformer plugin on the canary Service")
end
local matches = tidegate.matches()
if matches == nil then
  tidegate.refuse(GATEWAY, "a share of requests", "give the step matches, or route by an HTTPRoute")
end
local annotations = obj.annotations or {}

-- Name, values and kind of every header that is asked for, in order.
local wanted, order = {}, {}
for i, match in ipairs(matches) do
  local at = "matches[" .. i .. "]"
  if match.path then tidegate.refuse(GATEWAY, at .. ".path", "the paths are those of the Ingress") end
  if match.queryParams then tidegate.refuse(GATEWAY, at .. ".queryParams", "match on a header") end
  local headers = match.headers
  if #matches > 1 and (#headers > 1 or headers[1].type == "RegularExpression"
      or (order[1] and not tidegate.same_header(order[1], headers[1].name))) then
    tidegate.refuse(GATEWAY, at, "entries of matches may differ in the exact value of one header only")
  end
  for j, header in ipairs(headers) do
    local at_header = at .. ".headers[" .. j .. "]"
    local name = header.name
    if name == "canary-by-cookie" then tidegate.refuse(GATEWAY, at_header .. ", a cookie", "match on a header") end
    if not string.find(name, "^[%w][%w%-_.]*$") or not string.find(name, "%w$") or #name > 55 then
      tidegate.refuse(GATEWAY, at_header .. ".name", '"' .. name .. '" is no key of an annotation')
    end
    for key in pairs(annotations) do
      if string.sub(key, 1, #PREFIX) == PREFIX and tidegate.same_header(string.sub(key, #PREFIX + 1), name) then
        tidegate.refuse(GATEWAY, at_header, "the Ingress asks for values of this header already")
      end
    end
    local key = tidegate.header_key(wanted, name)
    if key and i == 1 then tidegate.refuse(GATEWAY, at_header, "the header is named twice") end
    if key == nil then
      key = name
      wanted[key] = {}
      order[#order + 1] = key
    end
    table.insert(wanted[key], header.type == "RegularExpression" and "~*" .. header.value or header.value)
  end
end

local separator = annotations[SEPARATOR] or ","
local function is_free(text)
  for _, values in pairs(wanted) do
    for _, value in ipairs(values) do
      if string.find(value, text, 1, true) then return false end
    end
  end
  return true
end
if not is_free(separator) then
  for key in pairs(annotations) do
    if string.sub(key, 1, #PREFIX) == PREFIX then
      tidegate.refuse(GATEWAY, 'a value with "' .. separator .. '"', "it separates values of the Ingress's own headers")
    end
  end
  separator = nil
  for _, text in ipairs({ ";", "|", "||", ";;" }) do
    if separator == nil and is_free(text) then separator = text end
  end
  if separator == nil then tidegate.refuse(GATEWAY, "these values of headers", "no separator is left") end
  annotations[SEPARATOR] = separator
end
for _, name in ipairs(order) do
  annotations[PREFIX .. name] = table.concat(wanted[name], separator)
end
return annotations
