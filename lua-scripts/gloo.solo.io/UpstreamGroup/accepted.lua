-- Whether Gloo has taken an UpstreamGroup.
--
-- The state of every reporter, without a generation. A Warning is configured.

return tidegate.gloo.accepted()
