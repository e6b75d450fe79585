"""The hub: signals become incidents, playbooks say what to do, the outbox sends, every step lands in the audit trail.

Three parts in one process: ingest and conductor in the main thread, the sending engine in a second one, telemetry in a
third if Elasticsearch is configured. Each holds up none of the others; all state is on disk before it has an effect.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from breachwatch.app.addressees import Addressees
from breachwatch.app.clock import SystemClock
from breachwatch.app.conduct import Conductor
from breachwatch.app.desk import NoticeDesk, open_desk
from breachwatch.app.ingest import READER, Ingest, digest
from breachwatch.app.perform import Performer
from breachwatch.app.playbooks import DutyBook, known_names, load_duty_book, load_playbooks
from breachwatch.app.process import Asked
from breachwatch.app.retention import Retention
from breachwatch.app.state import ALIVE_EVERY_S, StateLayout, hold_lock, prepare_state, write_alive
from breachwatch.app.systemd import sd_notify
from breachwatch.app.telemetry import start_telemetry
from breachwatch.app.wake import WakePipe
from breachwatch.app.wiring import open_hub_store
from breachwatch.audit.vault import Vault
from breachwatch.config.settings import Settings, load_settings
from breachwatch.errors import BreachWatchError, PlaybookError, StoreError
from breachwatch.model import Channel, Entry
from breachwatch.notify.channels import CHANNELS, ChatChannel, SmsGatewayChannel, SmsSettings, SmtpChannel, SmtpSettings
from breachwatch.notify.outbox import OutboxEngine
from breachwatch.playbook.schema import Playbook
from breachwatch.ports import ChannelSender, Clock
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.store.hub import HubStore
from breachwatch.store.vault import SqliteVaultRows

LOOK_S = 1.0
"""How often the hub looks by itself; a poke wakes it at once."""

TROUBLE_S = 5.0
"""How long it waits after the state could not be written (full disk, locked) before it tries again."""


def channel_factories(settings: Settings) -> Mapping[Channel, Callable[[], ChannelSender]]:
    """A maker for each channel that is set up."""
    smtp, sms = settings.smtp, settings.sms
    made: dict[Channel, Callable[[], ChannelSender]] = {}
    if smtp.host:
        mail = SmtpSettings(
            host=smtp.host,
            port=smtp.port,
            tls=smtp.tls,
            user=smtp.user,
            password=smtp.password.get_secret_value(),
            ca_file=smtp.ca_file,
            timeout_s=smtp.timeout_s,
            sender=smtp.sender,
        )
        made[Channel.EMAIL] = lambda: SmtpChannel(mail)
    if sms.url:
        gateway = SmsSettings(
            url=sms.url,
            token=sms.token.get_secret_value(),
            timeout_s=sms.timeout_s,
            body=sms.body,
            headers=sms.headers,
        )
        made[Channel.SMS] = lambda: SmsGatewayChannel(gateway)
    if settings.chat:
        rooms = {room.name: room.url.get_secret_value() for room in settings.chat}
        made[Channel.CHAT] = lambda: ChatChannel(rooms)
    assert set(made) <= set(CHANNELS)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """What SIGHUP reads again."""

    desk: NoticeDesk
    playbooks: tuple[Playbook, ...]


def load_guidance(settings: Settings, layout: StateLayout, book: DutyBook) -> Guidance:
    """Templates and playbooks. Raises: TemplateError, PlaybookError with file and line."""
    desk = open_desk(settings, layout)
    return Guidance(desk=desk, playbooks=load_playbooks(settings, known_names(settings, desk.templates, book)))


class Hub:
    """The parts of one hub, opened on one state directory."""

    def __init__(self, settings: Settings, layout: StateLayout, clock: Clock, say: Callable[[str], None]) -> None:
        self._settings, self._layout, self._clock, self._say = settings, layout, clock, say
        self._book = load_duty_book()
        guidance = load_guidance(settings, layout, self._book)
        self.store: HubStore = open_hub_store(settings)
        self._signals = SqliteAgentStore(layout.agent_db)
        self._rows = SqliteVaultRows(layout.vault_db)
        vault = Vault(self._rows, layout.keys)
        self._ingest = Ingest(self._signals, self.store, clock)
        performer = Performer(self.store, vault, Addressees(settings), guidance.desk, clock, say)
        self._conductor = Conductor(
            self.store, performer, clock, guidance.playbooks, self._book.duties_of, self._incident_trouble
        )
        self._engine = OutboxEngine(
            self.store,
            vault,
            channel_factories(settings),
            guidance.desk.renderer,
            clock=clock,
            worker_id=f"{settings.host.name}-{os.getpid()}-{secrets.token_hex(4)}",
            workers=settings.smtp.connections,
            on_trouble=self._state_trouble,
            on_channel=self._channel_trouble,
        )
        self._stop, self._engine_wake = threading.Event(), threading.Event()
        self._sender = threading.Thread(target=self._send, name="outbox")
        self._defect: BaseException | None = None
        self._next_alive = 0.0
        self._said: set[str] = set()
        self._token: tuple[int, int | None] = (-1, None)
        self._retention = Retention(self._signals, clock, settings.state.signal_retention_days, (READER,))

    def start(self) -> None:
        """Take back what a dead process held and begin to send. Raises: StoreError."""
        self._engine.recover()
        self._record("hub_started", f"{len(self._conductor.playbooks)} playbooks")
        self._sender.start()

    def _send(self) -> None:
        try:
            self._engine.run(self._stop, self._engine_wake)
        except BaseException as error:  # noqa: BLE001  # told to the main thread, which ends the process
            self._defect = error

    def tick(self) -> int:
        """One look at everything; returns how much was done. Raises: whatever ended the sending thread."""
        if self._defect is not None:
            raise self._defect
        try:
            self._beat()
            self._retention.tick()
            if not self._may_have_work():
                return 0
            done = self._ingest.tick()
            acted = self._conductor.tick()
        except StoreError as error:
            self._token = (-1, None)
            self._state_trouble(error)
            self._stop.wait(TROUBLE_S)
            return 0
        if acted:
            self._engine_wake.set()
        self._said.clear()
        return done + acted

    def _may_have_work(self) -> bool:
        """Whether anybody committed since the last look, or something is due: idling costs two cheap questions."""
        due, token = self._conductor.next_look(), (self._signals.change_token(), self.store.change_token())
        is_due = due is not None and due <= self._clock.now()
        unchanged = token == self._token and token[1] is not None
        self._token = token
        return is_due or not unchanged

    def pause_s(self) -> float:
        """How long nothing is due."""
        due = self._conductor.next_look()
        if due is None:
            return LOOK_S
        return min(LOOK_S, max(0.0, (due - self._clock.now()).total_seconds()))

    def reload(self, config: Path | None) -> None:
        """Take new playbooks and templates if every file is sound, else keep the old ones and say so."""
        try:
            guidance = load_guidance(load_settings(config), self._layout, self._book)
        except BreachWatchError as error:
            self._say(f"breachwatch hub: playbooks_kept: {error}")
            self._record("playbooks_kept", str(error))
            return
        self._conductor.playbooks = guidance.playbooks
        self._conductor.performer = replace(self._conductor.performer, desk=guidance.desk)
        self._conductor.forget()
        self._token = (-1, None)
        self._say(f"breachwatch hub: playbooks_reloaded: {len(guidance.playbooks)} playbooks")
        self._record("playbooks_reloaded", f"{len(guidance.playbooks)} playbooks")

    def close(self) -> None:
        """End the sends under way, record what came of them, release everything. Raises: StoreError."""
        self._stop.set()
        self._engine_wake.set()
        if self._sender.is_alive():
            self._sender.join()
        try:
            self._engine.close()
            self._record("hub_stopped", "")
        finally:
            self._signals.close()
            self._rows.close()
            self.store.close()

    def _beat(self) -> None:
        now_s = self._clock.monotonic()
        if now_s >= self._next_alive:
            self._next_alive = now_s + ALIVE_EVERY_S
            write_alive(self._layout.alive("hub"), self._clock.now())

    def _record(self, action: str, detail: str) -> None:
        now = self._clock.now()
        with self.store.transaction() as tx:
            tx.audit(Entry(type=f"daemon.{action}", at_utc=now, body={"detail_sha256": digest(detail)}))

    def _state_trouble(self, error: BreachWatchError) -> None:
        """Said once per kind: a full disk must not be filled by what is said about it."""
        if str(error) not in self._said:
            self._said.add(str(error))
            self._say(f"breachwatch hub: {error}; nothing is lost, it is tried again")

    def _channel_trouble(self, channel: Channel, error: BreachWatchError | None) -> None:
        if error is None:
            self._say(f"breachwatch hub: {channel} works again")
        else:
            self._say(f"breachwatch hub: {channel} does not work: {error}; its messages wait, it is tried again")

    def _incident_trouble(self, incident_id: str, error: BreachWatchError) -> None:
        self._say(f"breachwatch hub: {incident_id}: {error}")
        self._record("incident_trouble", f"{incident_id}: {error}")


def serve_hub(settings: Settings, config: Path | None) -> int:
    """Run until SIGTERM; 0 after a clean stop. Raises: LockedError, StoreError, PlaybookError, TemplateError."""
    layout = prepare_state(Path(settings.state.directory))
    lock = hold_lock(layout.lock("hub"), "a breachwatch hub")
    pipe = WakePipe(layout.wake)
    asked = Asked()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            asked.reload = True
        else:
            asked.stop = True
        pipe.poke()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        hub = Hub(settings, layout, SystemClock(), _say)
        try:
            hub.start()
            telemetry = start_telemetry(settings, layout, _say)
            try:
                sd_notify("READY=1", "STATUS=hub is running")
                _loop(hub, pipe, asked, config)
            finally:
                if telemetry is not None:
                    telemetry.close()
        finally:
            hub.close()
    finally:
        pipe.close()
        lock.close()
    return 0


def _loop(hub: Hub, pipe: WakePipe, asked: Asked, config: Path | None) -> None:
    while not asked.stop:
        if asked.reload:
            asked.reload = False
            hub.reload(config)
        if hub.tick() == 0 and not asked.stop:
            pipe.wait(hub.pause_s())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # the supervisor's log


__all__ = ["Hub", "PlaybookError", "channel_factories", "serve_hub"]
