"""A mail server that refuses, hangs or dies half way under the hub: said once, nobody missed, said when it is back."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from breachwatch.model import DeliveryState, StepState
from tests.app.hub_host import Desk
from tests.conftest import FakeClock
from tests.sinks import index, sink

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise, at import


def free_port() -> int:
    """Where nobody listens now, and somebody will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def told(folder: Path) -> list[str]:
    return [str(to) for item in index(folder) for to in item["to"]]  # type: ignore[attr-defined]


def approved(desk: Desk) -> str:
    """An incident whose notice to the authority is on its way."""
    incident = desk.break_in()
    desk.confirm(incident)
    desk.approve(desk.draft(incident, "authority"))
    desk.settle()
    return incident


HABITS = {
    "refuses": (("--closing",), "refused the connection and closes"),
    "hangs at the greeting": (("--hang-at-greeting",), "does not work"),
    "hangs at a recipient": (("--hang", "authority@sa.example"), "does not work"),
}


@pytest.mark.parametrize("habit", ["is not there", *HABITS])
def test_a_mail_server_that_does_not_work_is_said_once_and_afterwards_everybody_is_told(
    tmp_path: Path, clock: FakeClock, habit: str
) -> None:
    port = free_port()
    desk = Desk(tmp_path, port, clock, change={'tls = "none"': 'tls = "none"\ntimeout_s = 1.0'})
    try:
        incident = approved(desk)
        (campaign,) = desk.campaigns(incident, "mine/authority")
        if habit == "is not there":
            desk.send(lambda: bool(desk.said), "it is said")
        else:
            options, words = HABITS[habit]
            with sink("smtp", tmp_path / "bad", "--port", str(port), *options):
                desk.send(lambda: bool(desk.said), "it is said")
            assert words in desk.said[0]
        assert desk.said[0].startswith("breachwatch hub: email does not work: ")
        assert "authority@sa.example" not in desk.said[0]
        for _ in range(3):
            clock.advance(120)
            desk.hub._engine.tick()
            desk.settle()
        assert len(desk.said) == 1, "not at every try"
        assert DeliveryState.FAILED not in desk.counts(campaign)
        with sink("smtp", tmp_path / "good", "--port", str(port)):

            def is_done() -> bool:
                clock.advance(60)
                return desk.step(incident, "authority").state is StepState.DONE

            desk.send(is_done, "the authority is told")
        assert told(tmp_path / "good") == ["authority@sa.example"]
        assert desk.said[1:] == ["breachwatch hub: email works again"]
    finally:
        desk.close()


def test_a_mail_server_that_dies_half_way_through_the_customers_costs_nobody(tmp_path: Path, clock: FakeClock) -> None:
    people = "".join(f"KH-{n},Khách {n},kh{n}@customers.example\n" for n in range(40))
    (tmp_path / "customers.csv").write_text("id,name,email\n" + people, encoding="utf-8")
    port = free_port()
    desk = Desk(tmp_path, port, clock)
    try:
        with sink("smtp", tmp_path / "first", "--port", str(port), "--die-after", "3", "--close-after-dot", "2"):
            incident = approved(desk)
            desk.approve(desk.draft(incident, "customers"))

            def is_half_way() -> bool:
                clock.advance(60)
                return len(told(tmp_path / "first")) >= 10

            desk.send(is_half_way, "some are told")
        with sink("smtp", tmp_path / "second", "--port", str(port)):

            def is_done() -> bool:
                clock.advance(60)
                return desk.step(incident, "customers").state is StepState.DONE

            desk.send(is_done, "the others are told")
        (campaign,) = desk.campaigns(incident, "mine/customers")
        assert desk.counts(campaign) == {DeliveryState.ACCEPTED: 40}
        everybody = {to for folder in ("first", "second") for to in told(tmp_path / folder) if "customers" in to}
        assert everybody == {f"kh{n}@customers.example" for n in range(40)}
    finally:
        desk.close()
