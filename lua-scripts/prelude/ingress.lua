-- Canary Ingresses: what the scripts of the classes have in common.
local tidegate = ...
local G, ipairs = _G, ipairs
local floor, max, min, format = math.floor, math.max, math.min, string.format
local concat = table.concat
local fail, refuse = tidegate.fail, tidegate.refuse

local CANARY_KEYS = {
  "canary", "canary-by-cookie", "canary-by-cookie-value", "canary-by-header", "canary-by-header-pattern",
  "canary-by-header-value", "canary-by-query", "canary-by-query-pattern", "canary-by-query-value", "canary-weight",
}

-- The annotations that the canary Ingress starts from, without canary annotations of these prefixes.
function tidegate.canary_annotations(prefixes)
  local annotations = G.obj.annotations or {}
  for _, prefix in ipairs(prefixes) do
    for _, key in ipairs(CANARY_KEYS) do annotations[prefix .. key] = nil end
  end
  return annotations
end

-- A share in per cent as text, for a gateway that counts to `total`. Rounding takes no version its last request.
function tidegate.share(weight, total)
  local share = floor(weight * total / 100 + 0.5)
  if weight > 0 then share = max(share, 1) end
  if weight < 100 then share = min(share, max(total - 1, 0)) end
  return format("%d", share)
end

-- The step's matches for a gateway that knows one condition in each: a list of { at, what, name, value, is_regex }, where
-- `what` is header, query (refused without `knows_query`) or cookie, which a header named canary-by-cookie stands for.
function tidegate.single_conditions(gateway, knows_query)
  local conditions = {}
  for i, match in ipairs(tidegate.matches() or {}) do
    local at = "matches[" .. i .. "]"
    if match.path then refuse(gateway, at .. ".path", "the paths are those of the Ingress") end
    if match.queryParams and not knows_query then refuse(gateway, at .. ".queryParams", "match on a header") end
    local headers, query = match.headers or {}, match.queryParams or {}
    if #headers + #query > 1 then
      refuse(gateway, at .. (#headers > 1 and ".headers" or ""), "it knows one condition in each entry of matches")
    end
    local condition = headers[1] or query[1]
    local what = headers[1] and "header" or "query"
    if headers[1] and condition.name == "canary-by-cookie" then what = "cookie" end
    conditions[i] = {
      at = at .. (what == "query" and ".queryParams[1]" or ".headers[1]"),
      what = what,
      name = condition.name,
      value = condition.value,
      is_regex = condition.type == "RegularExpression",
    }
  end
  return conditions
end

-- The same for a gateway that knows one condition at all; nil when the step has no matches.
function tidegate.single_condition(gateway, knows_query)
  local conditions = tidegate.single_conditions(gateway, knows_query)
  if #conditions > 1 then refuse(gateway, "matches[2]", "it knows one condition; keep one entry of matches") end
  return conditions[1]
end

-- Lines that an annotation has already, and these.
function tidegate.more_lines(written, lines)
  if #lines == 0 then return written end
  local text = concat(lines, "\n")
  if written == nil or written == "" then return text end
  return (string.gsub(written, "%s+$", "")) .. "\n" .. text
end

-- Changes of request headers as annotations `<prefix>{update,add,remove}`: a line for each header, its name and value
-- apart by a space, and the names to remove separated by commas.
function tidegate.header_control(gateway, annotations, prefix)
  local modifier = tidegate.modifier()
  if modifier == nil then return end
  for key, list in { update = "set", add = "add" } do
    local lines = {}
    for i, header in ipairs(modifier[list] or {}) do
      if string.find(header.value, "[\r\n]") or string.find(header.value, "^[\"']") then
        refuse(gateway, "requestHeaderModifier." .. list .. "[" .. i .. "].value",
          "a value begins with no quote and has one line")
      end
      lines[#lines + 1] = header.name .. " " .. header.value
    end
    annotations[prefix .. key] = tidegate.more_lines(annotations[prefix .. key], lines)
  end
  if modifier.remove and #modifier.remove > 0 then
    local names = concat(modifier.remove, ",")
    local written = annotations[prefix .. "remove"]
    annotations[prefix .. "remove"] = written and written ~= "" and written .. "," .. names or names
  end
end
