-- Gateway API UDPRoute: new connections are split by weight.
-- caps: weight,ports,several,udp; accept: A1
-- versions: v1, v1alpha2
--
-- Weight steps split every backendRef that is the stable Service; other backends keep their share.
--
-- Not expressible: matches and header modifiers, as nothing looks into requests; one Service for both versions.
--
-- Errors, after the kind and name of the object:
--   no rule routes to Service "S"
--   every rule that routes to Service "S" gives it weight 0: there is no share to split
--   UDPRoute tells versions apart by Service only, and Service "S" is both
--   UDPRoute takes at most 16 backendRefs in a rule
--   UDPRoute cannot express matches | requestHeaderModifier

tidegate.gateway_api.apply()
return obj.data
