"""What becomes of a job's slots under each policy, slot by slot.

A line says what became of a slot, why, and when it ran, in units. The slots are 10, 20, 30 ... unless a play says else.
"""
