-- Whether the gateways have taken Linkerd's own HTTPRoute.
--
-- As the Gateway API's. Linkerd writes no generation.

return tidegate.gateway_api.accepted()
