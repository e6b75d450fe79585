"""A process that looks for candidates in the lines of one busy source, so that the agent does not have to.

The agent writes blocks to its standard input and reads candidates from its standard output, one at a time. It keeps
nothing that would be missed: when it dies or stands still, the agent looks by itself. It ends with the agent.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from breachwatch.app.memory import prepare_for_many_lines
from breachwatch.app.process import die_with_parent
from breachwatch.app.rule_cache import PlanFiles
from breachwatch.detect.plan import Look, Scope
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.selector import Selector
from breachwatch.detect.stored import restored, stored
from breachwatch.model import LogSource
from breachwatch.model.rawform import RawForm
from breachwatch.parse.rawform import FORMS, SETTLED

ANSWER_S = 30.0
"""So long the agent waits for a question to be taken, and for its answer; then it looks by itself."""

BY_NAME = {form.name: form for form in (*FORMS.values(), *SETTLED.values())}

_KEY = "looker"
_length = struct.Struct("!I")


class _Start(msgspec.Struct, frozen=True, array_like=True):
    rules: bytes
    cache: str


class _Ask(msgspec.Struct, frozen=True, array_like=True):
    number: int
    form: str
    logsource: LogSource | None
    any_logsource: bool
    data: bytes


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    number: int
    """That of the question."""
    lines: int
    found: list[tuple[int, int, tuple[int, ...] | None, bool]]


_answer_decoder = msgspec.msgpack.Decoder(_Answer)


class LookerError(Exception):
    """The process is gone, or says nothing that makes sense: what it was asked has to be found out without it."""


class Looker:
    """The agent's end. One question at a time; no call takes longer than ANSWER_S."""

    def __init__(self, rules: RuleSet, cache: str) -> None:
        """Start the process. Raises: LookerError."""
        self._asked = 0
        try:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "breachwatch.app.looker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one system call
            )
        except OSError as error:
            raise LookerError(f"it cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipes = self._process.stdin, self._process.stdout
        self._input, self._output = (pipe.fileno() for pipe in self._pipes)
        os.set_blocking(self._input, False)
        try:
            self._say(_Start(stored(rules, _KEY), cache))
        except LookerError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, form: RawForm, scope: Scope, data: bytes) -> None:
        """Let it look at whole lines. Raises: LookerError."""
        self._asked += 1
        self._say(_Ask(self._asked, form.name, scope.logsource, scope.any_logsource, data))

    def answer(self) -> Look:
        """The lines and candidates in what was asked about last. Raises: LookerError."""
        until = time.monotonic() + ANSWER_S
        (size,) = _length.unpack(self._read(_length.size, until))
        try:
            answer = _answer_decoder.decode(self._read(size, until))
        except msgspec.MsgspecError as error:
            raise LookerError("its answer cannot be read") from error
        if answer.number != self._asked:
            raise LookerError("it answers another question")
        return Look(answer.lines, [(*one, None) for one in answer.found])

    def _say(self, message: _Start | _Ask) -> None:
        until = time.monotonic() + ANSWER_S
        left = memoryview(_frame(message))
        while left:
            if not select.select([], [self._input], [], max(0.0, until - time.monotonic()))[1]:
                raise LookerError(f"it takes nothing for {ANSWER_S:.0f} s")
            try:
                left = left[os.write(self._input, left) :]
            except OSError as error:
                raise LookerError("it ended") from error

    def _read(self, size: int, until: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            if not select.select([self._output], [], [], max(0.0, until - time.monotonic()))[0]:
                raise LookerError(f"no answer within {ANSWER_S:.0f} s")
            part = os.read(self._output, min(size - len(parts), 1 << 20))
            if not part:
                raise LookerError("it ended")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.close()
        self._process.wait()


def _frame(message: msgspec.Struct) -> bytes:
    data = msgspec.msgpack.encode(message)
    return _length.pack(len(data)) + data


def _next_frame(stream: BinaryIO) -> bytes | None:
    """None where the stream ends."""
    head = stream.read(_length.size)
    if len(head) < _length.size:
        return None
    (size,) = _length.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


def main() -> int:
    """Answer until the agent is gone."""
    prepare_for_many_lines()
    asked_on, answered_on = sys.stdin.buffer, sys.stdout.buffer
    first = _next_frame(asked_on)
    if first is None:
        return 0
    start = msgspec.msgpack.decode(first, type=_Start)
    rules = restored(start.rules, _KEY)
    if rules is None:
        return 1
    selector = Selector(rules, store=PlanFiles(Path(start.cache)))
    decoder = msgspec.msgpack.Decoder(_Ask)
    while (frame := _next_frame(asked_on)) is not None:
        ask = decoder.decode(frame)
        lines, found = selector.look(BY_NAME[ask.form], Scope(ask.logsource, ask.any_logsource), ask.data)
        answered_on.write(_frame(_Answer(ask.number, lines, [one[:4] for one in found])))  # the agent has no such plan
        answered_on.flush()
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        sys.exit(main())
