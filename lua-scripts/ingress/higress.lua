-- Higress. Lua 5.1, also valid Luau.
-- caps: weight,header,regex,cookie,rhm,ports,http; accept: A6
-- versions: v1
--
-- Returns the annotations of the canary Ingress. Higress looks at a header, else a cookie, else the share, never at two
-- of them: beside matches the share is left out, as matches win in a Rollout.
--
-- A header named canary-by-cookie stands for a cookie: its value is the cookie's name, and a request is matched when
-- that cookie is "always". Higress makes the expression `always|VALUE` of an exact value, so its special characters are
-- escaped, and `.*PATTERN.*` of a regular expression (RE2), so anchors that this would break are refused. A
-- canary-weight-total is obeyed.
--
-- Not expressible: paths, query parameters, two headers at once, two entries of matches, no canary Service.

local GATEWAY = "Higress"
local PREFIX, OTHER = "nginx.ingress.kubernetes.io/", "higress.io/"

tidegate.need_canary_service(GATEWAY)
local annotations = tidegate.canary_annotations({ PREFIX, OTHER })
annotations[PREFIX .. "canary"] = "true"
tidegate.header_control(GATEWAY, annotations, OTHER .. "request-header-control-")

-- The part of a regular expression that means the same inside `.*PATTERN.*`.
local function inner(pattern, at)
  local result = pattern
  if string.find(result, "^%^%.%*") then result = string.sub(result, 2) end
  if string.find(result, "[^\\]%.%*%$$") then result = string.sub(result, 1, -2) end
  local is_anchored = string.find(result, "^%^") or string.find(result, "[^\\]%$$")
  if is_anchored or (result ~= pattern and string.find(pattern, "|", 1, true)) then
    tidegate.refuse(GATEWAY, at .. ".value", 'it looks for a regular expression anywhere in the header, so "' .. pattern
      .. '" cannot be anchored; match exactly, or on a part')
  end
  return result
end

local condition = tidegate.single_condition(GATEWAY)
local weight = tidegate.weight()
if condition == nil then
  if weight then
    local total = tonumber(annotations[PREFIX .. "canary-weight-total"] or annotations[OTHER .. "canary-weight-total"])
    if total == nil or total <= 0 then total = 100 end
    annotations[PREFIX .. "canary-weight"] = tidegate.share(weight, total)
  end
elseif condition.what == "cookie" then
  annotations[PREFIX .. "canary-by-cookie"] = condition.value
else
  annotations[PREFIX .. "canary-by-header"] = condition.name
  if condition.is_regex then
    annotations[PREFIX .. "canary-by-header-pattern"] = inner(condition.value, condition.at)
  else
    annotations[PREFIX .. "canary-by-header-value"] = tidegate.escape_regex(condition.value)
  end
end
return annotations
