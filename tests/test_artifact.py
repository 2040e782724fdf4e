from __future__ import annotations

import gzip
import hashlib
import subprocess
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.artifact import Skipped, digest_files, gzip_size

settings.load_profile("ci")  # the same examples each time, and no deadline on a busy machine


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    xml, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    xml.write_bytes(b"<net/>")
    weights.write_bytes(bytes(range(256)) * 10_000)
    return xml, weights


def test_the_digest_of_two_files_is_what_cat_and_sha256sum_print(pair: tuple[Path, Path]) -> None:
    printed = subprocess.run(
        ["sh", "-c", 'cat "$0" "$1" | sha256sum', *map(str, pair)], capture_output=True, text=True, check=True
    ).stdout
    assert digest_files(*pair) == printed.split()[0]


def test_the_order_of_the_files_counts(pair: tuple[Path, Path]) -> None:
    assert digest_files(*pair) != digest_files(*reversed(pair))


@settings(max_examples=20)
@given(st.binary(), st.integers(0, 3))
def test_a_digest_is_sha256_over_block_borders(tmp_path_factory: pytest.TempPathFactory, data: bytes, by: int) -> None:
    file = tmp_path_factory.getbasetemp() / "blocks"
    content = bytes((1 << 20) * (by // 2) + by) + data
    file.write_bytes(content)
    assert digest_files(file) == hashlib.sha256(content).hexdigest()


def test_the_gzip_size_is_that_of_each_file_at_level_6(pair: tuple[Path, Path]) -> None:
    assert gzip_size(*pair) == sum(len(gzip.compress(path.read_bytes(), 6, mtime=0)) for path in pair)
    assert gzip_size(*pair) < sum(path.stat().st_size for path in pair)


def test_an_artifacts_values_can_not_be_changed_after() -> None:
    with pytest.raises(FrozenInstanceError):
        Skipped("softmax", "the output is float32").reason = ""  # type: ignore[misc]
