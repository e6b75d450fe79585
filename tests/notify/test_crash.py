"""kill -9 in the middle of a campaign: nobody is missed, copies are few and the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from breachwatch.audit.verify import verify_log
from breachwatch.model import CampaignState, DeliveryState
from tests.notify.installation import Installed, people
from tests.sinks import ROOT, index, sink

PEOPLE = 2_000
KILLS = 8
WINDOW = 100
"""`max_unrecorded` of the engine: what one kill can send twice."""


def sending(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.notify.installation", str(folder), str(port)]
    return subprocess.Popen(command, cwd=ROOT, env=dict(os.environ))


def is_done(installed: Installed) -> bool:
    with installed.store.reading() as view:
        campaign = view.outbox.campaign("c1")
        assert campaign is not None
        return campaign.state is CampaignState.DONE


@pytest.mark.timeout(180)
def test_a_campaign_survives_kill_nine_with_nobody_missed_and_copies_only_in_the_window(tmp_path: Path) -> None:
    installed = Installed(tmp_path)
    installed.add(people(PEOPLE))
    chance = random.Random(3)
    kills = 0
    with sink("smtp", tmp_path / "sink") as port:
        while not is_done(installed):
            process = sending(tmp_path, port)
            if kills < KILLS:
                before = len(index(tmp_path / "sink"))
                wanted = before + chance.randrange(1, PEOPLE // KILLS)
                while len(index(tmp_path / "sink")) < wanted and not is_done(installed):
                    time.sleep(0.005)
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                continue
            while not is_done(installed):
                time.sleep(0.05)
            process.terminate()
            assert process.wait(20) == 0
    received = Counter(str(line["message_id"]) for line in index(tmp_path / "sink"))
    addresses = Counter(str(to) for line in index(tmp_path / "sink") for to in line["to"])  # type: ignore[attr-defined]
    assert kills == KILLS
    assert len(addresses) == PEOPLE, "somebody was missed"
    assert len(received) == PEOPLE, "a copy went out under another Message-ID"
    copies = sum(received.values()) - PEOPLE
    assert copies <= kills * WINDOW
    print(f"{kills} kills, {copies} copies, at most {max(received.values())} of one message")
    assert max(received.values()) <= 4
    with installed.store.reading() as view:
        assert view.outbox.counts("c1") == {DeliveryState.ACCEPTED: PEOPLE}
    check_trail(installed, set(received))
    installed.close()


def check_trail(installed: Installed, message_ids: set[str]) -> None:
    """Every delivery has its intent before and its outcome after, and the trail verifies."""
    intended: set[object] = set()
    for entry in installed.entries():
        body = entry["body"]
        assert isinstance(body, dict)
        if entry["type"] == "notify.intent":
            intended.add(body["message_id"])
        elif entry["type"] == "notify.outcome":
            assert body["message_id"] in intended
            if body["result"] == "accepted":
                assert len(str(body["sha256"])) == 64
                message_ids.discard(str(body["message_id"]))
    assert not message_ids
    with installed.store.reading() as view:
        verify_log(view.audit_tiles, installed.signer.verifier)
