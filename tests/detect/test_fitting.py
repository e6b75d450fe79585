"""Plans are fitted to the first lines, again when lines change, and kept from start to start: same matches always."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.app.rule_cache import PlanFiles
from breachwatch.detect import prefilter, selector
from breachwatch.detect.engine import Detector
from breachwatch.detect.partial import Programs
from breachwatch.detect.plan import LINE_WORK, Scope
from breachwatch.detect.prefilter import Scanner
from breachwatch.detect.rule import And, Condition, FieldTest, Rule
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.sample import Sampler
from breachwatch.detect.selector import Selector
from breachwatch.detect.stored import StoredPlan, restored, restored_plan, stored, stored_plan
from breachwatch.detect.values import ANY, Scalar, Text
from breachwatch.detect.witness import Pattern
from breachwatch.model import Block, Level, LogSource, RuleRef
from breachwatch.parse.rawform import FORMS
from tests.detect.test_engine import REFERENCE, found_in

pytest.importorskip("hyperscan")
pytest.importorskip("ahocorasick_rs")

HOW = SourceFormat(format="json")


@pytest.fixture(autouse=True)
def _few_lines_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selector, "FEW_BYTES", 6_400)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scanners that were compiled, `counting` ones (of literals, for one pass) apart."""
    names: list[str] = []

    def noting(name: str) -> None:
        real = prefilter.BACKENDS[name]

        def made(patterns: Sequence[Pattern], saved: Sequence[bytes]) -> Scanner:
            is_plan = any(pattern.is_regex for pattern in patterns)
            names.append((name if is_plan else "counting") + (" restored" if saved else ""))
            return real(patterns, saved)

        monkeypatch.setitem(prefilter.BACKENDS, name, made)

    noting("hyperscan")
    noting("ahocorasick_rs")
    return names


def has(text: str, name: str = "F") -> FieldTest:
    return FieldTest(name, Text((ANY, text, ANY)), "")


def rules_of(*conditions: Condition, logsource: LogSource | None = None) -> RuleSet:
    return RuleSet(
        rules=tuple(
            Rule(
                ref=RuleRef(id=f"r{number}", title="r", level=Level.LOW),
                logsource=logsource or LogSource(),
                condition=condition,
                source="test",
            )
            for number, condition in enumerate(conditions)
        )
    )


RULES = rules_of(And((has("alpha"), has("omega"))), And((has("omega"), has("gamma"))), has("kill"))
"""The first two can be found by either of two words."""


def block(*lines: str, repeat: int = 1, at: int = 0) -> Block:
    data = "".join(f'{{"F":"{line}"}}\n' for line in lines).encode() * repeat
    return Block(source="/var/log/x", data=data, offset=at, generation="g")


def work_of(rules: RuleSet, chosen: Selector | None, *, any_logsource: bool = True) -> Pipeline:
    return Pipeline(
        host="h",
        detector=Detector(rules, any_logsource=any_logsource),
        now=lambda: REFERENCE,
        prefilter=chosen is not None,
        selector=chosen,
        sampler=Sampler(every=0),
    )


def stream(*blocks: Block) -> list[Block]:
    """The blocks, one behind the other."""
    at, placed = 0, []
    for one in blocks:
        placed.append(Block(source=one.source, data=one.data, offset=at, generation="g"))
        at += len(one.data)
    return placed


def checked(chosen: Selector, blocks: list[Block], rules: RuleSet = RULES, *, any_logsource: bool = True) -> Pipeline:
    """The pipeline after these blocks, in which it found what reading every line finds."""
    work = work_of(rules, chosen, any_logsource=any_logsource)
    right = found_in(work_of(rules, None, any_logsource=any_logsource), blocks, HOW)
    assert found_in(work, blocks, HOW) == right
    assert right
    return work


def test_the_first_block_is_searched_for_what_is_rare_in_it_and_one_plan_is_compiled(compiled):
    chosen = Selector(RULES)
    work = checked(chosen, stream(block("alpha", "gamma", repeat=500), block("kill", "alpha omega"), block("alpha")))
    assert work.candidates == 2
    assert compiled == ["counting", "hyperscan"]


def test_a_quiet_source_gets_a_plan_that_costs_little_and_a_busy_one_a_fast_one(compiled):
    chosen = Selector(RULES)
    blocks = [block("alpha", "kill", "omega gamma")] * 3
    checked(chosen, stream(*blocks))
    assert compiled == ["ahocorasick_rs"], "three lines say nothing that is worth counting"
    size = sum(len(one.data) for one in blocks)
    busy = block("alpha", "gamma", repeat=1 + (selector.FEW_BYTES - size) // len(block("alpha", "gamma").data))
    work = checked(chosen, stream(busy, block("kill"), busy, block("omega alpha")))
    assert compiled[1:] == ["counting", "hyperscan"]
    assert work.candidates == 2


def test_sources_of_one_form_and_scope_share_a_plan(compiled):
    chosen = Selector(RULES)
    for _ in range(20):
        checked(chosen, [block("alpha kill")])
    assert len(compiled) == 1


def test_sources_of_one_form_and_several_scopes_keep_what_each_has_made(monkeypatch):
    made, real = [], Programs._made

    def noting(*given):
        made.append(given)
        return real(*given)

    monkeypatch.setattr(Programs, "_made", noting)
    chosen = Selector(RULES)
    data = block("alpha", "omega beta", "omega alpha beta", repeat=400).data
    for _ in range(10):
        for scope in (Scope(any_logsource=True), Scope(LogSource("linux"))):
            assert chosen.look(FORMS["json"], scope, data).candidates
    assert 0 < len(made) <= 8


def number_at(name: str) -> FieldTest:
    return FieldTest(name, Scalar("33", False), "")


def test_a_rule_whose_literals_are_in_every_line_is_found_by_an_expression(compiled):
    """One for which there is none, or only one that a scanner would refuse, stays with its literals."""
    long = "n" * 60_000
    rules = rules_of(number_at("F"), And((number_at("G"), has("omega"))), number_at(long))
    filler = b'{"F":%d,"G":33,"n":"alpha"}\n'
    lines = (
        b"".join(filler % number for number in range(100, 700)) + b'{"F":33}\n{"F":"33","n":1}\n{"G":33,"H":"omega"}\n'
    )
    chosen = Selector(rules)
    data = [Block(source="/var/log/x", data=lines, generation="g")]
    work = checked(chosen, data, rules)
    assert work.candidates == 3
    plan = chosen.plan(FORMS["json"], Scope(any_logsource=True))
    assert [pattern.is_regex for pattern in plan.witnesses[0] or ()] == [True]
    assert [pattern.is_regex for pattern in plan.witnesses[1] or ()] == [False]
    assert len(compiled) == 2


def test_rules_that_were_replaced_leave_no_plan_behind():
    kept = stored(RULES, "")
    restored(kept, "")
    rules = restored(kept, "")
    assert rules is not None
    chosen = Selector(rules)
    checked(chosen, BLOCKS, rules)
    old = weakref.ref(chosen.plan(FORMS["json"], Scope(any_logsource=True)))
    assert old() is not None
    restored(kept, "")  # the new ones come while the old ones are in use
    del chosen
    gc.collect()
    assert old() is None


@pytest.fixture
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selector, "WINDOW_BYTES", 10_000)
    monkeypatch.setattr(selector, "AGAIN_BYTES", 7_000)


@pytest.mark.usefixtures("_small_windows")
def test_lines_that_change_get_a_plan_of_their_own_between_two_blocks():
    chosen = Selector(RULES)
    quiet = block("alpha", "gamma", repeat=250)
    sparse = block("omega", "omega alpha gamma", *["omega"] * 98, repeat=2)
    blocks = stream(*[quiet] * 4, *[sparse] * 30, block("kill"), *[sparse] * 4)
    work = checked(chosen, blocks)
    assert chosen.fits == 2
    before = work.candidates
    found_in(work, stream(*[sparse] * 4), HOW)
    assert work.candidates - before == 4 * 2  # by now only lines that match are looked at


@pytest.mark.usefixtures("_small_windows")
def test_whoever_writes_the_lines_cannot_make_us_fit_all_the_time():
    chosen = Selector(RULES)
    form_blocks = [block("omega", repeat=500), block("alpha", "gamma", repeat=250)] * 60
    work = work_of(RULES, chosen)
    for one in (block("alpha", repeat=600), *form_blocks):
        list(work.matches(one, HOW))
    least = selector.FIT_WORK * len(RULES.rules)
    most = work.lines * (LINE_WORK + len(RULES.rules))
    doublings = selector.MAX_PATIENCE.bit_length()
    assert 1 < chosen.fits <= 2 + doublings + most // (least * selector.MAX_PATIENCE)


@pytest.mark.usefixtures("_small_windows")
def test_a_plan_that_would_be_hardly_better_is_not_compiled(compiled):
    chosen = Selector(rules_of(has("kill")))
    work = work_of(RULES, chosen)
    for one in (block("alpha", repeat=600), *[block("kill it", repeat=600)] * 40):
        list(work.matches(one, HOW))
    assert chosen.fits > 1
    assert [name for name in compiled if name != "counting"] == ["hyperscan"]


def test_a_text_whose_ascii_part_is_in_every_line_is_found_by_its_other_characters():
    rules = rules_of(has("\u2800\u2800.exe"), has("s\u0131x"))
    common = block("c:/windows/a.exe", "six s-x", repeat=1_000)
    work = checked(
        Selector(rules), stream(common, block("c:/a\u2800\u2800.exe", "\\u2800\\u2800.exe", "S\u0131X")), rules
    )
    assert work.candidates <= 3


def test_rules_for_a_source_that_is_not_there_are_found_when_it_comes():
    rules = rules_of(has("kill"), And((has("omega"), has("alpha"))), logsource=LogSource("windows", "", "sysmon"))
    chosen = Selector(rules)
    linux = Block(source="x", data=b'{"F":"kill","event.dataset":"linux.auditd"}\n' * 300, generation="g")
    windows = Block(
        source="x",
        data=b'{"F":"kill","event.dataset":"windows.sysmon"}\n'
        b'{"F":"omega alpha","product":"windows","service":"sysmon"}\n',
        generation="g",
    )
    work = checked(chosen, stream(linux, windows, linux), rules, any_logsource=False)
    assert work.candidates <= 2


# -- from start to start --------------------------------------------------------------------------------------------

BLOCKS = stream(block("alpha", "gamma", repeat=300), block("kill", "alpha omega"), block("omega gamma"))


def run(cache: Path, rules: RuleSet = RULES) -> None:
    checked(Selector(rules, store=PlanFiles(cache)), BLOCKS, rules)


def the_file(cache: Path) -> Path:
    (file,) = cache.glob("plan-*.msgpack")
    return file


def test_a_second_start_compiles_and_counts_nothing(tmp_path, compiled):
    run(tmp_path)
    assert the_file(tmp_path).stat().st_mode & 0o077 == 0
    del compiled[:]
    run(tmp_path)
    assert compiled == ["hyperscan restored"]


@pytest.mark.parametrize("cut", [0, 10, 31, 32, 100, -1])
def test_a_truncated_plan_is_made_again(tmp_path, compiled, cut):
    run(tmp_path)
    file = the_file(tmp_path)
    good = file.read_bytes()
    file.write_bytes(good[:cut])
    del compiled[:]
    run(tmp_path)
    assert compiled == ["counting", "hyperscan"]
    assert len(file.read_bytes()) == len(good)


def test_a_plan_with_one_bit_changed_anywhere_is_made_again(tmp_path, compiled):
    run(tmp_path)
    file = the_file(tmp_path)
    good = file.read_bytes()
    for at in (0, 31, 32, 40, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        del compiled[:]
        run(tmp_path)
        assert compiled == ["counting", "hyperscan"]


def test_a_plan_that_others_may_write_or_that_is_a_link_is_made_again(tmp_path, compiled):
    cache = tmp_path / "cache"
    run(cache)
    file = the_file(cache)
    for spoil in (lambda: file.chmod(0o620), lambda: file.chmod(0o602), lambda: linked(file, tmp_path / "elsewhere")):
        spoil()
        del compiled[:]
        run(cache)
        assert compiled == ["counting", "hyperscan"]
        assert file.stat(follow_symlinks=False).st_mode & 0o777 == 0o600


def linked(file: Path, elsewhere: Path) -> None:
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_plan_that_somebody_else_owns_is_made_again(tmp_path, compiled):
    run(tmp_path)
    os.chown(the_file(tmp_path), 65_534, 65_534)
    del compiled[:]
    run(tmp_path)
    assert compiled == ["counting", "hyperscan"]
    assert the_file(tmp_path).stat().st_uid == 0


def test_a_second_start_with_few_lines_counts_nothing_and_many_lines_are_fitted_to_all_the_same(tmp_path, compiled):
    few = stream(block("alpha", "kill", "omega gamma", "delta"))
    kept = PlanFiles(tmp_path)
    checked(Selector(RULES, store=kept), few)
    assert compiled == ["counting", "ahocorasick_rs"]
    del compiled[:]
    checked(Selector(RULES, store=kept), few)
    assert compiled == ["ahocorasick_rs"]
    del compiled[:]
    checked(Selector(RULES, store=kept), BLOCKS)
    assert compiled == ["counting", "hyperscan"]
    del compiled[:]
    checked(Selector(RULES, store=kept), few)
    assert compiled == ["hyperscan restored"]


def test_a_plan_of_another_version_or_of_other_rules_is_not_taken(tmp_path, compiled, monkeypatch):
    run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(selector, "version", lambda name: f"{name} 0.0")
        run(tmp_path)
    run(tmp_path, rules_of(has("kill"), has("alpha omega")))
    assert compiled == ["counting", "hyperscan"] * 3
    with monkeypatch.context() as patch:
        patch.setattr(PlanFiles, "_code", b"another release")
        run(tmp_path)
    assert compiled == ["counting", "hyperscan"] * 4


class OneAnswer:
    """A store that gives one answer, whatever it is asked."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def load(self, _key: str) -> bytes | None:
        return self.data

    def keep(self, _key: str, data: bytes) -> None:
        self.data = data


def test_what_only_seems_to_be_a_plan_is_made_again(compiled):
    kept = OneAnswer(b"")
    checked(Selector(RULES, store=kept), BLOCKS)
    good = restored_plan(kept.data)
    assert good is not None
    spoilt = (
        b"\x95",
        stored_plan(StoredPlan(good.witnesses, 0.0, 0.0, [b"of another processor"])),
        stored_plan(StoredPlan(good.witnesses, 0.0, 0.0, [good.compiled[0][:-1], *good.compiled[1:]])),
        stored_plan(StoredPlan(good.witnesses, 0.0, 0.0, good.compiled[:1])),
        stored_plan(StoredPlan({0: None}, 0.0, 0.0, good.compiled)),
    )
    for data in spoilt:
        del compiled[:]
        kept.data = data
        checked(Selector(RULES, store=kept), BLOCKS)
        assert compiled[-2:] == ["counting", "hyperscan"]
        assert kept.data != data


def test_a_place_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "file").write_text("")
    run(tmp_path / "file" / "no")


def test_the_oldest_plans_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr("breachwatch.app.rule_cache.KEEP_PLANS", 2)
    for number in range(4):
        run(tmp_path, rules_of(has("kill"), has(f"omega{number}")))
    assert len(list(tmp_path.glob("plan-*.msgpack"))) == 2
