-- Fold one batch into an account's health, and open its breaker when that is due.
--
-- KEYS: the account's hash. ARGV: ok, failed, refused, seconds, then the settings:
-- first cool-down (s), longest cool-down (s), error share that opens, fewest messages that open,
-- memory in messages, weight of the newest batch in pace and latency, time to live (s), window of
-- errors (s), messages that a small batch has; then how many messages were rate-limited: those
-- take traffic away as failures do, and say nothing of how fast or how broken the account is; and
-- the fewest messages refused in a row that open.

local key = KEYS[1]
local ok, failed, refused = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local seconds = tonumber(ARGV[4])
local cool_down, longest, opens_at = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local fewest, memory, weight = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local window, small = tonumber(ARGV[12]), tonumber(ARGV[13])
local limited, fewest_refused = tonumber(ARGV[14]), tonumber(ARGV[15])

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local was = redis.call('HMGET', key, 'open_until', 'trips', 'share', 'seen', 'pace', 'latency',
  'lately_ok', 'lately_failed', 'lately_at', 'refused')
local open_until, trips = tonumber(was[1] or 0), tonumber(was[2] or 0)
local share, seen = tonumber(was[3] or 0), tonumber(was[4] or 0)
local pace, latency = tonumber(was[5] or 0), tonumber(was[6] or 0)
-- Counts that fade: what was counted `window` seconds ago weighs 1/e.
local fade = math.exp(-math.max(0, now - tonumber(was[9] or now)) / window)
local lately_ok = tonumber(was[7] or 0) * fade + ok
local lately_failed = tonumber(was[8] or 0) * fade + failed + limited + refused
-- In a row: since it last took as many as it refused. One sender may be refused for a while where
-- others are taken, so it must be about a second's worth of what was taken lately.
local in_a_row = tonumber(was[10] or 0) + refused
if ok > 0 and ok >= refused then
  in_a_row = 0
end
local turned_away = refused > ok and in_a_row >= math.max(fewest_refused, lately_ok / window)

local total = ok + failed
if total > 0 then
  local kept = (1 - 1 / memory) ^ total
  share = share * kept + failed / total * (1 - kept)
  seen = seen + total
end
if ok > 0 and seconds > 0 then
  pace = pace == 0 and ok / seconds or pace + weight * (ok / seconds - pace)
end
if total > 0 and seconds > 0 then
  -- A large batch takes longer than a small one; accounts are compared by small ones.
  local like = seconds * math.min(1, small / (total + limited + refused))
  latency = latency == 0 and like or latency + weight * (like - latency)
end

-- While it is open, batches that had begun before say nothing new.
if now >= open_until then
  local failing = seen >= fewest and share >= opens_at
  local trial_failed = trips > 0 and failed > 0 and ok == 0
  if turned_away or failing or trial_failed then
    open_until = now + math.min(cool_down * 2 ^ trips, longest)
    trips, seen = trips + 1, 0
  elseif ok > failed and trips > 0 then
    trips, share, seen = 0, 0, 0
  end
end

redis.call('HSET', key, 'open_until', string.format('%.6f', open_until), 'trips', trips,
  'share', share, 'seen', seen, 'pace', pace, 'latency', latency, 'lately_ok', lately_ok,
  'lately_failed', lately_failed, 'lately_at', string.format('%.6f', now),
  'refused', in_a_row)
redis.call('EXPIRE', key, ARGV[11])
return 0
