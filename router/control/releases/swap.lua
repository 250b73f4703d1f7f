-- KEYS: releases by model, their generations, a model's history, a number that rises with every move.
-- ARGV: model, generation, release, entry, most entries.
-- Stores a release if none is there, or one of the generation before: the new stamp, or 0 if that is not so.
local stored = redis.call('HGET', KEYS[2], ARGV[1])
if stored and tonumber(stored) ~= tonumber(ARGV[2]) - 1 then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('LPUSH', KEYS[3], ARGV[4])
redis.call('LTRIM', KEYS[3], 0, ARGV[5] - 1)
return redis.call('INCR', KEYS[4])
