-- Writes the shards of a batch, all of them or none (RELIABILITY R3, R4). See RedisStore.commit.
--
-- KEYS[i]  the cur record of a shard; its other keys begin with the same tag.
-- ARGV[1]  msgpack, for each of KEYS: {expected token, new token, cursor, clock, generation, then flat lists, or false
--          where there is nothing: profiles (key, blob), gone (key), alarms (due, address), silent (address),
--          outbox (record), trim (a number), names (address), members (key, ordinal, bit), taken (field, value),
--          tombstones (hash, value), forgotten (ordinal), receipts (key, value), gone undos (key),
--          undos ({key, values}), how long to keep receipts and undos (ms), undos at most,
--          products (id, value), gone products (id), interest (key, ordinal, bit), how many writes there are with this,
--          lives (text), writes of others on which it stands (cur key, life, number; none in a Cluster)}.
-- Returns  the positions of the refused.
--
-- A script that fails half-way is not rolled back. So everything that can fail is asked before the first write:
-- tokens, and the types of the keys to be written. What may fail besides (no memory, a read-only replica, a full disk)
-- the server asks at the first write only, and that is an HSET, which grows memory. A Cluster's node whose slot is on its
-- way refuses each command that misses a key: two keys that never are make it say so at once. A Cluster's calls have one
-- shard each, so a call with several need not ask.

local CHUNK = 3000 -- Lua's stack takes 8000 values; even, and a multiple of 3

local shards = cmsgpack.unpack(ARGV[1])
local refused, broken = {}, nil

local function ask(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then
    broken = broken or (answer.err .. ' (' .. command .. ' ' .. ... .. ')')
  end
  return answer
end

-- Whether a shard's write is stored still: see ShardState.has.
local function has(key, wanted, number)
  local cur = ask('HMGET', key, 'written', 'lives')
  local last, lives = tonumber(cur[1] or 0), {}
  for life, first in string.gmatch(cur[2] or '', '(%x+):(%d+)') do lives[#lives + 1] = {life, tonumber(first)} end
  for at = #lives, 1, -1 do
    if lives[at][1] == wanted then break end
    last = lives[at][2] - 1
  end
  return number <= last
end

local function stands(said)
  for at = 1, #said, 3 do
    if not has(said[at], said[at + 1], said[at + 2]) then return false end
  end
  return true
end

for i = 1, #KEYS do
  local part = shards[i]
  local stored = ask('HGET', KEYS[i], 'token') or '' -- an error is a table, equal to no token
  if stored == part[1] and part[27] and not stands(part[27]) then
    refused[#refused + 1] = i
    shards[i] = false
  elseif stored == part[1] then
    local tag = string.sub(KEYS[i], 1, -4)
    if #KEYS == 1 then ask('EXISTS', tag .. '~', tag .. '~~') end
    if part[8] or part[9] then ask('ZCARD', tag .. 'tm') end
    if part[10] or part[11] then ask('LLEN', tag .. 'ob') end
    if part[12] or part[16] then ask('LLEN', tag .. 'no') end
    if part[13] then
      for at = 1, #part[13], 3 do ask('STRLEN', part[13][at]) end
    end
    if part[14] then ask('HLEN', tag .. 'taken') end
    if part[15] then ask('HLEN', tag .. 'er') end
    if part[19] then
      for _, undo in ipairs(part[19]) do ask('LLEN', undo[1]) end
    end
    if part[22] or part[23] then ask('HLEN', tag .. 'pr') end
    if part[24] then
      for at = 1, #part[24], 3 do ask('SCARD', part[24][at]) end
    end
  else
    if stored ~= part[2] then refused[#refused + 1] = i end
    shards[i] = false -- another's, or written already by this very call
  end
end

if broken then
  return redis.error_reply(broken)
end
if #refused > 0 then
  return refused -- one shard's part may stand on another's: what went from the one to the other in this batch
end

local call = redis.call

local function write(command, key, values)
  local count = #values
  for first = 1, count, CHUNK do
    call(command, key, unpack(values, first, math.min(first + CHUNK - 1, count)))
  end
end

local function write_keys(command, values)
  local count = #values
  for first = 1, count, CHUNK do
    call(command, unpack(values, first, math.min(first + CHUNK - 1, count)))
  end
end

for i = 1, #KEYS do
  local part = shards[i]
  if part then
    local tag = string.sub(KEYS[i], 1, -4)
    call('HSET', KEYS[i], 'token', part[2], 'cursor', part[3], 'clock', part[4], 'generation', part[5], 'written', part[25])
    if part[26] then call('HSET', KEYS[i], 'lives', part[26]) end
    if part[6] then write_keys('MSET', part[6]) end
    if part[7] then write_keys('DEL', part[7]) end
    if part[8] then write('ZADD', tag .. 'tm', part[8]) end
    if part[9] then write('ZREM', tag .. 'tm', part[9]) end
    if part[11] then call('LTRIM', tag .. 'ob', part[11], -1) end
    if part[10] then write('RPUSH', tag .. 'ob', part[10]) end
    if part[12] then write('RPUSH', tag .. 'no', part[12]) end
    if part[13] then
      local members = part[13]
      for at = 1, #members, 3 do
        call('SETBIT', members[at], members[at + 1], members[at + 2])
      end
    end
    if part[14] then write('HSET', tag .. 'taken', part[14]) end
    if part[15] then write('HSET', tag .. 'er', part[15]) end
    if part[16] then
      for _, ordinal in ipairs(part[16]) do redis.pcall('LSET', tag .. 'no', ordinal, '') end
    end
    if part[17] then
      for at = 1, #part[17], 2 do call('SET', part[17][at], part[17][at + 1], 'PX', part[20], 'NX') end
    end
    if part[18] then write_keys('DEL', part[18]) end
    if part[19] then
      for _, undo in ipairs(part[19]) do
        for _, value in ipairs(undo[2]) do call('LPUSH', undo[1], value) end
        call('LTRIM', undo[1], 0, part[21] - 1)
        call('PEXPIRE', undo[1], part[20])
      end
    end
    if part[22] then write('HSET', tag .. 'pr', part[22]) end
    if part[23] then write('HDEL', tag .. 'pr', part[23]) end
    if part[22] or part[23] then call('HINCRBY', KEYS[i], 'products', 1) end
    if part[24] then
      local interest = part[24]
      for at = 1, #interest, 3 do
        call(interest[at + 2] == 1 and 'SADD' or 'SREM', interest[at], interest[at + 1])
      end
    end
  end
end

return refused
