"""Chance: what spreads the looks and retries of instances that would else come at once.

From the system, not from `random`: a program that seeds that one, as for tests and for training, would seed each of its instances
alike, and a forked child would draw its parent's numbers. Nor is a sequence disturbed that the program counts on.
"""

from __future__ import annotations

from random import SystemRandom

between = SystemRandom().uniform
"""A number from `a` to `b`."""
