-- Open requests are still open: their leases last another while.
--
-- KEYS: slots. ARGV: how long in us, and of each slots how many ids, and these.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lease = tonumber(ARGV[1])
local arg = 2
for _, key in ipairs(KEYS) do
  local last = arg + tonumber(ARGV[arg])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  for i = arg + 1, last do
    redis.call('ZADD', key, now + lease, ARGV[i])
  end
  redis.call('PEXPIRE', key, lease / 1000 + 1000)
  arg = last + 1
end
return 1
