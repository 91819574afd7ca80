"""What the doctor found: facts, and problems with their remedies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flowad_jax.errors import UserError

_ELSEWHERE = "see 'python -m flowad_jax.doctor --help' and the README"


@dataclass
class Section:
    """One thing that was looked at.

    Attributes:
      title: what it is.
      facts: what is to be known, as (name, text).
      problems: what is wrong, as (what, what to do).
    """

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def fact(self, name: str, text: str) -> None:
        """Adds something to know."""
        self.facts.append((name, _line(text)))

    def problem(self, what: str, remedy: str) -> None:
        """Adds something that is wrong, once."""
        problem = _line(what), _line(remedy)
        if problem not in self.problems:
            self.problems.append(problem)

    def refused(self, error: UserError) -> None:
        """Adds a fault that another part of the package found, with its remedy.

        The message names the fix behind the last colon or semicolon, see `UserError`.
        """
        parts = re.fullmatch(r"(.*)[:;] (.+)", _line(str(error)))
        what, remedy = parts.groups() if parts else (str(error), _ELSEWHERE)
        self.problem(what, remedy)

    def __str__(self) -> str:
        """The section as text: facts, then two lines for each problem."""
        width = max((len(name) for name, _ in self.facts), default=0)
        facts = [f"  {name:{width}}  {text}" for name, text in self.facts]
        problems = [f"  ! {what}\n    -> {remedy}" for what, remedy in self.problems]
        return "\n".join([self.title, *facts, *problems])


def _line(text: str) -> str:
    return " ".join(text.split())
