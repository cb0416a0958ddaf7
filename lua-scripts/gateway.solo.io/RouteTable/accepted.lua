-- Whether Gloo has taken a RouteTable.
--
-- The state of every reporter, without a generation. A Warning is configured.

return tidegate.gloo.accepted()
