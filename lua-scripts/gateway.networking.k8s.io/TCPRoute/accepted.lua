-- Whether the gateways have taken a TCPRoute.
--
-- Every parentRef needs an entry in status.parents with Accepted, ResolvedRefs and, where there is one, Programmed True for
-- the present generation, and no PartiallyInvalid.

return tidegate.gateway_api.accepted()
