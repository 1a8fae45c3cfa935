"""What belongs to the whole process: forked children, signals that functions are blamed by, stacks, the log."""
