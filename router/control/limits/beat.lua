-- A process says that it lives, and hears how many do.
--
-- KEYS: all that live, and the mark by which a loss of everything shows.
-- ARGV: the process, how long in us it counts without another beat (0: it leaves), a mark to set where none is.
-- Answers how many live, the mark, and the server's time in us.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local life = tonumber(ARGV[2])
if life > 0 then
  redis.call('ZADD', KEYS[1], now + life, ARGV[1])
  redis.call('PEXPIRE', KEYS[1], 86400000)
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
-- A clock that went back would keep the dead for long.
for _, late in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + 60000000), '+inf')) do
  redis.call('ZADD', KEYS[1], now + 60000000, late)
end
local mark = redis.call('GET', KEYS[2])
if not mark then
  mark = ARGV[3]
  redis.call('SET', KEYS[2], mark)
end
redis.call('PEXPIRE', KEYS[2], 86400000)
return { redis.call('ZCARD', KEYS[1]), mark, now }
