"""What callers hand in, checked: durations, names, payloads, numbers; and text of theirs, made safe to show."""
