-- What a gateway says of an object in its status, for accepted.lua.
local tidegate = ...
local G, ipairs, type = _G, ipairs, type

local status = {}
tidegate.status = status

function status.accepted(undated)
  return { verdict = "accepted", undated = undated }
end

function status.waiting(reason)
  return { verdict = "waiting", reason = reason }
end

function status.refused(reason, undated)
  return { verdict = "refused", reason = reason, undated = undated }
end

function status.unreported(reason)
  return { verdict = "unreported", reason = reason or "no controller has reported on it" }
end

-- `what`, and what a condition or state says beside it.
function status.words(what, reason, message)
  for _, word in ipairs({ reason or "", message or "" }) do
    if word ~= "" then what = what .. ": " .. word end
  end
  return what
end

local function find(conditions, kind)
  for _, condition in ipairs(conditions) do
    if condition.type == kind then return condition end
  end
end

-- Judges the conditions of these types that are there; all must be True. A generation of 0 or none is not known.
function status.conditions(conditions, kinds)
  local present, generation = G.obj.metadata.generation, 0
  local refusal, doubt, seen, undated
  for _, kind in ipairs(kinds) do
    local condition = type(conditions) == "table" and find(conditions, kind)
    if condition then
      seen, generation = true, condition.observedGeneration or 0
      local is_undated = generation == 0 or nil
      undated = undated or is_undated
      if generation ~= 0 and generation < present then
        return status.waiting("condition " .. kind .. " is of generation " .. generation .. ", not yet of " .. present)
      elseif condition.status == "False" then
        refusal = refusal
          or status.refused(status.words("condition " .. kind .. " is False", condition.reason, condition.message), is_undated)
      elseif condition.status ~= "True" then
        doubt = doubt
          or status.waiting(status.words("condition " .. kind .. " is Unknown", condition.reason, condition.message))
      end
    end
  end
  if not seen then return status.unreported() end
  return refusal or doubt or status.accepted(undated)
end

local RANK = { accepted = 1, unreported = 2, waiting = 3, refused = 4 }

local function rank(answer)
  return RANK[answer.verdict] + (answer.undated and 0.5 or 0)
end

-- The one that matters of what is said about parts that must all be taken: the worst; nil when there is none.
function status.worst(answers)
  local worst
  for _, answer in ipairs(answers) do
    if not worst or rank(answer) > rank(worst) then worst = answer end
  end
  return worst
end

-- The one that matters of what several controllers say about one part: the best.
function status.best(answers)
  local best
  for _, answer in ipairs(answers) do
    if not best or rank(answer) < rank(best) then best = answer end
  end
  return best
end
