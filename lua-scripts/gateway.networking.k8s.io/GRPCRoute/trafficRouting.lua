-- Gateway API GRPCRoute, also as a mesh route (parentRef Service).
-- caps: weight,header,path,regex,rhm,method,cookie,mirror,sticky,ports,several,grpc; accept: A1
-- versions: v1
--
-- Weight steps split every backendRef that is the stable Service; other backends keep their share. Match steps put a
-- canary rule, a copy of its base with narrower matches, right before every rule that routes to the stable Service.
-- Matches win over a weight.
--
-- A path is a service and method: Exact /package.Service/Method, or PathPrefix /package.Service for all of its methods. It
-- goes beside the rules that have no other one for it.
-- Headers are metadata. The modifier goes into the canary rule's filters, or in weight steps into those of the canary's
-- backendRef, which not every gateway supports.
--
-- Not expressible: one Service for both versions; query parameters; paths that are no service and method; two
-- conditions on one value of which one is a regular expression.
--
-- Errors, after the kind and name of the object:
--   no rule routes to Service "S"
--   every rule that routes to Service "S" gives it weight 0: there is no share to split
--   GRPCRoute tells versions apart by Service only, and Service "S" is both
--   GRPCRoute takes at most N rules | matches in a rule | matches in all rules together | backendRefs in a rule | ...
--   GRPCRoute cannot express matches[i].queryParams | matches[i].path of type T | matches[i].path "P"
--   GRPCRoute cannot express matches[i].path; a rule of another Service takes some of its requests by other conditions
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported
--   matches[i]: WHAT is a regular expression in one of the rule and the step and cannot be combined
--   requestHeaderModifier names header "N" in LIST and LIST

local PATHS = "use Exact /package.Service/Method, or PathPrefix /package.Service"

-- Service and method of a path; neither for the prefix of all paths.
local function called(path, at)
  local kind, value = path.type or "PathPrefix", path.value or "/"
  if kind ~= "Exact" and kind ~= "PathPrefix" then tidegate.refuse("GRPCRoute", at .. " of type " .. kind, PATHS) end
  if kind == "PathPrefix" and value == "/" then return nil, nil end
  local service, method = string.match(value, "^/([^/]+)/([^/]+)$")
  if not service and kind == "PathPrefix" then service = string.match(value, "^/([^/]+)/?$") end
  if not service then tidegate.refuse("GRPCRoute", at .. ' "' .. value .. '"', PATHS) end
  return service, method
end

-- How specific a rule's method is, as the Gateway API compares them.
local function rank(method)
  return (method.service and 2 or 0) + (method.method and 1 or 0)
end

-- Whether a call that is narrower than its base's was another rule's, which is more specific.
local function belongs_to_another(call, own, rule, at)
  local known = rank(own)
  return tidegate.gateway_api.belongs_to_another(rule, at, function(match)
    local other = match.method or {}
    local takes = other.type ~= "RegularExpression" and rank(other) > known
      and (other.service or call.service) == call.service and (other.method or call.method) == call.method
    if not takes then return nil end
    return tidegate.is_empty(match.headers)
  end)
end

local function combine(base, match, at, rule)
  if not tidegate.is_empty(match.queryParams) then
    tidegate.refuse("GRPCRoute", at .. ".queryParams", "gRPC has none; use headers")
  end
  local result = tidegate.copy(base)
  if match.path then
    local service, method = called(match.path, at .. ".path")
    local own = result.method or {}
    local before = tidegate.copy(own)
    if service and own.type == "RegularExpression" then
      tidegate.fail(at .. ": method is a regular expression in one of the rule and the step and cannot be combined")
    end
    if service and own.service and own.service ~= service then return nil end
    if method and own.method and own.method ~= method then return nil end
    if service then
      own.type, own.service, own.method = own.type or "Exact", service, method or own.method
      result.method = own
      if rank(own) > rank(before) and belongs_to_another(own, before, rule, at .. ".path") then return nil end
    end
  end
  if not tidegate.gateway_api.add_conditions(result, "headers", match.headers, at, true) then return nil end
  return result
end

tidegate.gateway_api.apply(combine)
return obj.data
