-- Server side of stream_app: claims, fenced commits and public records, each one atomic call.
-- Loaded as a Redis Function library; @LIBRARY@ is the name with a digest of this text, so that
-- workers of different releases can share a server: none replaces what another one calls.
-- Works on Redis 7+ and Valkey 7.2+; every key is declared, so each call stays inside one slot.

local PAIRS_MAX = 2000 -- per redis.call: Lua's unpack has a stack limit near 8,000 values

-- One command for many keys costs half of one command for each, but only Redis 8.4+ and Valkey 9.1+
-- can set many keys that expire. Learned at the first call, because loading a library calls nothing.
local has_msetex = true

local function set_expiring(pairs_, n, ttl_ms)
  if has_msetex then
    pairs_[n + 1], pairs_[n + 2] = 'PX', ttl_ms
    local reply = redis.pcall('MSETEX', n / 2, unpack(pairs_, 1, n + 2))
    if type(reply) ~= 'table' or not reply.err then
      return
    end
    has_msetex = not string.find(reply.err, 'nknown') -- any other error, SET will raise again
  end
  for i = 1, n, 2 do
    redis.call('SET', pairs_[i], pairs_[i + 1], 'PX', ttl_ms)
  end
end

local function set_pairs(pairs_, n, ttl_ms)
  if n > 0 and ttl_ms ~= '' then
    set_expiring(pairs_, n, ttl_ms)
  elseif n > 0 then
    redis.call('MSET', unpack(pairs_, 1, n))
  end
end

-- Set the distinct keys[first_key..] to args[first_arg..]; '' deletes. ttl_ms '' means "for ever".
local function write_all(keys, first_key, args, first_arg, ttl_ms)
  local offset, pairs_, n = first_arg - first_key, {}, 0
  for i = first_key, #keys do
    local value = args[i + offset]
    if value == '' then
      redis.call('DEL', keys[i])
    else
      pairs_[n + 1], pairs_[n + 2] = keys[i], value
      n = n + 2
      if n == 2 * PAIRS_MAX then
        set_pairs(pairs_, n, ttl_ms)
        n = 0
      end
    end
  end
  set_pairs(pairs_, n, ttl_ms)
end

-- KEYS: cursor record. ARGV: token, epoch_min. Returns {epoch, cursor or false, meta, outbox}.
local function claim(keys, args)
  local stored = redis.call('HMGET', keys[1], 'epoch', 'cursor', 'meta', 'outbox')
  local epoch = math.max(tonumber(stored[1] or '0'), tonumber(args[2])) + 1
  local written = string.format('%.0f', epoch) -- tostring() would round above 1e14
  redis.call('HSET', keys[1], 'epoch', written, 'token', args[1])
  return { written, stored[2], stored[3] or '', stored[4] or '' }
end

-- KEYS: cursor record, then one key per write.
-- ARGV: token, epoch, expected cursor ('' = none), new cursor, ttl_ms, meta, outbox, then the blobs.
-- Returns {'OK' | 'FENCED' | 'AHEAD' | 'ROLLEDBACK', stored cursor or false, stored epoch or false}.
local function commit(keys, args)
  local stored = redis.call('HMGET', keys[1], 'epoch', 'token', 'cursor')
  local epoch, token, cursor = stored[1], stored[2], stored[3]
  if not epoch or tonumber(epoch) ~= tonumber(args[2]) or token ~= args[1] then
    if epoch and tonumber(epoch) > tonumber(args[2]) then
      return { 'FENCED', cursor, epoch }
    end
    return { 'ROLLEDBACK', cursor, epoch } -- our claim is gone: the store is older than it
  end
  local at, expected = tonumber(cursor or '-1'), tonumber(args[3] ~= '' and args[3] or '-1')
  if at ~= expected then
    if at == tonumber(args[4]) then
      return { 'OK', cursor, epoch } -- a retry: the first reply was lost
    end
    return { at < expected and 'ROLLEDBACK' or 'AHEAD', cursor, epoch }
  end
  write_all(keys, 2, args, 8, args[5])
  redis.call('HSET', keys[1], 'cursor', args[4], 'meta', args[6], 'outbox', args[7])
  return { 'OK', args[4], epoch }
end

local function newer(stored, version, epoch)
  local stored_version, stored_epoch = tonumber(stored[1] or ''), tonumber(stored[2] or '')
  if not stored_version or not stored_epoch then
    return false -- not written by us: replaced
  end
  if stored_version ~= version then
    return stored_version > version
  end
  return stored_epoch > epoch
end

-- KEYS: one per hash. ARGV: ttl_ms, then one row per hash: 'version', its value, 'epoch', its value,
-- field, value, ... as a count and length-prefixed strings, all lengths in four bytes, big-endian
-- (a row as one argument costs a third less than its twenty). Returns how many were replaced.
local function put_hashes(keys, args)
  local ttl_ms, replaced = args[1], 0
  for i = 1, #keys do
    local n = struct.unpack('>I4', args[i + 1])
    local row = { struct.unpack('>' .. string.rep('I4c0', n), args[i + 1], 5) }
    local stored = redis.call('HMGET', keys[i], 'version', 'epoch')
    if not newer(stored, tonumber(row[2]), tonumber(row[4])) then
      redis.call('HSET', keys[i], unpack(row, 1, n))
      if redis.call('HLEN', keys[i]) ~= n / 2 then -- the old record had other fields
        redis.call('DEL', keys[i])
        redis.call('HSET', keys[i], unpack(row, 1, n))
      end
      if ttl_ms ~= '' then
        redis.call('PEXPIRE', keys[i], ttl_ms)
      end
      replaced = replaced + 1
    end
  end
  return replaced
end

-- KEYS: one per value. ARGV: ttl_ms, then the values.
local function put_values(keys, args)
  write_all(keys, 1, args, 2, args[1])
  return #keys
end

redis.register_function('@LIBRARY@_claim', claim)
redis.register_function('@LIBRARY@_commit', commit)
redis.register_function('@LIBRARY@_put_hashes', put_hashes)
redis.register_function('@LIBRARY@_put_values', put_values)
