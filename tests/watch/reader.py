"""A log reader driven as the agent does: polls, commits in memory, dies, starts again from what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from breachwatch.model import Block, Checkpoint, Gap, RawLine
from breachwatch.watch.files import LogFiles, LogSpec
from breachwatch.watch.framing import Framing
from breachwatch.watch.source import checkpoint_key
from tests.conftest import FakeClock


@dataclass
class Reader:
    """`lines` and `gaps` are everything that was seen, committed or not; `unique` folds by content identity."""

    pattern: str
    clock: FakeClock
    spec: LogSpec | None = None
    rows: dict[str, Checkpoint] = field(default_factory=dict)
    lines: list[RawLine] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    blocks: int = 0

    def __post_init__(self) -> None:
        self.spec = self.spec or LogSpec(pattern=self.pattern, framing=Framing())
        self.start()

    def start(self) -> None:
        assert self.spec is not None
        self.files = LogFiles(self.spec, dict(self.rows), clock=self.clock)

    def poll(self, *, budget: int = 1 << 20, commit: bool = True) -> list[bytes]:
        """One round; returns the new lines."""
        before = len(self.lines)
        for piece in self.files.poll(budget):
            if isinstance(piece, Gap):
                self.gaps.append(piece)
            elif isinstance(piece, Block):
                self.blocks += 1
                self.lines.extend(piece.lines())
            else:
                self.lines.append(piece)
        if commit:
            self.commit()
        return [line.data for line in self.lines[before:]]

    def commit(self) -> None:
        progress = self.files.progress()
        for key in progress.forgotten:
            self.rows.pop(key, None)
        for checkpoint in progress.checkpoints:
            self.rows[checkpoint_key(checkpoint)] = checkpoint

    def look(self, rounds: int = 1, step_s: float = 1.1) -> list[bytes]:
        """Poll again and again, a second later each time."""
        new: list[bytes] = []
        for _ in range(rounds):
            self.clock.advance(step_s)
            new += self.poll()
        return new

    def drain(self) -> list[bytes]:
        """Long enough for every grace to end."""
        return self.look(12)

    def restart(self) -> None:
        """kill -9 and a new start: what was not committed is read again."""
        self.files.close()
        self.start()

    def with_spec(self, **changes: object) -> Reader:
        assert self.spec is not None
        self.files.close()
        self.spec = replace(self.spec, **changes)  # type: ignore[arg-type]
        self.start()
        return self

    @property
    def data(self) -> list[bytes]:
        return [line.data for line in self.lines]

    @property
    def unique(self) -> list[bytes]:
        seen = {(line.generation, line.offset, line.data): line.data for line in self.lines}
        return list(seen.values())

    @property
    def reasons(self) -> list[str]:
        return [gap.reason for gap in self.gaps]

    def close(self) -> None:
        self.files.close()


def numbered(first: int, last: int, *, stamp: str = "2026-01-05T08:00") -> list[bytes]:
    """Lines that no two of are the same."""
    return [b"%s line %06d of the log" % (stamp.encode(), number) for number in range(first, last)]


def append(path: Path, lines: Sequence[bytes]) -> None:
    with path.open("ab") as log:
        log.write(b"".join(line + b"\n" for line in lines))
