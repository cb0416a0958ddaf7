-- ingress-nginx, and gateways that read its canary annotations, such as Traefik's kubernetesIngressNGINX provider.
-- Lua 5.1, also valid Luau.
-- caps: weight,header,regex,cookie,both,ports,http; accept: A4
-- versions: v1
-- grace: 10
-- ingress: default-backend
--
-- Returns the annotations of the canary Ingress. Rewrites, timeouts and everything else come from the stable Ingress,
-- whatever the canary's say. A step with matches and a share gets both: matched requests go to the canary, and of the
-- others the share.
--
-- A header named canary-by-cookie stands for a cookie: its value is the cookie's name, and a request is matched when
-- that cookie is "always". One header entry and one such cookie entry may stand side by side. Regular expressions are
-- PCRE and match any part of the value. With canary-weight-total above 100 the share is scaled to it.
--
-- Refused: classes of gateways that would not read these annotations, as far as IngressClass tells.
-- Not expressible: paths, query parameters, two headers at once, request header changes, no canary Service.

local GATEWAY = "ingress-nginx"
local PREFIX = "nginx.ingress.kubernetes.io/"

-- Gateways that take an Ingress of class nginx or have ingress-nginx's name in their documents, and read no canary
-- annotations: the canary Ingress would compete with the stable one.
local OTHERS = {
  ["nginx.org/ingress-controller"] = "NGINX Ingress Controller of F5; route by a VirtualServer",
  ["traefik.io/ingress-controller"] = "Traefik's Ingress provider; use its kubernetesIngressNGINX provider, or an HTTPRoute",
}
if OTHERS[obj.controller or ""] then
  tidegate.fail("its class is not ingress-nginx's but that of " .. OTHERS[obj.controller])
end

tidegate.need_canary_service(GATEWAY)
if tidegate.modifier() then tidegate.refuse(GATEWAY, "requestHeaderModifier", "remove it") end
local annotations = tidegate.canary_annotations({ PREFIX })
annotations[PREFIX .. "canary"] = "true"

local weight = tidegate.weight()
if weight then
  -- A total below 100 counts as 100.
  local total = math.max(tonumber(annotations[PREFIX .. "canary-weight-total"]) or 100, 100)
  annotations[PREFIX .. "canary-weight"] = tidegate.share(weight, total)
end

local taken = {}
for _, condition in ipairs(tidegate.single_conditions(GATEWAY)) do
  local what = condition.what
  if taken[what] then
    tidegate.refuse(GATEWAY, condition.at, "it knows one " .. what .. ", and " .. taken[what] .. " is one already")
  end
  taken[what] = condition.at
  if what == "cookie" then
    annotations[PREFIX .. "canary-by-cookie"] = condition.value
  else
    annotations[PREFIX .. "canary-by-header"] = condition.name
    annotations[PREFIX .. "canary-by-header-" .. (condition.is_regex and "pattern" or "value")] = condition.value
  end
end
return annotations
