-- Whether NGINX has taken a VirtualServer.
--
-- status.state is Valid, Warning (it is configured, with a word of caution) or Invalid (its host answers 404), and says no
-- generation.

local status = obj.status or {}
if status.state == "Invalid" then
  return tidegate.status.refused(tidegate.status.words("state is Invalid", status.reason, status.message), true)
elseif status.state == "Valid" or status.state == "Warning" then
  return tidegate.status.accepted(true)
end
return tidegate.status.unreported()
