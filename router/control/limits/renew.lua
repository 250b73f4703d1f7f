-- Open requests are still open: their leases last another while.
--
-- KEYS: slots. ARGV: of each how many ids, and these. LEASE_US stands before this text.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arg = 1
for _, key in ipairs(KEYS) do
  local last = arg + tonumber(ARGV[arg])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  for i = arg + 1, last do
    redis.call('ZADD', key, now + LEASE_US, ARGV[i])
  end
  redis.call('PEXPIRE', key, LEASE_US / 1000 + 1000)
  arg = last + 1
end
return 1
