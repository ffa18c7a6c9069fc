-- Reserve paced permits over several keys at once (generic cell rate algorithm, ITU-T I.371).
--
-- KEYS: one key per limit. ARGV: n, max_wait (us), then one interval (us per message) per key.
-- Returns {now, retry_after, slot, slot, ...}: now in us of the server's clock, the others in us
-- from now.
--
-- A key's state is its TAT (theoretical arrival time: from here on everything is free) and the
-- free gaps before it. Gaps arise where a slow key spaces its messages wider than a fast key needs;
-- without them one slow sender would use up the whole account. A slot at t takes [t, t + interval)
-- of every key or of none, so messages of a key are never closer than its interval.
--
-- An interval may change from one call to the next: an operator has set another limit. No slot is
-- granted beyond the horizon, so a TAT beyond it by more than the interval of now comes of a longer
-- one, and is brought back: what was slow a moment ago need not wait for slots of that time.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local wanted, horizon = tonumber(ARGV[1]), now + tonumber(ARGV[2])

local function load(name, interval)
  local key = {name = name, interval = interval, tat = now, starts = {}, ends = {}, at = 1}
  local packed = redis.call('GET', name)
  if packed then
    local state = cmsgpack.unpack(packed)
    key.tat = math.min(math.max(state[1], now), horizon + interval)
    for i = 2, #state, 2 do
      local from = math.max(state[i], now)
      if state[i + 1] - from >= interval - 1 then
        key.starts[#key.starts + 1], key.ends[#key.ends + 1] = from, state[i + 1]
      end
    end
  end
  return key
end

-- The earliest time >= t with room for one message. t only grows, so a gap passed by is passed by.
local function room(key, t)
  while key.at <= #key.starts do
    local from = math.max(key.starts[key.at], t)
    if key.ends[key.at] - from >= key.interval - 1 then
      return from
    end
    key.at = key.at + 1
  end
  return math.max(key.tat, t)
end

local function take(key, t)
  local i = key.at
  if i > #key.starts then
    if t - key.tat >= key.interval then
      key.starts[i], key.ends[i] = key.tat, t
      key.at = i + 1
    end
    key.tat = t + key.interval
  elseif t - key.starts[i] >= key.interval then
    table.insert(key.starts, i, key.starts[i])
    table.insert(key.ends, i, t)
    key.at = i + 1
    key.starts[i + 1] = t + key.interval
  else
    key.starts[i] = t + key.interval
  end
end

local keys = {}
for i, name in ipairs(KEYS) do
  keys[i] = load(name, tonumber(ARGV[i + 2]))
end

-- One time at which every key has room.
local function slot(t)
  local from
  repeat
    from = t
    for _, key in ipairs(keys) do
      t = room(key, t)
    end
  until t == from
  return t
end

local reply = {now, 0}
local t = slot(now)
while #reply - 2 < wanted and t <= horizon do
  for _, key in ipairs(keys) do
    take(key, t)
  end
  reply[#reply + 1] = math.ceil(t - now)
  t = slot(t)
end
reply[2] = math.ceil(t - now)

for _, key in ipairs(keys) do
  local state = {key.tat}
  for i = 1, #key.starts do
    state[#state + 1], state[#state + 2] = key.starts[i], key.ends[i]
  end
  if key.tat > now then
    redis.call('SET', key.name, cmsgpack.pack(state), 'PX', math.ceil((key.tat - now) / 1000) + 1)
  end
end
return reply
