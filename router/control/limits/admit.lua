-- Everything or nothing, as `policies.limits.gcra.decide` has it, on the server's clock.
--
-- KEYS: the reservation, the budgets, the slots.
-- ARGV: what to do (admit, force or look), how many budgets, the cost and the window of each in us, and the
-- bound of each slots. LIFE_MS of a reservation, LEASE_US, STEP_US and SEQUENCED stand before this text.
-- Answers refused, wait, server time, sequence number, the backlog of each budget, the holders of each slots;
-- or {-2} for an id that is settled already.
--
-- A bucket is two numbers of 16 digits: when it will be full, and the clock when that was written. Where the
-- clock stands before that by less than STEP_US, it stands still for this bucket until it has caught up. Where by
-- more it was set back, and the bucket counts as it stood then: nobody waits longer than it takes to fill. A
-- clock that goes ahead fills each bucket once at most.
local mode, budgets = ARGV[1], tonumber(ARGV[2])
local slots = #KEYS - 1 - budgets
local values = redis.call('MGET', unpack(KEYS, 1, budgets + 1))
if values[1] and mode ~= 'look' then
  if values[1] == '' then
    return { -2 }
  end
  return cmsgpack.unpack(values[1])
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function write(key, backlog, at)
  local value = string.format('%016.0f%016.0f', at + backlog, at)
  redis.call('SET', key, value, 'PX', math.ceil(backlog / 1000) + 1000)
end

local refused, wait = -1, 0
local backlogs, costs, clocks, held = {}, {}, {}, {}
for i = 1, budgets do
  local cost, window = tonumber(ARGV[1 + 2 * i]), tonumber(ARGV[2 + 2 * i])
  local backlog, at = 0, now
  local value = values[i + 1]
  if value then
    local seen = tonumber(string.sub(value, 17))
    backlog = math.max(0, tonumber(string.sub(value, 1, 16)) - math.max(now, seen))
    if seen > now and seen - now < STEP_US then
      at = seen
    elseif seen > now and mode ~= 'look' then
      write(KEYS[i + 1], backlog, now)
    end
  end
  if backlog + cost - window > wait then
    refused, wait = i - 1, backlog + cost - window
  end
  backlogs[i], costs[i], clocks[i] = backlog, cost, at
end
for i = 1, slots do
  local key, most = KEYS[1 + budgets + i], tonumber(ARGV[2 + 2 * budgets + i])
  if mode == 'look' then
    held[i] = redis.call('ZCOUNT', key, string.format('(%.0f', now), '+inf')
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    held[i] = redis.call('ZCARD', key)
  end
  if held[i] >= most and refused < 0 then
    refused = budgets + i - 1
  end
  if held[i] >= most and mode ~= 'look' then
    -- Full of leases that a clock ahead of this one has written? They end when they would have.
    for _, late in ipairs(redis.call('ZRANGEBYSCORE', key, string.format('(%.0f', now + LEASE_US), '+inf')) do
      redis.call('ZADD', key, now + LEASE_US, late)
    end
  end
end
if mode == 'force' then
  refused, wait = -1, 0
end

if refused < 0 then
  for i = 1, budgets do
    backlogs[i] = backlogs[i] + costs[i]
    if costs[i] > 0 and mode ~= 'look' then
      write(KEYS[i + 1], backlogs[i], clocks[i])
    end
  end
  for i = 1, slots do
    held[i] = held[i] + 1
    if mode ~= 'look' then
      local key = KEYS[1 + budgets + i]
      redis.call('ZADD', key, now + LEASE_US, string.match(KEYS[1], ':i:(.+)$'))
      redis.call('PEXPIRE', key, LEASE_US / 1000 + 1000)
    end
  end
end

local sequence = 0
if SEQUENCED then
  local key = string.match(KEYS[1], '^.-}') .. ':seq'
  sequence = redis.call('INCR', key)
  redis.call('PEXPIRE', key, 86400000)
end
local answer = { refused, wait, now, sequence }
for i = 1, budgets do
  answer[4 + i] = backlogs[i]
end
for i = 1, slots do
  answer[4 + budgets + i] = held[i]
end
if refused < 0 and mode ~= 'look' then
  redis.call('SET', KEYS[1], cmsgpack.pack(answer), 'PX', LIFE_MS)
end
return answer
