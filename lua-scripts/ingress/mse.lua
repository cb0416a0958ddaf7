-- MSE Ingress of Alibaba Cloud. Lua 5.1, also valid Luau.
-- caps: weight,header,query,regex,cookie,rhm,subset,ports,http; accept: A5
-- versions: v1
--
-- Returns the annotations of the canary Ingress. MSE looks at a header or query parameter, else a cookie, else the share;
-- a share beside matches is written, as by the original controller, and not looked at.
--
-- A header named canary-by-cookie stands for a cookie: its value is the cookie's name, and a request is matched when
-- that cookie is "always". What MSE has beside ingress-nginx it reads under its own prefix alone.
--
-- mse.ingress.kubernetes.io/service-subset, where the stable Ingress has it, becomes "gray". Without a canary Service
-- it must be there: nothing else tells the versions apart.
--
-- Not expressible: paths, two conditions at once, two entries of matches.

local GATEWAY = "MSE Ingress"
local PREFIX, OWN = "nginx.ingress.kubernetes.io/", "mse.ingress.kubernetes.io/"
local SUBSET = OWN .. "service-subset"

local annotations = tidegate.canary_annotations({ PREFIX, OWN })
annotations[PREFIX .. "canary"] = "true"
if annotations[SUBSET] then
  annotations[SUBSET] = "gray"
elseif tidegate.is_one_service() then
  tidegate.fail(GATEWAY .. " tells versions of one Service apart by annotation " .. SUBSET
    .. "; put it on the Ingress, or let the controller make the canary Service")
end
tidegate.header_control(GATEWAY, annotations, OWN .. "request-header-control-")

local weight = tidegate.weight()
if weight then
  local total = tonumber(annotations[PREFIX .. "canary-weight-total"] or annotations[OWN .. "canary-weight-total"])
  if total == nil or total <= 0 then total = 100 end
  annotations[PREFIX .. "canary-weight"] = tidegate.share(weight, total)
end

local condition = tidegate.single_condition(GATEWAY, true)
if condition and condition.what == "cookie" then
  annotations[PREFIX .. "canary-by-cookie"] = condition.value
elseif condition then
  local key = (condition.what == "query" and OWN or PREFIX) .. "canary-by-" .. condition.what
  annotations[key] = condition.name
  annotations[key .. (condition.is_regex and "-pattern" or "-value")] = condition.value
end
return annotations
