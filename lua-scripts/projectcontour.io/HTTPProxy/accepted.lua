-- Whether Contour has taken an HTTPProxy.
--
-- Condition Valid for the present generation; its errors are named. What no root includes is orphaned, and refused.

local status = obj.status or {}
local valid = {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Valid" then
    local errors = condition.errors or {}
    if errors[1] then condition.message = tidegate.status.words(errors[1].reason, errors[1].message) end
    valid[#valid + 1] = condition
  end
end
return tidegate.status.conditions(valid, { "Valid" })
