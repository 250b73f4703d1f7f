-- What was reserved becomes what was used, once a reservation; and its leases end.
--
-- KEYS: of each reservation itself, the budgets that move, and its slots.
-- ARGV: of each reservation 1 where it is only given back in case it was taken, else 0; how many budgets, how
-- many slots, and the shift of each budget in us. REMEMBERED_MS, how long a settled id is known, and
-- STEP_US (see admit.lua) stand before.
-- Answers how many reservations were not known. A settled one leaves a mark: settled again it changes
-- nothing, and an admission that arrives after its own settlement takes nothing.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local unknown, key, arg = 0, 1, 1

local function move(bucket, shift)
  local at, full = now, now
  local value = redis.call('GET', bucket)
  if value then
    local tat, seen = tonumber(string.sub(value, 1, 16)), tonumber(string.sub(value, 17))
    if seen > now and seen - now < STEP_US then
      at = seen
    end
    full = at + math.max(0, tat - math.max(at, seen))
  end
  full = full + shift
  if full > at then
    local ms = math.ceil((full - at) / 1000) + 1000
    redis.call('SET', bucket, string.format('%016.0f%016.0f', full, at), 'PX', ms)
  elseif value then
    redis.call('DEL', bucket)
  end
end

while arg < #ARGV do
  local gives_back = ARGV[arg]
  local budgets, slots = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local was = redis.call('GET', KEYS[key])
  if was ~= '' then
    if was then
      for i = 1, budgets do
        move(KEYS[key + i], tonumber(ARGV[arg + 2 + i]))
      end
    elseif gives_back ~= '1' then
      unknown = unknown + 1
    end
    redis.call('SET', KEYS[key], '', 'PX', REMEMBERED_MS)
  end
  for i = 1, slots do
    redis.call('ZREM', KEYS[key + budgets + i], string.match(KEYS[key], ':i:(.+)$'))
  end
  key = key + 1 + budgets + slots
  arg = arg + 3 + budgets
end
return unknown
