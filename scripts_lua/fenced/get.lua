-- fenced/get: what was last written under the name, and by which fence.
--
-- KEYS[1] fenced:NAME  string  "FENCE VALUE", see _lib/fenced
--
-- Returns  {fence, value}  the newest fence that wrote or was checked, and the value; empty: none. 0 and empty: nothing is known
-- include: _lib/fenced

return answer(function()
  local newest, value = fenced_read(KEYS[1])
  return {newest or 0, value}
end)
