"""The tree against other people's proofs, a published tree and a tree written down naively."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from breachwatch.audit.merkle import EMPTY_ROOT, leaf_hash, node_hash, root_hash, verify_consistency, verify_inclusion
from breachwatch.audit.tiles import TreeReader, append_hashes
from breachwatch.audit.verify import MemoryTiles
from breachwatch.errors import VerificationError

VECTORS_EACH = 98
GOOD_EACH = 6


def naive_root(leaves: list[bytes]) -> bytes:
    """Pairs from the left, an odd one moves up: the same tree, found another way than RFC 6962 words it."""
    row = list(leaves)
    while len(row) > 1:
        paired = [sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row) - 1, 2)]
        row = paired + ([row[-1]] if len(row) % 2 else [])
    return row[0] if row else sha256(b"").digest()


def hashes(count: int) -> list[bytes]:
    return [leaf_hash(b"entry %d" % number) for number in range(count)]


def grown(count: int, steps: list[int] | None = None) -> MemoryTiles:
    tiles, size = MemoryTiles(), 0
    for step in steps or [count]:
        size = append_hashes(tiles, size, hashes(count)[size : size + step])
    assert size == count
    return tiles


def raises_verification(check: Callable[[], None]) -> bool:
    try:
        check()
    except VerificationError:
        return True
    return False


# -- other people's proofs ---------------------------------------------------------------------------------------------


def vectors(file: Path) -> Iterator[dict[str, object]]:
    yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def decoded(value: object) -> bytes:
    return base64.b64decode(value) if isinstance(value, str) else b""


def proof_of(vector: dict[str, object]) -> list[bytes]:
    proof = vector["proof"]
    return [decoded(item) for item in proof] if isinstance(proof, list) else []


def test_every_inclusion_vector_is_accepted_or_refused_as_it_must_be(shared_data: Path) -> None:
    refused = {}
    for vector in vectors(shared_data / "merkle" / "inclusion.jsonl"):
        refused[vector["name"]] = (vector["wantErr"], raises_verification(lambda v=vector: verify_inclusion(  # type: ignore[misc]
            index=int(str(v["leafIdx"])), size=int(str(v["treeSize"])), leaf=decoded(v["leafHash"]),
            proof=proof_of(v), root=decoded(v["root"]),
        )))  # fmt: skip
    assert len(refused) == VECTORS_EACH
    assert sum(not wanted for wanted, _ in refused.values()) == GOOD_EACH
    assert {name: pair for name, pair in refused.items() if pair[0] != pair[1]} == {}


def test_every_consistency_vector_is_accepted_or_refused_as_it_must_be(shared_data: Path) -> None:
    refused = {}
    for vector in vectors(shared_data / "merkle" / "consistency.jsonl"):
        refused[vector["name"]] = (vector["wantErr"], raises_verification(lambda v=vector: verify_consistency(  # type: ignore[misc]
            old_size=int(str(v["size1"])), new_size=int(str(v["size2"])), old_root=decoded(v["root1"]),
            new_root=decoded(v["root2"]), proof=proof_of(v),
        )))  # fmt: skip
    assert len(refused) == VECTORS_EACH
    assert sum(not wanted for wanted, _ in refused.values()) == GOOD_EACH
    assert {name: pair for name, pair in refused.items() if pair[0] != pair[1]} == {}


# -- a published tree --------------------------------------------------------------------------------------------------

PUBLISHED_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
PUBLISHED_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Source: the reference tree of Certificate Transparency's own tests (merkletree/merkle_tree_test.cc)."""


def test_the_reference_tree_of_certificate_transparency_has_its_published_roots() -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in PUBLISHED_LEAVES]
    assert [root_hash(leaves[:size]).hex() for size in range(1, 9)] == PUBLISHED_ROOTS
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for size in range(1, 9):
        tiles = MemoryTiles()
        append_hashes(tiles, 0, leaves[:size])
        assert TreeReader(tiles, size).root().hex() == PUBLISHED_ROOTS[size - 1]


def test_a_leaf_cannot_pass_for_a_node() -> None:
    left, right = hashes(2)
    assert leaf_hash(left + right) != node_hash(left, right)


# -- against the naive tree --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*range(1, 20), 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537])
def test_tiles_give_the_root_of_the_naive_tree(size: int) -> None:
    assert TreeReader(grown(size), size).root() == naive_root(hashes(size))


@given(steps=st.lists(st.integers(min_value=1, max_value=300), min_size=1, max_size=6))
def test_a_tree_grown_in_any_steps_is_the_tree_grown_at_once(steps: list[int]) -> None:
    size = sum(steps)
    assert grown(size, steps).tiles == grown(size).tiles


@given(size=st.integers(min_value=1, max_value=1_200), data=st.data())
def test_every_entry_is_provable_and_only_where_it_stands(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    leaves = hashes(size)
    root, proof = naive_root(leaves), TreeReader(grown(size), size).inclusion(index)
    verify_inclusion(index=index, size=size, leaf=leaves[index], proof=proof, root=root)
    other = data.draw(st.integers(min_value=-1, max_value=2 * size))
    if other != index:
        with pytest.raises(VerificationError):
            verify_inclusion(index=other, size=size, leaf=leaves[index], proof=proof, root=root)
    if proof:
        place = data.draw(st.integers(min_value=0, max_value=len(proof) - 1))
        bit = data.draw(st.integers(min_value=0, max_value=255))
        bent = list(proof)
        bent[place] = flipped(proof[place], bit)
        for wrong in (bent, proof[:-1], [*proof, proof[-1]], proof[::-1] if len(set(proof)) > 1 else bent):
            with pytest.raises(VerificationError):
                verify_inclusion(index=index, size=size, leaf=leaves[index], proof=wrong, root=root)


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")


@given(new=st.integers(min_value=1, max_value=1_200), data=st.data())
def test_growth_is_provable_and_a_changed_past_is_not(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(min_value=1, max_value=new))
    leaves = hashes(new)
    proof = TreeReader(grown(new), new).consistency(old)
    old_root, new_root = naive_root(leaves[:old]), naive_root(leaves)
    verify_consistency(old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof)
    changed = list(leaves[:old])
    changed[data.draw(st.integers(min_value=0, max_value=old - 1))] = leaf_hash(b"another past")
    with pytest.raises(VerificationError):
        verify_consistency(old_size=old, new_size=new, old_root=naive_root(changed), new_root=new_root, proof=proof)
    with pytest.raises(VerificationError):
        verify_consistency(old_size=old, new_size=new, old_root=old_root, new_root=flipped(new_root, 7), proof=proof)


@given(index=st.integers(), size=st.integers(), proof=st.lists(st.binary(max_size=40), max_size=70))
def test_any_numbers_and_bytes_are_refused_and_never_crash(index: int, size: int, proof: list[bytes]) -> None:
    leaf, root = leaf_hash(b"x"), b"\x11" * 32
    assume(leaf != root)
    with pytest.raises(VerificationError):
        verify_inclusion(index=index, size=size, leaf=leaf, proof=proof, root=root)
    with pytest.raises(VerificationError):
        verify_consistency(old_size=index, new_size=size, old_root=leaf, new_root=root, proof=proof)
