-- Take n from one limit at once, or nothing (generic cell rate algorithm, ITU-T I.371).
--
-- KEYS: the limit. ARGV: n, its interval (us for each), how early it may be asked (us).
-- Returns 0 where they were taken, else after how many us to ask again; by the server's clock.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local n, interval, early = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
if tat - early > now then
  return math.ceil(tat - early - now)
end
tat = tat + n * interval
redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
return 0
