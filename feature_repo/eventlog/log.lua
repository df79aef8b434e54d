-- Functions of the scripts that append to partitions or count entries. An entry's n continues also where the
-- newest entries were trimmed away, and arrival never goes back, whatever the clock does.
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local known = {}
local function parse(id)
  local ms, n = string.match(id, '(%d+)-(%d+)')
  return {tonumber(ms), tonumber(n)}
end
local function about(key)
  if not known[key] then
    local found = {newest = {0, 0}, before = 0}
    if redis.call('EXISTS', key) == 1 then
      local info = redis.call('XINFO', 'STREAM', key)
      for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then found.newest = parse(info[i + 1]) end
        if info[i] == 'first-entry' and info[i + 1] then found.first = parse(info[i + 1][1]) end
      end
      found.before = found.first and found.first[2] - 1 or found.newest[2]
    end
    known[key] = found
  end
  return known[key]
end
local function append(key, ...)
  local last = about(key).newest
  last[1], last[2] = math.max(last[1], now_ms), last[2] + 1
  return redis.call('XADD', key, string.format('%.0f-%.0f', last[1], last[2]), ...)
end
local function behind(key, applied)
  local found = about(key)
  local done = applied and math.max(parse(applied)[2], found.before) or found.before
  return math.max(found.newest[2] - done, 0)
end
local function waiting_beyond(limit, partitions, groups)
  if limit < 0 then return nil end
  for _, group in ipairs(groups) do
    local total = 0
    for p = 0, partitions - 1 do
      total = total + behind(KEYS[p + 2], redis.call('HGET', KEYS[1], group .. ':' .. p))
    end
    if total > limit then return total end
  end
end
