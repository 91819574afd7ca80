"""What the doctor found: facts, and problems with their remedies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flowad_jax.errors import UserError

_ELSEWHERE = "see 'flowad doctor --help' and docs/images.md"


@dataclass
class Section:
    """One thing that was looked at: facts as (name, text), problems as (what, what to do)."""

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
        """Adds what another part of the package refused; behind the last : or ; is the remedy."""
        parts = re.fullmatch(r"(.*)[:;] (.+)", _line(str(error)))
        self.problem(*(parts.groups() if parts else (str(error), _ELSEWHERE)))

    def __str__(self) -> str:
        """The facts, then two lines for each problem."""
        width = max((len(name) for name, _ in self.facts), default=0)
        facts = [f"  {name:{width}}  {text}" for name, text in self.facts]
        problems = [f"  ! {what}\n    -> {remedy}" for what, remedy in self.problems]
        return "\n".join([self.title, *facts, *problems])


def _line(text: str) -> str:
    return " ".join(text.split())
