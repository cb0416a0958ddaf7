-- SMI TrafficSplit.
-- caps: weight,several,http,tcp; accept: A6
-- versions: v1alpha4, v1alpha3, v1alpha2, v1alpha1
--
-- Weight steps split the backend that is the stable Service; other backends keep their share. Weights that are
-- quantities of v1alpha1, such as 500m, stay quantities. `matches` of the split stay.
--
-- Not expressible: matches, which are a HTTPRouteGroup's; header modifiers; one Service for both versions.
--
-- Errors, after the kind and name of the object:
--   no backend routes to Service "S"
--   every backend that routes to Service "S" gives it weight 0: there is no share to split
--   backends[i].weight Q is no quantity of whole thousandths
--   TrafficSplit tells versions apart by Service only, and Service "S" is both
--   TrafficSplit cannot express matches | requestHeaderModifier

local backends = obj.data.spec.backends or {}

-- Thousandths of a quantity: "500m", "1", "0.5".
local function thousandths(text, i)
  local number, suffix = string.match(text, "^(%d*%.?%d+)(m?)$")
  local value = tonumber(number)
  if value and suffix == "" then value = value * 1000 end
  if not value or value % 1 ~= 0 then
    tidegate.fail("backends[" .. i .. "].weight " .. text .. " is no quantity of whole thousandths")
  end
  return value
end

local function apply(weight)
  local are_quantities = false
  for _, entry in ipairs(backends) do are_quantities = are_quantities or type(entry.weight) == "string" end
  if are_quantities then
    for i, entry in ipairs(backends) do entry.weight = thousandths(tostring(entry.weight or 0), i) end
  end
  local lists = { { entries = backends } }
  tidegate.split_lists(lists, weight, tidegate.references({ lone = true }, "service"), "backend")
  if are_quantities then
    for _, entry in ipairs(backends) do entry.weight = string.format("%dm", entry.weight) end
  end
end

tidegate.step("TrafficSplit", {
  weight = apply,
  refuses = { matches = "use a weight, or a route of the mesh's own", requestHeaderModifier = "" },
})
return obj.data
