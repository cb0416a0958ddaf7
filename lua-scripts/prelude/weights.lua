-- Weight arithmetic: the canary's part of what the stable Service had, in whole numbers.
local tidegate = ...
local G, ipairs = _G, ipairs
local floor, max, min = math.floor, math.max, math.min
local insert = table.insert
local fail = tidegate.fail

local MOST = 2147483647

local function gcd(a, b)
  while b ~= 0 do a, b = b, a % b end
  return a
end

-- The smallest whole numbers in the ratio of `values`, or multiples of them that sum to `sum` where that is exact;
-- smaller and rounded, but never to nothing, where one would exceed `most` or all together MOST.
local function reduce(values, sum, most)
  local divisor, total, largest = 0, 0, 0
  for _, value in ipairs(values) do divisor = gcd(divisor, value) end
  if divisor == 0 then return end
  for i, value in ipairs(values) do
    values[i] = value / divisor
    total = total + values[i]
    largest = max(largest, values[i])
  end
  local factor = 1
  if sum % total == 0 then factor = sum / total end
  if total * factor > MOST then factor = MOST / total end
  if largest * factor > most then factor = most / largest end
  local at, left = 1, MOST
  for i, value in ipairs(values) do
    values[i] = value > 0 and max(floor(value * factor), 1) or 0
    if values[i] > values[at] then at = i end
    left = left - values[i]
  end
  -- What rounding up to one has taken beyond the largest sum.
  values[at] = values[at] + min(left, 0)
end

-- Scales whole numbers to `sum`, rounding so that the errors do not add up.
local function rescale(list, sum)
  local total, so_far, given = 0, 0, 0
  for _, value in ipairs(list) do total = total + value end
  for i, value in ipairs(list) do
    so_far = so_far + value
    local upto = floor(so_far * sum / total + 0.5)
    list[i], given = upto - given, upto
  end
end

-- The canary's part of each of our shares, as whole numbers: rounded so that the errors do not add up, and neither part
-- of a share of 2 or more to nothing.
local function parts_of(shares, weight)
  local parts, so_far, given = {}, 0, 0
  for i, share in ipairs(shares) do
    so_far = so_far + weight * share / 100
    local part = min(max(floor(so_far + 0.5) - given, 0), share)
    if weight > 0 and weight < 100 and share > 1 then part = min(max(part, 1), share - 1) end
    parts[i], given = part, given + part
  end
  return parts
end

-- Divides relative weights: `shares` are ours, `others` those of other backends. Returns new weights for the stable
-- entries, their canaries, and the others.
local function divide(shares, others, sum, weight, most)
  local ours, exact, has_one = 0, true, false
  for _, share in ipairs(shares) do
    ours = ours + share
    exact = exact and weight * share % 100 == 0
    has_one = has_one or share == 1
  end
  if ours == sum then
    if #shares == 1 or (not exact and sum < 100) then rescale(shares, 100) end
  elseif not exact and (sum < 100 or has_one) then
    -- Numbers too small for per cents: larger ones in exactly the same ratio.
    local values = {}
    for _, share in ipairs(shares) do values[#values + 1] = (100 - weight) * share end
    for _, share in ipairs(shares) do values[#values + 1] = weight * share end
    for _, other in ipairs(others) do values[#values + 1] = 100 * other end
    reduce(values, sum, most)
    local stables, canaries, rest = {}, {}, {}
    for i in ipairs(shares) do stables[i], canaries[i] = values[i], values[#shares + i] end
    for i in ipairs(others) do rest[i] = values[2 * #shares + i] end
    return stables, canaries, rest
  end
  local stables, canaries = {}, parts_of(shares, weight)
  for i, share in ipairs(shares) do stables[i] = share - canaries[i] end
  return stables, canaries, others
end

-- Divides per cents: what a share is made of sums to that share.
local function divide_percent(shares, others, _, weight)
  for _, share in ipairs(shares) do
    if share == 1 and weight > 0 and weight < 100 then
      fail('Service "' .. G.obj.stableService .. '" has 1 per cent of a rule, which cannot be split; give it 2 or more')
    end
  end
  local stables, canaries = {}, {}
  for i, share in ipairs(shares) do
    canaries[i] = parts_of({ share }, weight)[1]
    stables[i] = share - canaries[i]
  end
  return stables, canaries, others
end

-- ---- entries of an object --------------------------------------------------------------------------------------

-- Indexes of the stable entries, and for each the index of its canary where the list has one already.
local function roles_of(entries, backend)
  local is_stable, is_canary, belongs = backend.is_stable, backend.is_canary, backend.belongs
  local stables, twin = {}, {}
  for i, entry in ipairs(entries) do
    if is_stable(entry) then stables[#stables + 1] = i end
  end
  if #stables == 0 then return stables, twin end
  local taken = {}
  for _, i in ipairs(stables) do
    for j, entry in ipairs(entries) do
      if not twin[i] and not taken[j] and is_canary(entry) and (not belongs or belongs(entries[i], entry)) then
        twin[i], taken[j] = j, true
      end
    end
  end
  return stables, twin
end

-- Effective weight of each entry, and their sum.
local function weights_of(entries, backend)
  local field, default = backend.field or "weight", backend.default or 0
  if #entries == 1 and backend.lone then return { 1 }, 1 end
  local weights, sum = {}, 0
  for i, entry in ipairs(entries) do
    weights[i] = entry[field] or default
    sum = sum + weights[i]
  end
  if sum == 0 and backend.zero == "even" then
    for i in ipairs(weights) do weights[i] = 1 end
    sum = #weights
  end
  return weights, sum
end

local function split(entries, weight, backend, at, divided)
  local stables, twin = roles_of(entries, backend)
  if #stables == 0 then return false, nil end
  local field = backend.field or "weight"
  local weights, sum = weights_of(entries, backend)
  if sum == 0 and backend.refuses_zero then
    fail(at .. ": the weights sum to 0, which " .. backend.refuses_zero .. " refuses")
  end

  -- A stable entry owns its share and that of the canary that the original has beside it.
  local sharing, shares, ours = {}, {}, {}
  for _, i in ipairs(stables) do
    local share = weights[i]
    if twin[i] then share = share + weights[twin[i]] end
    if share > 0 then
      sharing[#sharing + 1], shares[#shares + 1] = i, share
      ours[i] = true
      if twin[i] then ours[twin[i]] = true end
    end
  end
  if #sharing == 0 then return true, nil end
  local other_at, others = {}, {}
  for i, entry_weight in ipairs(weights) do
    if not ours[i] and entry_weight > 0 then other_at[#other_at + 1], others[#others + 1] = i, entry_weight end
  end

  local new_stables, new_canaries, new_others =
    divided(shares, others, sum, weight, backend.most or MOST)
  local canaries = {}
  for n, i in ipairs(sharing) do
    local entry = twin[i] and entries[twin[i]]
    if not entry then
      entry = backend.canary(entries[i])
      insert(entries, entry)
    end
    entries[i][field], entry[field] = new_stables[n], new_canaries[n]
    canaries[n] = entry
  end
  for n, i in ipairs(other_at) do
    if entries[i][field] ~= nil or new_others[n] ~= (backend.default or 0) then entries[i][field] = new_others[n] end
  end
  return true, canaries
end

tidegate.gcd, tidegate.rescale, tidegate.reduce = gcd, rescale, function(values, sum, most)
  reduce(values, sum, most or MOST)
end

function tidegate.split(entries, weight, backend, at)
  return split(entries, weight, backend, at, divide)
end

function tidegate.split_percent(entries, weight, backend, at)
  -- A lone entry without a number has everything.
  local field = backend.field or "weight"
  if #entries == 1 and entries[1][field] == nil and backend.is_stable(entries[1]) then entries[1][field] = 100 end
  return split(entries, weight, backend, at, divide_percent)
end

function tidegate.canaries(entries, backend)
  local stables = roles_of(entries, backend)
  if #stables == 0 then return false, nil end
  local field = backend.field or "weight"
  local weights = weights_of(entries, backend)
  local result, shares = {}, {}
  for _, i in ipairs(stables) do
    if weights[i] > 0 then
      result[#result + 1], shares[#shares + 1] = backend.canary(entries[i]), weights[i]
    end
  end
  if #result == 0 then return true, nil end
  if #result == 1 then
    -- Where the API server writes absent numbers, what is written must have one to stay as it is, and the server's own
    -- is as good as an absent one.
    local number = backend.keeps_number and result[1][field]
    result[1][field] = number and (number == backend.default and number or 100) or nil
  else
    rescale(shares, 100)
    for i, entry in ipairs(result) do entry[field] = shares[i] end
  end
  return true, result
end
