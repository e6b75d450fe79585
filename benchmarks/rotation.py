"""Lines lost and lines that came twice under rotation and kill -9: ours beside rsyslog's imfile and syslog-ng's file.

python -m benchmarks.rotation [--rotations 1000] [--kills 200] [--rate 1000] [--modes rename,copytruncate,...]
                              [--rsyslogd PROGRAM] [--syslog-ng PROGRAM]

Debian's packages of the two peers exclude each other: unpack one with `dpkg -x`, name its program, and set
RSYSLOG_MODDIR to the folder of its modules.

A writer appends numbered lines and reopens its log on SIGHUP, as daemons do. The real logrotate rotates it every 0.1 to
0.4 s; at random moments all readers are killed (SIGKILL) and started again. Each reader stores what it read: ours as
matches of a rule that every line matches, the peers in a file. `lost` is what a reader never had, `on disk` how much of
that still lies in some file afterwards (the reader's own fault; the rest logrotate lost between copy and truncation),
`gaps` what ours reported. The peers run with their safest settings: rsyslog with inotify, `persistStateInterval=1` and
`reopenOnTruncate`, syslog-ng with its persist file and flow control; neither reads compressed files.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import subprocess
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.watch.torture import MODES, Daemon, FileWriter, OurAgent, Torture, ended, our_agent


def rsyslog(program: str, root: Path, log: Path) -> FileWriter:
    work = root / "rsyslog"
    work.mkdir()
    config = work / "rsyslog.conf"
    config.write_text(
        textwrap.dedent(f"""\
        global(workDirectory="{work}")
        module(load="imfile" mode="inotify")
        template(name="plain" type="string" string="%msg%\\n")
        input(type="imfile" File="{log}" Tag="t:" persistStateInterval="1" reopenOnTruncate="on" ruleset="out")
        ruleset(name="out") {{ action(type="omfile" file="{work}/out" template="plain") }}
        """)
    )
    command = (program, "-n", "-f", str(config), "-i", str(work / "pid"))
    return FileWriter(name="rsyslog imfile", command=command, output=work / "out")


def syslog_ng(program: str, root: Path, log: Path) -> FileWriter:
    work = root / "syslog-ng"
    work.mkdir()
    config = work / "syslog-ng.conf"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    number = version.partition("Config version: ")[2].split()[0]
    config.write_text(
        textwrap.dedent(f"""\
        @version: {number}
        options {{ keep-hostname(yes); }};
        source s {{ file("{log}" follow-freq(0.1) flags(no-parse)); }};
        destination d {{ file("{work}/out" template("$MSG\\n")); }};
        log {{ source(s); destination(d); flags(flow-control); }};
        """)
    )
    command = (
        program, "--foreground", "--no-caps", "--cfgfile", str(config), "--persist-file", str(work / "persist"),
        "--control", str(work / "control"), "--pidfile", str(work / "pid"),
    )  # fmt: skip
    return FileWriter(name="syslog-ng file", command=command, output=work / "out")


Peer = Callable[[Path, Path], FileWriter]


def run(mode: str, rotations: int, kills: int, rate: int, peers: Sequence[Peer]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        torture = Torture(root, mode, rate=rate)
        agent: OurAgent = our_agent(root, torture.log)
        readers: list[Daemon] = [agent]
        readers += [make(root, torture.log) for make in peers]
        begin = time.monotonic()
        with ended(readers):
            outcomes = torture.run(readers, rotations=rotations, kills=kills)  # type: ignore[arg-type]
        for outcome in outcomes:
            gaps = Counter(agent.gaps()) if outcome.name == agent.name else {}
            said = ", ".join(f"{count} {reason}" for reason, count in sorted(gaps.items()))
            if gaps and mode == "copytruncate":
                holes = set(torture.holes())
                untold = len(holes - set(agent.cuts()))
                said += f" for {len(holes)} holes that logrotate made, {untold} of them untold"
            wall = time.monotonic() - begin
            print(
                f"{mode:13} {outcome.name:15} {outcome.rotations:9} {outcome.kills:5} {outcome.written:9,}"
                f" {outcome.missing:7,} {outcome.missing_on_disk:7,} {outcome.twice:7,} {wall:6.0f}  {said}",
                flush=True,
            )


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rotations", type=int, default=1000)
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--rate", type=int, default=1000)
    arguments.add_argument("--modes", default=",".join(MODES))
    arguments.add_argument("--rsyslogd", default="rsyslogd")
    arguments.add_argument("--syslog-ng", default="syslog-ng")
    chosen = arguments.parse_args()
    peers: list[Peer] = []
    for program, make in ((chosen.rsyslogd, rsyslog), (chosen.syslog_ng, syslog_ng)):
        if shutil.which(program) is None:
            print(f"{program} is not installed: it does not run beside ours")
        else:
            peers.append(functools.partial(make, program))
    print(
        f"{'style':13} {'reader':15} {'rotations':>9} {'kills':>5} {'lines':>9} {'lost':>7} {'on disk':>7} {'twice':>7}"
        f" {'wall s':>6}  gaps of ours",
        flush=True,
    )
    for mode in chosen.modes.split(","):
        run(mode, chosen.rotations, chosen.kills, chosen.rate, peers)


if __name__ == "__main__":
    main()
