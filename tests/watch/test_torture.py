"""The short form of benchmarks/rotation.py: real logrotate, real writer, kill -9. Nothing lost, nothing twice."""

from __future__ import annotations

import shutil

import pytest

from tests.watch.torture import MODES, Torture, ended, our_agent

pytestmark = pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", MODES)
def test_rotations_and_kills_lose_no_line_and_repeat_none(tmp_path, mode: str):
    torture = Torture(tmp_path, mode, rate=2000, pause_s=(0.05, 0.25))
    agent = our_agent(tmp_path, torture.log)
    with ended([agent]):
        [outcome] = torture.run([agent], rotations=16, kills=4)
    assert outcome.written > 3000
    assert outcome.twice == 0
    assert outcome.missing_on_disk == 0
    if mode == "copytruncate":
        assert set(agent.gaps()) == {"copytruncate"}
        cuts = agent.cuts()
        assert set(torture.holes()) <= set(cuts)  # each loss that logrotate made is on record
        assert len(set(cuts)) == len(cuts) <= 16  # and no cut twice, whatever was killed
    else:
        assert outcome.missing == 0
        # a log that is compressed while its writer still writes to it loses lines that we have read: that is said
        saved = set(agent.numbers()) - torture.on_disk()
        assert set(agent.gaps()) <= ({"archive_short"} if saved else set())
