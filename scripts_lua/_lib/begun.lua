-- _lib/begun: what certain calls of an owner have begun.
-- needs: _lib/sweep

-- The live attempts of an owner that these calls began: {id, lease, table, key}, ...; and where to go on from, if `most_ms` was over
-- before all of its leases were looked at. In pages: one HMGET is far cheaper than five hundred HGETs.
local function task_begun_by(owner, calls, after, most_ms)
  local found, first = {}, string.sub(after, 1, 1)
  for _, word in ipairs(first == 'l' and {'l'} or {'t', 'l'}) do
    local t, last = word == 't' and q.leases or q.locks, first == word and string.sub(after, 2) or ''
    for _ = 1, 40 do  -- a worker has room for 10,000
      local keys = lease_owned(t, owner, 500, last)
      lease_gather(t, keys)
      for _, key in ipairs(keys) do
        local lease = attempt(lease_read, t, key)
        local id = lease and (t == q.leases and key or lease_task(key, lease))
        local record = id and calls[lease.calls] and lease.live and lease.owner == owner and attempt(task_read, id)
        if record and record.state == 'running' and last_try(record).fence == lease.fence then
          found[#found + 1] = {id, record, lease, t, key}
        end
      end
      if #keys < 500 then break end
      last = keys[#keys]
      if spent() > most_ms then return found, word .. last end
    end
  end
  return found
end
