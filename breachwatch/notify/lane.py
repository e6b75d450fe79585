"""The threads of one channel: each keeps a connection, takes a job, tries once and says what came of it.

A channel that hangs keeps its own threads busy and nobody else's; one that is down rests and burns nobody's attempt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from queue import Empty, SimpleQueue

from breachwatch.errors import (
    BreachWatchError,
    ChannelDownError,
    DeliveryError,
    PermanentDeliveryError,
    TemplateError,
    TransientDeliveryError,
)
from breachwatch.model import Accepted, Channel, Delivery, OutgoingMessage, Person
from breachwatch.notify.campaign import FrozenNotice, NoticeRenderer
from breachwatch.notify.retry import breaker_delay_s
from breachwatch.ports import ChannelSender, Clock

IDLE_S = 20.0
"""A connection that nobody used this long is closed: servers count the ones that are open."""


PERMIT_S = 0.5
"""How often a thread that waits for results to be recorded looks whether it should stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One claimed delivery with everything that sending it takes."""

    delivery: Delivery
    notice: FrozenNotice
    person: Person = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one job. Neither accepted nor an error: it was not tried."""

    delivery: Delivery
    person: Person = field(repr=False)
    accepted: Accepted | None = None
    error: DeliveryError | TemplateError | None = None
    sent_sha256: str = ""
    sent_at: datetime | None = None
    code: str = ""

    @property
    def tried(self) -> bool:
        """Whether the channel was asked at all."""
        return self.accepted is not None or isinstance(self.error, DeliveryError)


class Lane:
    """Queue, threads, breaker and bounds of one channel."""

    def __init__(
        self,
        channel: Channel,
        factory: Callable[[], ChannelSender],
        renderer: NoticeRenderer,
        clock: Clock,
        *,
        workers: int,
        window: int,
        max_unrecorded: int,
        done: Callable[[Outcome], None],
    ) -> None:
        self.channel = channel
        self.claimed = 0
        """Jobs dispatched and not recorded yet. Only the engine's thread changes it."""
        self.sendable: Collection[str] = frozenset()
        """Campaigns that are running, as of the last look: jobs of others are handed back."""
        self._factory, self._renderer, self._clock, self._done = factory, renderer, clock, done
        self._workers, self._window = workers, window
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._permits = threading.BoundedSemaphore(max_unrecorded)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._busy: dict[int, tuple[float, ChannelSender]] = {}
        self._failures = 0
        self._rest_until = 0.0
        self._stopping = False

    # -- the engine's side ----------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more deliveries to claim now: none while the channel rests, a few to try whether it is back."""
        if self._stopping or self._clock.monotonic() < self._rest_until:
            return 0
        limit = self._workers if self._failures else self._window
        return max(0, limit - self.claimed)

    def dispatch(self, jobs: Collection[Job]) -> None:
        """Hand claimed deliveries to the threads."""
        self.claimed += len(jobs)
        while len(self._threads) < min(self._workers, self.claimed):
            thread = threading.Thread(
                target=self._work, name=f"send-{self.channel}-{len(self._threads)}", daemon=True
            )  # daemon: a server that hangs must not keep the process from ending
            self._threads.append(thread)
            thread.start()
        for job in jobs:
            self._jobs.put(job)

    def recorded(self, outcome: Outcome) -> None:
        """An outcome is durable: its slot is free again."""
        self.claimed -= 1
        if outcome.tried:
            self._permits.release()

    def end_stuck(self, after_s: float) -> int:
        """Cut connections of sends that take longer than any time limit allows; returns how many."""
        now = self._clock.monotonic()
        with self._lock:
            stuck = [sender for since, sender in self._busy.values() if now - since > after_s]
        for sender in stuck:
            sender.close()
        return len(stuck)

    def stop(self) -> None:
        """Begin no further send."""
        self._stopping = True
        for _thread in self._threads:
            self._jobs.put(None)

    def join(self, grace_s: float) -> bool:
        """Wait for sends under way, then cut their connections; True when no thread is left."""
        self._join(grace_s)
        self.end_stuck(-1.0)
        self._join(grace_s)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        return not self._threads

    def _join(self, grace_s: float) -> None:
        deadline = self._clock.monotonic() + grace_s
        for thread in self._threads:
            # a test's clock may stand still: never more than `grace_s` for each
            thread.join(max(0.01, min(grace_s, deadline - self._clock.monotonic())))

    def leftovers(self) -> list[Job]:
        """Jobs that no thread will take any more."""
        left: list[Job] = []
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return left
            if job is not None:
                left.append(job)

    # -- the threads' side ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        sender: ChannelSender | None = None
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except Empty:
                if sender is not None:
                    sender.close()
                continue
            if job is None:
                break
            if not self._permit(job):
                self._done(Outcome(delivery=job.delivery, person=job.person))
                continue
            sender, outcome = self._try(sender, job)
            if not outcome.tried:
                self._permits.release()
            self._done(outcome)
        if sender is not None:
            sender.close()

    def _permit(self, job: Job) -> bool:
        """Wait until few enough results are unrecorded; False when the job is not to be sent any more."""
        while self._may_send(job):
            if self._permits.acquire(timeout=PERMIT_S):
                if self._may_send(job):  # the wait may have been long
                    return True
                self._permits.release()
                return False
        return False

    def _may_send(self, job: Job) -> bool:
        resting = self._clock.monotonic() < self._rest_until
        return not (self._stopping or resting or job.delivery.campaign_id not in self.sendable)

    def _try(self, sender: ChannelSender | None, job: Job) -> tuple[ChannelSender | None, Outcome]:
        delivery, person = job.delivery, job.person
        sent_at = self._clock.now().replace(microsecond=0)
        digest = ""
        try:
            message = self._renderer.build(
                job.notice, message_id=delivery.message_id, person=person, channel=self.channel, date=sent_at
            )
            digest = sha256(message.payload).hexdigest()
            if sender is None:
                sender = self._open()
            accepted = self._send(sender, message)
        except TemplateError as error:
            return sender, Outcome(delivery=delivery, person=person, error=error)
        except DeliveryError as error:
            self._weigh(error)
            return sender, Outcome(
                delivery=delivery, person=person, error=error, sent_sha256=digest, sent_at=sent_at, code=error.code
            )
        except Exception as error:  # noqa: BLE001  # a thread that dies of a defect would silently lose its channel
            defect = TransientDeliveryError("a defect in a channel", code=f"defect {type(error).__name__}")
            return sender, Outcome(delivery=delivery, person=person, error=defect, sent_at=sent_at, code=defect.code)
        self._failures = 0
        return sender, Outcome(
            delivery=delivery,
            person=person,
            accepted=accepted,
            sent_sha256=digest,
            sent_at=sent_at,
            code=accepted.code,
        )

    def _open(self) -> ChannelSender:
        try:
            return self._factory()
        except DeliveryError:
            raise
        except BreachWatchError as error:
            raise ChannelDownError(error.message, code="not configured", hint=error.hint) from error

    def _send(self, sender: ChannelSender, message: OutgoingMessage) -> Accepted:
        identity = threading.get_ident()
        with self._lock:
            self._busy[identity] = (self._clock.monotonic(), sender)
        try:
            return sender.send(message)
        finally:
            with self._lock:
                del self._busy[identity]

    def _weigh(self, error: DeliveryError) -> None:
        """A channel that is down rests, longer each time; any answer about a person shows that it is up."""
        with self._lock:
            if isinstance(error, ChannelDownError):
                now = self._clock.monotonic()
                if now >= self._rest_until:  # the other threads' failures are the same one
                    self._failures += 1
                    self._rest_until = now + max(
                        breaker_delay_s(self._failures), min(error.retry_after_s or 0.0, 3600.0)
                    )
            elif isinstance(error, PermanentDeliveryError):
                self._failures = 0
