-- Whether Consul has taken a ServiceSplitter: condition Synced, which says no generation.

return tidegate.status.conditions((obj.status or {}).conditions, { "Synced" })
