"""Our own scan as a runner, and rules chosen from a folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.detect.race import Runner
from benchmarks.lines import Maker
from breachwatch.app.rules import rules_in
from breachwatch.detect.rule import And, Condition, Keyword, Not, Or, Rule
from breachwatch.detect.ruleset import RuleSet

ROOT = Path(__file__).resolve().parent.parent.parent
SHIPPED = ROOT / "rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every row needs."""

    sigmahq: Path
    """The folder `rules` of SigmaHQ."""
    scratch: Path
    made: Path | None
    """Has logs made elsewhere, which are used instead of our own."""
    size_bytes: int
    runs: int

    @property
    def cache(self) -> Path:
        """Our cache of parsed rules, apart from the user's."""
        return self.scratch / "cache"

    def data(self, kind: str, share: float) -> Path:
        """The made-up log of this kind, made when first asked for."""
        file = (self.made or self.scratch) / f"{kind}-{share}.log"
        if self.made is None and not file.exists():
            file.write_bytes(Maker(kind, share).lines(self.size_bytes))
        return file

    def keyword_rules(self) -> Path:
        """The Linux rules that search for nothing but keywords, as a folder of their own."""
        chosen = self.scratch / "keyword-rules"
        if not chosen.exists():
            chosen.mkdir()
            for number, rule in enumerate(self.rules(self.sigmahq / "linux")):
                if all(isinstance(leaf, Keyword) for leaf in leaves(rule.condition)):
                    shutil.copy(file_of(rule), chosen / f"{number}.yml")
        return chosen

    def failed_logins(self, *, windows: bool) -> Path:
        """Our shipped SSH rules without those that need logins that were accepted: what fail2ban's filter is about.

        `windows`: with those that count such lines.
        """
        chosen = self.scratch / ("failed-logins" if windows else "failed-login-lines")
        if not chosen.exists():
            chosen.mkdir()
            for file in (SHIPPED / "ssh").glob("*.yml"):
                text = file.read_text()
                if "accepted" not in text and "success" not in text and (windows or "\ncorrelation:" not in text):
                    shutil.copy(file, chosen / file.name)
        return chosen

    def loaded(self, folder: Path) -> RuleSet:
        """The rules of a folder, and what goes with them."""
        return rules_in([folder], cache=self.cache / "breachwatch")

    def rules(self, folder: Path) -> tuple[Rule, ...]:
        """The rules of a folder."""
        return tuple(self.loaded(folder).rules)

    def scan(self, rules: Path, log_format: str, *extra: str, name: str = "breachwatch scan") -> Runner:
        """Our command over a file."""
        options = ("--format", log_format, "--rules", str(rules), "--json", *extra)
        return Runner(
            name=name,
            command=lambda file: (sys.executable, "-m", "breachwatch", "scan", *options, str(file)),
            found=matches,
            folder=ROOT,
            environment={"XDG_CACHE_HOME": str(self.cache)},
        )


def matches(output: Path) -> tuple[int, Mapping[str, int]]:
    """Matches that `scan --json` printed or counted, by rule."""
    by_rule: Counter[str] = Counter()
    with output.open("rb") as printed:
        for line in printed:
            if line.startswith(b'{"kind":"match"'):
                by_rule[json.loads(line)["rule.id"]] += 1
            elif line.startswith(b'{"kind":"count"'):
                counted = json.loads(line)
                by_rule[counted["rule.id"]] += counted["matches"]
    return by_rule.total(), by_rule


def leaves(condition: Condition) -> Iterator[Condition]:
    """What a condition is made of."""
    if isinstance(condition, And | Or):
        for part in condition.parts:
            yield from leaves(part)
    elif isinstance(condition, Not):
        yield from leaves(condition.part)
    else:
        yield condition


def file_of(rule: Rule) -> Path:
    """Where a rule was read from."""
    return Path(rule.source.rpartition(":")[0])
