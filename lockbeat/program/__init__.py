"""The program: jobs and tasks declared by decorators, served until a signal asks it to end."""

from lockbeat.program.beat import Beat
from lockbeat.program.comparing import Comparison, Difference

__all__ = ["Beat", "Comparison", "Difference"]
