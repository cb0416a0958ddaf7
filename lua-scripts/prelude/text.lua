-- Texts that gateways read: names and regular expressions.
local tidegate = ...
local ipairs = ipairs
local gsub, sub = string.gsub, string.sub
local fail = tidegate.fail

-- Takes every character that means something in RE2, Go's regexp or PCRE for itself.
function tidegate.escape_regex(text)
  return (gsub(text, "[%\\%.%+%*%?%(%)%|%[%]%{%}%^%$]", "\\%0"))
end

-- A regular expression for a gateway that looks for it anywhere in the value.
function tidegate.whole(regex)
  return "^(?:" .. regex .. ")$"
end

-- A function that makes names nothing else has: `<base>-canary`, then `<base>-canary-2` and so on, at most `longest`
-- characters, cut from the base.
function tidegate.names(used, longest)
  return function(base)
    local n = 1
    while true do
      local suffix = n == 1 and "-canary" or "-canary-" .. n
      local head = base
      if longest and #head + #suffix > longest then
        if #suffix >= longest then fail("no name of " .. longest .. " characters is left for a copy of " .. base) end
        head = gsub(sub(head, 1, longest - #suffix), "[-.]+$", "")
      end
      local name = head .. suffix
      if not used[name] then
        used[name] = true
        return name
      end
      n = n + 1
    end
  end
end

-- The same for names beside those of a list of rules.
function tidegate.names_beside(rules, longest)
  local used = {}
  for _, rule in ipairs(rules or {}) do
    if rule.name then used[rule.name] = true end
  end
  return tidegate.names(used, longest)
end
