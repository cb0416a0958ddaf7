-- Gloo Edge UpstreamGroup.
-- caps: weight,rhm,subset,ports,several,http; accept: A3
-- versions: v1
--
-- Weight steps split every destination that is the stable Service, as `kube` or as the Upstream that Gloo makes for it
-- (`<namespace>-<service>-<port>`); others keep their share. Header changes go into the options of the canary's
-- destination. An absent weight is 0. Without a canary Service (stable = canary) the canary's destination has the labels of
-- its pods in `subset`; the destination's own must have one of them, with another value.
--
-- Not expressible: matches, which are the RouteTable's; Upstreams made by hand.
--
-- Errors, after the kind and name of the object:
--   no destination routes to Service "S"
--   every destination that routes to Service "S" gives it weight 0: there is no share to split
--   destinations: the weights sum to 0, which Gloo refuses
--   Gloo cannot express a destination for both versions; its subset must leave out the canary's pods...
--   UpstreamGroup cannot express matches; reference the RouteTable
--   Gloo cannot express upstream N, whose name it shortens; use a kube destination

local function apply(weight)
  local modifier = tidegate.modifier()
  local lists = { { entries = obj.data.spec.destinations or {}, at = "destinations" } }
  tidegate.split_lists(lists, weight, tidegate.gloo.backend(), "destination", function(_, canaries)
    for _, entry in ipairs(canaries) do tidegate.gloo.modify(entry, modifier) end
  end)
end

tidegate.step("UpstreamGroup", {
  weight = apply,
  refuses = { matches = "reference the RouteTable, with the destinations in it" },
  subset = true,
})
return obj.data
