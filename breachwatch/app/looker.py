"""A process that looks for candidates in the lines of one busy source, so that the agent does not have to.

The agent writes blocks to its standard input and reads candidates from its standard output, one at a time. It keeps
nothing that would be missed: when it dies, the agent looks by itself. It ends with the agent.
"""

from __future__ import annotations

import select
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from breachwatch.app.process import die_with_parent
from breachwatch.app.rule_cache import PlanFiles
from breachwatch.detect.load import RuleSet
from breachwatch.detect.plan import Candidate, Scope
from breachwatch.detect.selector import Selector
from breachwatch.detect.stored import restored, stored
from breachwatch.model import LogSource
from breachwatch.model.rawform import RawForm
from breachwatch.parse.rawform import FORMS, SETTLED

ANSWER_S = 30.0
"""So long the agent waits for an answer about one block; then it looks by itself."""

BY_NAME = {form.name: form for form in (*FORMS.values(), *SETTLED.values())}

_KEY = "looker"
_length = struct.Struct("!I")


class _Start(msgspec.Struct, frozen=True, array_like=True):
    rules: bytes
    cache: str


class _Ask(msgspec.Struct, frozen=True, array_like=True):
    form: str
    logsource: LogSource | None
    any_logsource: bool
    data: bytes


_Answer = list[tuple[int, int, tuple[int, ...] | None, bool]]
_answer_decoder = msgspec.msgpack.Decoder(_Answer)


class LookerError(Exception):
    """The process is gone, or says nothing that makes sense: what it was asked has to be found out without it."""


class Looker:
    """The agent's end. One question at a time."""

    def __init__(self, rules: RuleSet, cache: str) -> None:
        """Start the process. Raises: LookerError."""
        try:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "breachwatch.app.looker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one system call
            )
        except OSError as error:
            raise LookerError(f"it cannot be started: {error.strerror}") from error
        self._input = cast("BinaryIO", self._process.stdin)
        self._output = cast("BinaryIO", self._process.stdout)
        self._say(_Start(stored(rules, _KEY), cache))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, form: RawForm, scope: Scope, data: bytes) -> None:
        """Let it look at whole lines. Raises: LookerError."""
        self._say(_Ask(form.name, scope.logsource, scope.any_logsource, data))

    def answer(self) -> list[Candidate]:
        """The candidates in what was asked about last. Raises: LookerError."""
        if not select.select([self._output], [], [], ANSWER_S)[0]:
            raise LookerError(f"no answer within {ANSWER_S:.0f} s")
        try:
            frame = _read_frame(self._output)
            found = None if frame is None else _answer_decoder.decode(frame)
        except (OSError, msgspec.MsgspecError) as error:
            raise LookerError("its answer cannot be read") from error
        if found is None:
            raise LookerError("it ended")
        return [Candidate(*one) for one in found]

    def _say(self, message: _Start | _Ask) -> None:
        try:
            _write_frame(self._input, msgspec.msgpack.encode(message))
        except (OSError, ValueError) as error:
            raise LookerError("it ended") from error

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for end in (self._input, self._output):
            with suppress(OSError):
                end.close()
        self._process.wait()


def _write_frame(stream: BinaryIO, data: bytes) -> None:
    stream.write(_length.pack(len(data)))
    stream.write(data)
    stream.flush()


def _read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame, None where the stream ends."""
    head = stream.read(_length.size)
    if len(head) < _length.size:
        return None
    (size,) = _length.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


def main(streams: Sequence[BinaryIO] | None = None) -> int:
    """Answer until the agent is gone."""
    asked_on, answered_on = streams or (sys.stdin.buffer, sys.stdout.buffer)
    first = _read_frame(asked_on)
    if first is None:
        return 0
    start = msgspec.msgpack.decode(first, type=_Start)
    rules = restored(start.rules, _KEY)
    if rules is None:
        return 1
    selector = Selector(rules, store=PlanFiles(Path(start.cache)))
    decoder = msgspec.msgpack.Decoder(_Ask)
    while (frame := _read_frame(asked_on)) is not None:
        ask = decoder.decode(frame)
        found = selector.candidates(BY_NAME[ask.form], Scope(ask.logsource, ask.any_logsource), ask.data)
        _write_frame(answered_on, msgspec.msgpack.encode([one[:4] for one in found]))  # the agent has no such plan
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        sys.exit(main())
