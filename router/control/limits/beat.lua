-- A process says that it lives, and hears how many do.
--
-- KEYS: all that live, and the mark by which a loss of everything shows.
-- ARGV: the process, 1 while it lives and 0 when it leaves, a mark to set where none is. LIFE_US, how long it
-- counts without another beat, stands before this text.
-- Answers how many live, the mark, and the server's time in us.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[2] == '1' then
  redis.call('ZADD', KEYS[1], now + LIFE_US, ARGV[1])
  redis.call('PEXPIRE', KEYS[1], 86400000)
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
-- A clock that went back would keep the dead for long.
for _, late in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + LIFE_US), '+inf')) do
  redis.call('ZADD', KEYS[1], now + LIFE_US, late)
end
local mark = redis.call('GET', KEYS[2])
if not mark then
  mark = ARGV[3]
  redis.call('SET', KEYS[2], mark)
end
redis.call('PEXPIRE', KEYS[2], 86400000)
return { redis.call('ZCARD', KEYS[1]), mark, now }
