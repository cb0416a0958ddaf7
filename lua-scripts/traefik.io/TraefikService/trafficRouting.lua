-- Traefik TraefikService: the weights of `weighted` or `highestRandomWeight`.
-- caps: weight,sticky,ports,several,http; accept: A6
-- versions: v1alpha1
-- grace: 10
--
-- Weight steps split every entry that is the stable Service; other entries, and TraefikServices of its name, keep
-- their share. A sticky cookie of `weighted` keeps known clients at their version, whatever the weights; a service
-- with weight 0 loses its clients. An absent weight is 1.
--
-- Not expressible: matches and header modifiers, which are the IngressRoute's; a share of what `mirroring` or
-- `failover` name; one Service for both versions.
--
-- Errors, after the kind and name of the object:
--   no service of weighted or highestRandomWeight routes to Service "S"
--   every service of weighted or highestRandomWeight that routes to Service "S" gives it weight 0: ...
--   TraefikService tells versions apart by Service only, and Service "S" is both
--   TraefikService cannot express matches | requestHeaderModifier | a share of mirroring | a share of failover

local spec = obj.data.spec

local function apply(weight)
  for _, field in ipairs({ "mirroring", "failover" }) do
    local holder = spec[field]
    if holder and (tidegate.is_service(holder, obj.stableService)
      or tidegate.is_service({ name = holder.service }, obj.stableService)) then
      tidegate.refuse("TraefikService", "a share of " .. field,
        "let it name a TraefikService with weighted services, and reference that one")
    end
  end
  local lists = {}
  for _, field in ipairs({ "weighted", "highestRandomWeight" }) do
    local services = spec[field] and spec[field].services
    if services then lists[#lists + 1] = { entries = services } end
  end
  tidegate.split_lists(lists, weight, tidegate.references({ default = 1 }),
    "service of weighted or highestRandomWeight")
  if spec.weighted and spec.weighted.sticky then
    tidegate.warn("weighted.sticky keeps known clients where they were, whatever the weights")
  end
end

tidegate.step("TraefikService", {
  weight = apply,
  refuses = {
    matches = "reference the IngressRoute that names it",
    requestHeaderModifier = "use a Middleware of the IngressRoute",
  },
})
return obj.data
