-- ALB Ingress of Alibaba Cloud. Lua 5.1, also valid Luau.
-- caps: weight,header,cookie,ports,http; accept: A5
-- versions: v1
--
-- Returns the annotations of the canary Ingress. ALB takes no share beside a header or cookie on one Ingress: beside
-- matches the share is left out, as matches win in a Rollout.
--
-- A header named canary-by-cookie stands for a cookie: its value is the cookie's name, and a request is matched when
-- that cookie is "always".
--
-- Not expressible: paths, query parameters, regular expressions, two headers at once, two entries of matches, request
-- header changes, no canary Service.

local GATEWAY = "ALB Ingress"
local PREFIX = "alb.ingress.kubernetes.io/"

tidegate.need_canary_service(GATEWAY)
if tidegate.modifier() then tidegate.refuse(GATEWAY, "requestHeaderModifier", "remove it") end
local annotations = tidegate.canary_annotations({ PREFIX })
annotations[PREFIX .. "canary"] = "true"
-- Before the stable Ingress, whose order is 10 where none is written.
annotations[PREFIX .. "order"] = "1"

local condition = tidegate.single_condition(GATEWAY)
local weight = tidegate.weight()
if condition == nil then
  if weight then annotations[PREFIX .. "canary-weight"] = tidegate.share(weight, 100) end
elseif condition.is_regex then
  tidegate.refuse(GATEWAY, condition.at .. ".type RegularExpression", "match exactly")
elseif condition.what == "cookie" then
  annotations[PREFIX .. "canary-by-cookie"] = condition.value
else
  annotations[PREFIX .. "canary-by-header"] = condition.name
  annotations[PREFIX .. "canary-by-header-value"] = condition.value
end
return annotations
