-- Gateway API HTTPRoute, also as a mesh route (parentRef Service); one schema in all versions.
-- caps: weight,header,query,path,regex,rhm,method,cookie,mirror,sticky,ports,several,http; accept: A1
-- versions: v1, v1beta1
--
-- Weight steps split every backendRef that is the stable Service; other backends keep their share. Match steps put a
-- canary rule, a copy of its base with narrower matches, right before every rule that routes to the stable Service.
-- Matches win over a weight. Rules without backends, such as redirects, stay as they are.
--
-- A step's match holds together with the rule's own: a path of the step's narrows the rule's by whole path segments,
-- where no other rule has that path already, and a header that both name must be the same. The modifier goes into the canary rule's filters, or in weight steps into
-- those of the canary's backendRef, which not every gateway supports.
-- A cookie is a header: name `Cookie`, type RegularExpression. Sticky sessions keep clients where they were.
-- Regular expressions of headers, parameters and paths mean what the gateway makes of them.
--
-- Not expressible: one Service for both versions; a path that narrows a rule which replaces the prefix that it matched;
-- two conditions on one value of which one is a regular expression.
--
-- Errors, after the kind and name of the object:
--   no rule routes to Service "S"
--   every rule that routes to Service "S" gives it weight 0: there is no share to split
--   HTTPRoute tells versions apart by Service only, and Service "S" is both
--   HTTPRoute takes at most N rules | matches in a rule | matches in all rules together | backendRefs in a rule | ...
--   matches[i] has no condition: every request would go to the canary
--   matches[i] can never hold together with the matches of the rules that route to Service "S"
--   matches[i]... of type T is not supported
--   matches[i]: WHAT is a regular expression in one of the rule and the step and cannot be combined
--   HTTPRoute cannot express matches[i].path beside ReplacePrefixMatch
--   HTTPRoute cannot express matches[i].path; a rule of another Service takes some of its requests by other conditions
--   requestHeaderModifier names header "N" in LIST and LIST

local gateway_api = tidegate.gateway_api
local TYPES = { exact = "Exact", prefix = "PathPrefix", regex = "RegularExpression" }

local PATH = { is_path = true, segments = true }

-- Whether a path that is narrower than its base's was another rule's: a longer path wins, so it must not become a canary
-- rule of this base.
local function belongs_to_another(path, own, rule, at)
  local known = #(own and own.prefix or "/")
  return not path.regex and gateway_api.belongs_to_another(rule, at, function(match)
    local other = tidegate.path_condition(match.path or {}, "rules[].matches[].path")
    local takes = not other.regex and (other.exact or #other.prefix > known)
      and tidegate.narrow(path, other, "path", at, PATH) == path
    if not takes then return nil end
    return not match.method and tidegate.is_empty(match.headers) and tidegate.is_empty(match.queryParams)
  end)
end

local function combine(base, match, at, rule)
  local result = tidegate.copy(base)
  if match.path then
    local step = tidegate.path_condition(match.path, at .. ".path")
    local own = base.path and tidegate.path_condition(base.path, at .. ".path")
    local both = tidegate.narrow(own, step, "path", at, PATH)
    if both == nil then return nil end
    if both ~= own then
      if belongs_to_another(both, own, rule, at .. ".path") then return nil end
      local type, value = next(both)
      if gateway_api.rewrites_prefix(rule) and value ~= "/" then
        tidegate.refuse("HTTPRoute", at .. ".path beside ReplacePrefixMatch", "the part that is replaced would change")
      end
      result.path = { type = TYPES[type], value = value }
    end
  end
  if not gateway_api.add_conditions(result, "headers", match.headers, at, true) then return nil end
  if not gateway_api.add_conditions(result, "queryParams", match.queryParams, at, false) then return nil end
  return result
end

gateway_api.apply(combine)
return obj.data
