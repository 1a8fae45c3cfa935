-- fenced/check: let a fence in unless a newer one has written, or was checked, under the name; what was written stays.
--
-- KEYS[1] fenced:NAME  string  "FENCE VALUE", see _lib/fenced
-- ARGV[1] fence        int
--
-- Returns  1  let in, and any older fence is refused from now on
--          0  refused, nothing is changed
-- include: _lib/fenced

return answer(function()
  local fence = tonumber(ARGV[1])
  local newest, value = fenced_read(KEYS[1])
  if not fenced_admits(newest, fence) then return 0 end
  fenced_write(KEYS[1], fence, value)
  return 1
end)
