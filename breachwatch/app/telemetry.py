"""Telemetry: a thread that ships signals to Elasticsearch, and the upkeep of the table that is its spool.

Nothing else depends on it. With the server away the signals stay where they are, on disk, and the host goes on
detecting and telling; the operator hears once that it is away and once that it is back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import tenacity

from breachwatch import __version__
from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import daemon_signal, gap_signal
from breachwatch.app.retention import Retention
from breachwatch.app.state import StateLayout
from breachwatch.app.wake import poke
from breachwatch.config.settings import Settings
from breachwatch.errors import BreachWatchError, FleetError, StoreError
from breachwatch.fleet.indices import index_template, template_name
from breachwatch.fleet.shipper import READER, Shipper
from breachwatch.model import Gap, Signal
from breachwatch.ports import Clock
from breachwatch.store.agent import SqliteAgentStore

if TYPE_CHECKING:
    from breachwatch.fleet.client import TelemetryServer

LOOK_S = 1.0
"""How often it looks for new signals; the look is one pragma when there are none."""

WAIT_FIRST_S, WAIT_MOST_S = 1.0, 30.0
"""Range of the random, growing waits between tries: a fleet must not come back all at once."""

CAP_EVERY_S = 600.0
"""How often the size of the spool is looked at; costs one pass over what is still to be sent."""

DEFECT_WAIT_S = 60.0
"""After an error that no one foresaw."""

REFUSED = "telemetry_refused"
"""Action of the record about a document that the server will never take."""


class Telemetry:
    """The shipping thread of one state directory. Made by `start_telemetry`."""

    def __init__(
        self,
        settings: Settings,
        layout: StateLayout,
        say: Callable[[str], None],
        clock: Clock,
        server: TelemetryServer,
        *,
        prune: bool,
    ) -> None:
        self._settings, self._layout, self._say, self._clock, self._server = settings, layout, say, clock, server
        self._prefix = settings.elasticsearch.index_prefix
        self._store = SqliteAgentStore(layout.agent_db)
        try:
            self._store.acknowledge(READER, 0)  # from here on nothing that it has not sent is pruned
        except StoreError:
            self._store.close()
            raise
        self._shipper = Shipper(
            spool=self._store,
            server=server,
            clock=clock,
            prefix=self._prefix,
            on_refused=self._on_refused,
            version=__version__,
        )
        days = settings.state.signal_retention_days
        self._retention = Retention(self._store, clock, days, (READER,)) if prune else None
        self._stop = threading.Event()
        self._away = False
        self._said = ""
        self._prepared = self._told_template = False
        self._seen_token: int | None = None
        self._next_cap_s = 0.0
        self._thread = threading.Thread(target=self._run, name="telemetry")

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the request under way; what is not acknowledged is sent by the next one."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._server.close()
        self._store.close()

    def _run(self) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((FleetError, StoreError)),
            wait=tenacity.wait_random_exponential(multiplier=WAIT_FIRST_S, max=WAIT_MOST_S),
            stop=tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=self._on_failure,
            reraise=True,
        )
        while not self._stop.is_set():
            try:
                shipped = retrying(self._look)
            except (FleetError, StoreError):
                return  # told to stop meanwhile
            except Exception as error:  # noqa: BLE001  # the boundary: a defect here must not end the hub, nor be silent
                self._tell_once(f"telemetry defect: {type(error).__name__}; signals stay on disk, it is tried again")
                self._stop.wait(DEFECT_WAIT_S)
                continue
            if not shipped:
                self._stop.wait(LOOK_S)

    def _look(self) -> int:
        """Ship what is new. Raises: FleetError, StoreError."""
        self._keep_house()
        if not self._prepared:
            self._prepare()
        token = self._store.change_token()
        if token == self._seen_token:
            return 0
        shipped = self._shipper.ship()
        if not shipped:
            self._seen_token = token
        self._back()
        return shipped

    def _prepare(self) -> None:
        installed = self._server.put_template(template_name(self._prefix), index_template(self._prefix))
        if not installed and not self._told_template:
            self._told_template = True
            self._say(
                "breachwatch telemetry: this key may not install index templates: signals are sent as they are;"
                " have a key with manage_index_templates start once before the first document"
            )
        self._prepared = True

    def _keep_house(self) -> None:
        if self._retention is not None:
            self._retention.tick()
        now_s = self._clock.monotonic()
        if now_s < self._next_cap_s:
            return
        self._next_cap_s = now_s + CAP_EVERY_S
        seq, count = self._store.beyond(READER, self._settings.elasticsearch.spool_cap_bytes)
        if not count:
            return
        detail = f"{count} signals up to {seq} will not reach Elasticsearch: elasticsearch.spool_cap_bytes is reached"
        gap = Gap(source="telemetry", reason="spool_full", at_utc=self._clock.now(), detail=detail)
        self._append(gap_signal(gap, self._settings.host.name))  # on record first, then given up
        self._store.acknowledge(READER, seq)
        self._say(f"breachwatch telemetry: {detail}")

    def _on_failure(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, FleetError):
            self._prepared = False  # it may come back empty, or as another version
            if not self._away:
                self._away = True
                self._record("telemetry_away", str(error))
            self._tell_once(f"server away: {error}; signals stay on disk")
        elif isinstance(error, BreachWatchError):
            self._tell_once(f"{error}; nothing is lost, it is tried again")

    def _back(self) -> None:
        self._said = ""
        if self._away:
            self._away = False
            self._say("breachwatch telemetry: server back")
            self._record("telemetry_back", "")

    def _on_refused(self, signal: Signal, reason: str) -> None:
        """On record before the signal is passed over; at its own time, so that a repeat is the same record."""
        self._say(f"breachwatch telemetry: refused for good: {signal.kind} {signal.id}: {reason}")
        if signal.action != REFUSED:  # a refused record about a refusal would go on for ever
            detail = f"{signal.kind} {signal.id}: {reason}"
            self._append(daemon_signal(REFUSED, detail, host=self._settings.host.name, at_utc=signal.at_utc))

    def _record(self, action: str, detail: str) -> None:
        try:
            self._append(daemon_signal(action, detail, host=self._settings.host.name, at_utc=self._clock.now()))
        except StoreError as error:
            self._say(f"breachwatch telemetry: could not record {action}: {error}")

    def _append(self, signal: Signal) -> None:
        self._store.append_signals([signal])
        self._seen_token = None  # the token tells of other processes' commits only
        poke(self._layout.wake)

    def _tell_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(f"breachwatch telemetry: {text}")


def start_telemetry(
    settings: Settings,
    layout: StateLayout,
    say: Callable[[str], None],
    *,
    clock: Clock | None = None,
    prune: bool = False,
) -> Telemetry | None:
    """Ship this state directory's signals until `close`; None when no server is configured.

    `prune`: no hub works on this directory, so old signals go as soon as they are shipped. A hub prunes by itself.
    Raises: ConfigError (address, CA file or fingerprint cannot be used), StoreError.
    """
    elastic = settings.elasticsearch
    if not elastic.url:
        store = SqliteAgentStore(layout.agent_db)
        try:
            store.forget_reader(READER)  # a server that was taken out of the configuration must not hold up pruning
        finally:
            store.close()
        return None
    from breachwatch.fleet.client import ServerSettings, TelemetryServer  # large: only where it is used

    server = TelemetryServer(
        ServerSettings(
            url=elastic.url,
            api_key=elastic.api_key.get_secret_value(),
            ca_file=elastic.ca_file,
            fingerprint=elastic.fingerprint,
        )
    )
    telemetry = Telemetry(settings, layout, say, clock or SystemClock(), server, prune=prune)
    telemetry.start()
    return telemetry
