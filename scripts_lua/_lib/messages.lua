-- _lib/messages: every message that a script publishes; lockbeat/store/messages.py takes them apart.
--
-- A message is a hint: who hears it asks the store, and acts on the reply to that. WORD is what a message begins with.
--
-- WORD     fields         on              told to            said when
-- granted  TOKEN          waiter's own    the waiter         a hand-off made it the owner
-- next     TOKEN WAIT_MS  waiter's own    the one behind it  so, and who was granted the lock may not live to ask for it
-- ended    TASK_ID        awaiter's own   who waits for it   a task has ended, or is forgotten
-- cancel   TASK_ID        bell            its worker         a task that runs was cancelled
-- task                    bell            workers            a task can be claimed, or will be sooner than was told
-- job                     bell            schedulers         a job may come due sooner than was told
-- backfill                bell            schedulers         a backfill has begun, or goes on
-- event                   bell            who has hooks      something has happened, see _lib/events

local function message_granted(token)
  return 'granted ' .. token
end

local function message_next(token, wait_ms)
  return 'next ' .. token .. ' ' .. string.format('%d', wait_ms)
end

local function message_ended(task_id)
  return 'ended ' .. task_id
end

local function message_cancel(task_id)
  return 'cancel ' .. task_id
end

local function message_task()
  return 'task'
end

local function message_job()
  return 'job'
end

local function message_backfill()
  return 'backfill'
end

local function message_event()
  return 'event'
end
