-- Whether APISIX has taken an ApisixRoute.
--
-- Condition Accepted for the present generation, which is about the data plane as well (reason SyncFailed). Controllers
-- before 2.0 write ResourcesAvailable instead.

return tidegate.status.conditions((obj.status or {}).conditions, { "Accepted", "ResourcesAvailable" })
