-- fenced/set: write a value unless a newer fence has written, or was checked, under the name.
--
-- KEYS[1] fenced:NAME  string  "FENCE VALUE", see _lib/fenced
-- ARGV[1] fence        int
-- ARGV[2] value        json    empty: delete what is there
--
-- Returns  1  written, and any older fence is refused from now on
--          0  refused, nothing is changed
--
-- Comparing and writing are one script: between the two an old holder could be overtaken.
-- The same call again writes the same again, or finds that a newer fence has written meanwhile.
-- include: _lib/fenced

return answer(function()
  local fence = tonumber(ARGV[1])
  if not fenced_admits(fenced_read(KEYS[1]), fence) then return 0 end
  fenced_write(KEYS[1], fence, ARGV[2])
  return 1
end)
