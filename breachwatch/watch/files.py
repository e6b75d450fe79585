"""Log files by path, glob and folder, through every kind of rotation: a `Source`."""

from __future__ import annotations

import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from breachwatch.model import Checkpoint, Gap
from breachwatch.ports import Clock
from breachwatch.watch.archive import PackedTail
from breachwatch.watch.framing import Framing
from breachwatch.watch.history import REMEMBERED_LIVES, History
from breachwatch.watch.lines import Piece
from breachwatch.watch.lives import SECOND_NS, Lives, Tail
from breachwatch.watch.names import Found, Listing, is_rotated_from, matching, names, stem_of
from breachwatch.watch.second_look import SecondLooks
from breachwatch.watch.source import Progress, checkpoint_key, display
from breachwatch.watch.tail import FileTail, is_other_file

REDISCOVER_S = 1.0
"""How often names are looked up again without a hint from the kernel."""

FULL_ROUND_S = 0.5
"""How often all files are looked at, whatever the kernel says grew: thousands of quiet logs must not cost each wake."""

ROTATED_GRACE_S = 5.0
"""A deleted file is read until it was quiet for so long: writers keep their old descriptor for a while."""

ROTATED_KEEP_S = 3_600.0
"""A rotated file that still has a name is read on for so long: some daemons reopen their log late."""

ROTATED_KEEP = 3
"""But no more than so many of one log."""

UNWATCHED_S = 10.0
"""For so long after a rotation neighbours are looked at: a compressor may just be writing one."""

MISSED_S = 10.0
"""So long after a restart a file is looked for that rotation may just be moving; only then it counts as gone."""

MIN_SHARE_BYTES = 64 * 1024
"""Every file gets at least this much of a poll, so that one huge file starves no other."""

Claims = dict[tuple[int, int], object]
"""(device, inode) to the source that reads it: two patterns that name one file read it once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSpec:
    """What the settings say about one entry of `watch.logs`."""

    pattern: str
    exclude: tuple[str, ...] = ()
    rotated: tuple[str, ...] = ()
    """Folders that rotation moves files to (logrotate's `olddir`)."""
    framing: Framing = field(default_factory=Framing)
    from_start: bool = True
    max_line_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class _Look:
    """Neighbours of a log are looked at until then, if they were changed since."""

    until_s: float
    since_ns: int
    is_cut: bool
    """The log was cut in place: what is found are copies of it."""


class LogFiles:
    """All files of one entry. Identity is device, inode and content, never the name."""

    def __init__(
        self, spec: LogSpec, checkpoints: Mapping[str, Checkpoint], *, clock: Clock, claims: Claims | None = None
    ) -> None:
        self.name = spec.pattern
        self._spec = spec
        self._clock = clock
        self._claims: Claims = {} if claims is None else claims
        self._lives = Lives(
            clock=clock, framing=spec.framing, max_line_bytes=spec.max_line_bytes, elsewhere=spec.rotated
        )
        self._paths: dict[str, str] = {}
        self._source_of: dict[str, str] = {}
        """By path, as the kernel names it."""
        self._grown: set[str] | None = None
        """Sources to read in the next poll; None: all."""
        self._next_full_round = 0.0
        self._current: dict[str, FileTail] = {}
        self._rotated: list[FileTail] = []
        self._packed: list[PackedTail] = []
        self._histories: dict[str, History] = {}
        self._sources_by_stem: dict[str, list[str]] = {}
        self._orphans: dict[str, list[Checkpoint]] = {}
        self._unsaved: list[Checkpoint] = []
        self._known = self._of_ours(checkpoints)
        self._is_first_start = not self._known
        self._missed_s: dict[str, float] = {}
        """When each file that cannot be found was first looked for (checkpoint key, monotonic seconds)."""
        self._forgotten: list[str] = []
        self._unreadable: dict[str, str] = {}
        self._pending: list[Gap] = []
        self._looks: dict[str, list[_Look]] = {}
        self._looked_ns: float = max(
            (known.changed_ns for rows in self._known.values() for known in rows), default=math.inf
        )
        self._next_discovery = 0.0
        self._second_look = SecondLooks(clock)
        self._around: dict[tuple[int, int], Found] = {}
        self._listing = Listing()
        """Names around the logs as this round of discovery found them."""

    def _of_ours(self, checkpoints: Mapping[str, Checkpoint]) -> dict[str, list[Checkpoint]]:
        ours: dict[str, list[Checkpoint]] = {}
        for key, known in checkpoints.items():
            if "\0" in key and names(known.source, self._spec.pattern):
                ours.setdefault(known.source, []).append(known)
                self._history(known.source).learn(known)
        return ours

    def _history(self, source: str) -> History:
        history = self._histories.get(source)
        if history is None:
            history = self._histories[source] = History()
            self._sources_by_stem.setdefault(stem_of(source), []).append(source)
        return history

    def _path_of(self, source: str) -> str:
        return self._paths.get(source, source)

    def _all(self) -> list[Tail]:
        return [*self._packed, *self._rotated, *self._current.values()]

    # -- polling --------------------------------------------------------------------------------------------------

    def is_behind(self) -> bool:
        """Whether a file has more than the last poll took."""
        return any(isinstance(tail, FileTail) and tail.is_behind for tail in self._all())

    def grew(self, paths: Iterable[str]) -> None:
        """The kernel said which files were written to: the next poll may leave out others."""
        self._grown = {self._source_of[path] for path in paths if path in self._source_of}

    def hint(self) -> None:
        """The kernel said that names changed: look before the next second."""
        self._next_discovery = 0.0

    def poll(self, budget_bytes: int) -> Iterator[Piece]:
        """What is new in all files; a log's later life waits while an earlier one has whole lines left."""
        has_discovered = self._discover_when_due()
        tails = self._tails_due(all_of_them=has_discovered)
        share = max(MIN_SHARE_BYTES, budget_bytes // max(1, len(tails)))
        waiting: set[str] = set()
        for tail in tails:
            if tail.source in waiting:
                continue
            if isinstance(tail, PackedTail):
                yield from tail.pieces(share)
            else:
                yield from self._read(tail, share)
            if self._current.get(tail.source) is not tail and tail.has_lines():
                waiting.add(tail.source)
            if isinstance(tail, PackedTail) and tail.done:
                self._finish(tail)
        yield from self._retire()
        yield from self._second_look.poll([tail for tail in tails if isinstance(tail, FileTail)])
        pending, self._pending = self._pending, []
        yield from pending

    def _tails_due(self, *, all_of_them: bool) -> list[Tail]:
        now_s = self._clock.monotonic()
        grown, self._grown = self._grown, None
        if grown is None or all_of_them or now_s >= self._next_full_round:
            self._next_full_round = now_s + FULL_ROUND_S
            return self._all()
        return [
            tail
            for tail in self._all()
            if tail.source in grown or isinstance(tail, PackedTail) or (isinstance(tail, FileTail) and tail.is_behind)
        ]

    def _read(self, tail: FileTail, share: int) -> Iterator[Piece]:
        try:
            if not tail.has_news():
                return
            if tail.was_empty:  # nothing tells whether it was filled, copied and cut since
                self._look(tail.source, (tail.changed_ns,), is_cut=True)
            if (gap := tail.check()) is not None:
                yield self._cut_in_place(tail, tail.checkpoint(), gap)
            else:
                yield from tail.pieces(share)
        except OSError as error:
            self._report_unreadable(tail.source, f"reading failed: {error.strerror}")

    def _cut_in_place(self, tail: FileTail, known: Checkpoint, gap: Gap) -> Gap:
        """A file was emptied or changed under us: finish what a copy of it holds, then begin anew, or realign."""
        copy = self._lives.copied(known, self._path_of(tail.source), taken=self._taken(), head=tail.head)
        self._look(tail.source, (known.changed_ns,), is_cut=True)
        if copy is not None:
            self._adopt(copy)
            why = f"{gap.detail}; read on in {copy.name}; what was written between copy and cut is in no file"
            gap = self._gap(tail.source, "copytruncate", why, about=_mark(copy))
        elif gap.reason == "rewritten" and tail.realign(known):
            return gap
        self._history(tail.source).finish(known)
        tail.start_over()
        return gap

    def progress(self) -> Progress:
        """Checkpoints of the files that moved on."""
        checkpoints = []
        for tail in self._all():
            if tail.changed:
                tail.changed = False
                known = self._history(tail.source).written(tail.checkpoint())
                is_past = tail in self._rotated and not tail.has_more()
                checkpoints.append(replace(known, rotated=True) if is_past else known)
        checkpoints += [self._history(known.source).written(known) for known in self._new_orphans()]
        forgotten, self._forgotten = self._forgotten, []
        if forgotten:
            kept = {checkpoint_key(tail.checkpoint()) for tail in self._all()}
            forgotten = [key for key in forgotten if key not in kept]
        return Progress(checkpoints=checkpoints, forgotten=forgotten)

    def close(self) -> None:
        """Release all descriptors."""
        for tail in self._all():
            tail.close()
            self._claims.pop(tail.identity, None)
        self._rotated, self._packed = [], []
        self._current.clear()

    # -- the end of a life ----------------------------------------------------------------------------------------

    def _retire(self) -> Iterator[Piece]:
        now_s = self._clock.monotonic()
        newer: Counter[str] = Counter()
        for tail in reversed(self._rotated.copy()):
            newer[tail.source] += 1
            quiet_s = now_s - max(tail.quiet_since, tail.rotated_at)
            if quiet_s < ROTATED_GRACE_S or tail.has_lines():
                continue
            is_gone = tail.links() == 0
            if not tail.was_missed and tail.source not in self._current:
                tail.was_missed = True
                if not self._lives.is_beside(tail, self._path_of(tail.source)):
                    how = "deleted" if is_gone else "moved away"
                    yield self._gap(tail.source, "vanished", f"the file was {how} and nothing took its name")
            if tail.is_unfinished():
                yield from tail.last_words()
            if is_gone or quiet_s >= ROTATED_KEEP_S or newer[tail.source] > ROTATED_KEEP:
                self._finish(tail)

    def _finish(self, tail: Tail) -> None:
        """A life was read to its end: remember it, and drop its row once another one carries the memory."""
        known = tail.checkpoint()
        self._history(known.source).finish(known)
        if isinstance(tail, PackedTail):
            self._packed.remove(tail)
        else:
            self._rotated.remove(tail)
        self._claims.pop(tail.identity, None)
        tail.close()
        self._forget(known)

    def _forget(self, known: Checkpoint) -> None:
        heir = next((tail for tail in self._all() if tail.source == known.source), None)
        if heir is None:
            self._orphans.setdefault(known.source, []).append(known)
            self._unsaved.append(known)
        else:
            heir.changed = True
            self._forgotten.append(checkpoint_key(known))

    def _new_orphans(self) -> list[Checkpoint]:
        unsaved, self._unsaved = self._unsaved, []
        return unsaved

    # -- names ----------------------------------------------------------------------------------------------------

    def _discover_when_due(self) -> bool:
        now_s = self._clock.monotonic()
        if now_s < self._next_discovery:
            return False
        self._next_discovery = now_s + REDISCOVER_S
        self._listing = Listing()
        found = matching(self._spec.pattern, self._spec.exclude)
        self._paths.update(found)
        self._source_of = {os.path.normpath(path): source for source, path in found.items()}
        if self._known:
            self._recover(found)
        for source in {**self._current, **found}:
            self._follow(source, found.get(source))
        self._look_around(now_s)
        self._is_first_start = False
        self._looked_ns = int(self._clock.now().timestamp() * 1e9)
        return True

    def _follow(self, source: str, path: str | None) -> None:
        """Make the tail of one name fit the file that has the name now."""
        tail = self._current.get(source)
        status = self._status(source, path)
        identity = None if status is None else (status.st_dev, status.st_ino)
        if tail is not None and identity != tail.identity:
            del self._current[source]
            self._set_aside(tail)
            self._look(source, (tail.changed_ns for tail in self._rotated if tail.source == source))
        elif tail is not None or identity is None:
            return
        if identity is not None and path is not None and identity not in self._claims:
            self._open(source, path, before=tail)

    def _status(self, source: str, path: str | None) -> os.stat_result | None:
        if path is None:
            return None
        try:
            status = os.stat(path)  # noqa: PTH116  # follows symlinks on purpose: the link's target is the log
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._report_unreadable(source, error.strerror or "cannot be looked up")
            return None
        if not stat.S_ISREG(status.st_mode):
            self._report_unreadable(source, "not a regular file")
            return None
        return status

    def _open(self, source: str, path: str, *, before: FileTail | None) -> None:
        try:
            tail = self._lives.open(path, source)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._report_unreadable(source, error.strerror or "cannot be opened")
            return
        self._unreadable.pop(source, None)
        if tail.identity in self._claims:  # renamed between look and opening: it is read under its other name
            tail.close()
            return
        if before is None and (life := self._finished_life(tail, path)) is not None:
            if tail.size() <= life:
                tail.close()
                return
            tail.move_to(life)
        self._make_current(tail)
        history = self._history(source)
        if before is not None and tail.begins(before.checkpoint()) and not self._lives.was_rotated(before, path):
            self._replaced(tail, before.checkpoint())
        elif not history.is_known:
            self._learn_past(source, path, history)
            if self._is_first_start and not self._spec.from_start:
                tail.skip_to_end()

    def _make_current(self, tail: FileTail) -> None:
        self._current[tail.source] = tail
        self._claims[tail.identity] = self
        self._drop_orphans(tail.source)

    def _drop_orphans(self, source: str) -> None:
        self._forgotten += [checkpoint_key(known) for known in self._orphans.pop(source, ())]

    def _replaced(self, tail: FileTail, known: Checkpoint) -> None:
        """The name went to a copy of the same life: an editor does that, and `sed -i '/evidence/d'`."""
        if tail.resume(known):
            tail.changed = True
            return
        self._pending.append(self._gap(tail.source, "rewritten", "the file was replaced by a changed copy of itself"))
        tail.realign(known)

    def _finished_life(self, tail: FileTail, path: str) -> int | None:
        """Bytes that were read of this content under the name it is rotated from (a glob names rotated files too)."""
        name = display(os.path.basename(path))  # noqa: PTH119  # on the way of thousands of names
        sources = (source for end in range(len(name) + 1) for source in self._sources_by_stem.get(name[:end], ()))
        sizes = (
            self._histories[source].read_of(tail.read_at)
            for source in sources
            if is_rotated_from(path, self._path_of(source))
        )
        return max((size for size in sizes if size is not None), default=None)

    def _set_aside(self, tail: FileTail) -> None:
        tail.rotated_at = self._clock.monotonic()
        tail.changed = True
        self._rotated.append(tail)
        self._claims[tail.identity] = self

    def _age(self, tail: FileTail) -> None:
        """A rotated file that was quiet before this start need not be watched for its quiet all over again."""
        age_s = max(0.0, self._clock.now().timestamp() - tail.changed_ns / SECOND_NS)
        tail.rotated_at = tail.quiet_since = self._clock.monotonic() - age_s

    def _adopt(self, tail: Tail) -> None:
        if isinstance(tail, PackedTail):
            self._packed.append(tail)
            self._claims[tail.identity] = self
        else:
            self._set_aside(tail)

    def _taken(self) -> set[tuple[int, int]]:
        return set(self._claims)

    def _look(self, source: str, times_ns: Iterable[int], *, is_cut: bool = False) -> None:
        """Look around this log for a while, for what was changed since the oldest of these times."""
        look = _Look(self._clock.monotonic() + UNWATCHED_S, min(times_ns), is_cut)
        self._looks.setdefault(source, []).append(look)

    def _look_around(self, now_s: float) -> None:
        if not self._looks:
            return
        listing = Listing()
        alive: dict[str, list[Checkpoint]] = {source: [*rows] for source, rows in self._known.items()}
        for tail in self._all():
            alive.setdefault(tail.source, []).append(tail.checkpoint())
        for source, looks in list(self._looks.items()):
            lives = self._lives.unwatched(
                self._path_of(source), source, self._history(source), alive.get(source, []), self._claims,
                min(look.since_ns for look in looks), listing,
            )  # fmt: skip
            cuts_s = [look.since_ns // SECOND_NS for look in looks if look.is_cut]
            for tail in lives:
                self._adopt(tail)
                known = tail.checkpoint()
                is_cut = known.changed_ns // SECOND_NS >= min(cuts_s, default=math.inf)
                if known.offset == 0 and self._is_copy(tail, is_cut=is_cut):
                    why = f"{tail.name} is a copy that was made unseen; what was written before the cut is in no file"
                    self._pending.append(self._gap(source, "copytruncate", why, about=_mark(tail)))
            self._looks[source] = [look for look in looks if now_s < look.until_s]
            if not self._looks[source]:
                del self._looks[source]

    def _is_copy(self, tail: Tail, *, is_cut: bool) -> bool:
        """True if the life was not renamed but copied: the log itself is older than its rotated file."""
        current = self._current.get(tail.source)
        if isinstance(tail, FileTail) and current is not None and tail.born_ns and current.born_ns:
            return tail.born_ns > current.born_ns
        return is_cut

    def _learn_past(self, source: str, path: str, history: History) -> None:
        """Lives that ended before the log was watched are not ours to read."""
        around = [
            found
            for found in self._lives.around(path, self._listing)
            if found.is_rotated and (found.changed_ns // SECOND_NS + 1) * SECOND_NS <= self._looked_ns
        ]
        for found in around[-REMEMBERED_LIVES:]:
            if (life := self._lives.life_of(found)) is not None:
                history.finished.append(life)
        history.is_known = True
        history.newest_ns = max([0, *(found.changed_ns for found in around)])
        if not self._is_first_start:
            self._look(source, (int(self._looked_ns),))

    # -- after a restart ------------------------------------------------------------------------------------------

    def _recover(self, found: Mapping[str, str]) -> None:
        known_rows, self._known = self._known, {}
        for source, rows in known_rows.items():
            self._around = {item.identity: item for item in self._lives.around(self._path_of(source))}
            for known in sorted(rows, key=lambda row: row.changed_ns):
                if self._history(source).is_finished(known):
                    self._orphans.setdefault(source, []).append(known)
                else:
                    self._continue(known, found.get(source))
            if source in self._current:
                self._drop_orphans(source)
            unfinished = [known.changed_ns for known in rows if not self._history(source).is_finished(known)]
            # a kill may have ended an earlier look before it found everything: nothing after this time is sure
            newest_ns = self._history(source).newest_ns
            self._look(source, [*unfinished, newest_ns] if newest_ns or not unfinished else unfinished)

    def _continue(self, known: Checkpoint, path: str | None) -> None:
        """Go on in the checkpoint's file, wherever rotation took it."""
        status = self._status(known.source, path)
        if path is not None and status is None:
            self._known.setdefault(known.source, []).append(known)  # it is there and cannot be read: try again
            return
        identity = None if status is None else (status.st_dev, status.st_ino)
        if path is not None and identity == (known.device, known.inode) and self._continue_here(known, path):
            return
        tail = self._lives.continued(
            known, self._path_of(known.source), taken=self._taken(), around=self._around
        )  # fmt: skip
        if tail is not None:
            self._adopt(tail)
            if isinstance(tail, FileTail):
                self._age(tail)
        elif known.offset and not known.rotated and not self._continue_replaced(known, path):
            if self._may_yet_come(known):
                self._known.setdefault(known.source, []).append(known)
                return
            why = f"what followed byte {known.offset} of the file read before is in no rotated copy"
            self._pending.append(self._gap(known.source, "vanished", why))
        if tail is None or checkpoint_key(tail.checkpoint()) != checkpoint_key(known):
            self._forgotten.append(checkpoint_key(known))

    def _may_yet_come(self, known: Checkpoint) -> bool:
        """True while names may still be moving under the look; the row stays stored, whatever happens meanwhile."""
        now_s = self._clock.monotonic()
        return now_s - self._missed_s.setdefault(checkpoint_key(known), now_s) < MISSED_S

    def _continue_here(self, known: Checkpoint, path: str) -> bool:
        """Go on in the file that has the name and the inode number; False if it is another one."""
        try:
            tail = self._lives.open(path, known.source)
        except OSError as error:
            self._report_unreadable(known.source, error.strerror or "cannot be opened")
            self._known.setdefault(known.source, []).append(known)
            return True
        if tail.identity != (known.device, known.inode) or is_other_file(tail, known):
            tail.close()
            return False
        self._make_current(tail)
        if tail.resume(known):
            return True
        reason = "truncated" if tail.size() < known.offset else "rewritten"
        gap = self._gap(known.source, reason, "changed while the agent was down")
        self._pending.append(self._cut_in_place(tail, known, gap))
        return True

    def _continue_replaced(self, known: Checkpoint, path: str | None) -> bool:
        """The name went to a changed copy of the same life while the agent was down."""
        if path is None or known.source in self._current or not known.head_len:
            return False
        try:
            tail = self._lives.open(path, known.source)
        except OSError:
            return False
        if tail.identity in self._claims or not tail.begins(known):
            tail.close()
            return False
        self._make_current(tail)
        self._replaced(tail, known)
        return True

    # -- saying what cannot be seen -------------------------------------------------------------------------------

    def _report_unreadable(self, source: str, why: str) -> None:
        if self._unreadable.get(source) != why:
            self._unreadable[source] = why
            self._pending.append(self._gap(source, "unreadable", why))

    def _gap(self, source: str, reason: str, detail: str, *, about: str = "") -> Gap:
        return Gap(source=source, reason=reason, at_utc=self._clock.now(), detail=detail, about=about)


def _mark(copy: Tail) -> str:
    """Names one cut by the copy that was made for it, however often a crash makes us find that copy."""
    return "{}:{}:{}".format(*copy.identity, copy.born_ns or copy.checkpoint().changed_ns)
