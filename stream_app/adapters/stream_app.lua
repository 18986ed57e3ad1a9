-- Server side of stream_app: claims and public records, each one atomic call.
-- Loaded as a Redis Function library; @LIBRARY@ is the name with a digest of this text, so that
-- workers of different releases can share a server: none replaces what another one calls.
-- Works on Redis 7+ and Valkey 7.2+; every key is declared, so each call stays inside one slot.

-- KEYS: cursor record. ARGV: token, epoch_min. Returns {epoch, cursor or false, meta, outbox}.
local function claim(keys, args)
  local stored = redis.call('HMGET', keys[1], 'epoch', 'cursor', 'meta', 'outbox')
  local epoch = math.max(tonumber(stored[1] or '0'), tonumber(args[2])) + 1
  local written = string.format('%.0f', epoch) -- tostring() would round above 1e14
  redis.call('HSET', keys[1], 'epoch', written, 'token', args[1])
  return { written, stored[2], stored[3] or '', stored[4] or '' }
end

-- Whether what is stored is newer than (version, epoch), both as text.
local function newer(key, version, epoch)
  local stored = tonumber(redis.call('HGET', key, 'version') or '')
  version = tonumber(version)
  if not stored then
    return false -- not written by us: replaced
  end
  if stored ~= version then
    return stored > version
  end
  local stored_epoch = tonumber(redis.call('HGET', key, 'epoch') or '')
  return stored_epoch ~= nil and stored_epoch > tonumber(epoch)
end

-- Field names by shape as HSET wants them, and where in the arguments what follows them begins.
local function shapes_of(args)
  local shapes, at = {}, 3
  for s = 1, tonumber(args[2]) do
    local words = { 'version', '', 'epoch', '' }
    for k = 1, tonumber(args[at]) do
      words[2 * k + 3], words[2 * k + 4] = args[at + k], ''
    end
    at = at + #words / 2 - 1
    shapes[tostring(s)] = words
  end
  return shapes, at
end

-- KEYS: one per hash. ARGV: ttl_ms, the number of shapes, for each shape the number of its fields and
-- their names; then for each hash its shape, version, epoch and the other values. Every string that
-- Lua sees costs more than HSET does with it, so a name is sent once for all hashes that have it.
-- Returns how many were replaced.
local function put_hashes(keys, args)
  local ttl_ms, replaced = args[1], 0
  local shapes, at = shapes_of(args)
  for i = 1, #keys do
    local words = shapes[args[at]]
    local n = #words
    if not newer(keys[i], args[at + 1], args[at + 2]) then
      for k = 1, n / 2 do
        words[2 * k] = args[at + k]
      end
      if redis.call('HLEN', keys[i]) ~= n / 2 then -- the old record has other fields: spare it ours
        redis.call('DEL', keys[i])
      end
      redis.call('HSET', keys[i], unpack(words, 1, n))
      if redis.call('HLEN', keys[i]) ~= n / 2 then -- as many, but others
        redis.call('DEL', keys[i])
        redis.call('HSET', keys[i], unpack(words, 1, n))
      end
      if ttl_ms ~= '' then
        redis.call('PEXPIRE', keys[i], ttl_ms)
      end
      replaced = replaced + 1
    end
    at = at + n / 2 + 1
  end
  return replaced
end

-- KEYS and ARGV as for put_hashes. Sets the given fields of hashes that are still of this version and
-- epoch. Returns how many these are.
local function amend_hashes(keys, args)
  local amended = 0
  local shapes, at = shapes_of(args)
  for i = 1, #keys do
    local words = shapes[args[at]]
    local n = #words
    local stored = redis.call('HMGET', keys[i], 'version', 'epoch')
    if stored[1] == args[at + 1] and stored[2] == args[at + 2] then
      for k = 1, n / 2 do
        words[2 * k] = args[at + k]
      end
      redis.call('HSET', keys[i], unpack(words, 1, n))
      amended = amended + 1
    end
    at = at + n / 2 + 1
  end
  return amended
end

redis.register_function('@LIBRARY@_claim', claim)
redis.register_function('@LIBRARY@_amend_hashes', amend_hashes)
redis.register_function('@LIBRARY@_put_hashes', put_hashes)
