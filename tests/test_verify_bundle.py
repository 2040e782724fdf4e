"""What is changed, added, linked or signed by another in a bundle is refused before a runtime opens anything."""

import ast
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.bundle import check_bundle, problems, verify_bundle
from edgecv.bundle.sign import sign
from edgecv.errors import UsageError
from tests.conftest import ROOT

SCRIPT = ROOT / "edgecv" / "bundle" / "verify_bundle.py"
FILES = {
    "model.tflite": (ROOT / "tests" / "data" / "tiny.tflite").read_bytes(),
    "labels.txt": b"cat\ndog\ncow\n",
    "golden/0.png": b"pixels",
    "app/python/app.py": b"print()\n",
    "verify_bundle.py": SCRIPT.read_bytes(),
}


def write(folder, *, signed=False):
    """Write a folder as a bundle is; what is in its files does not matter here."""
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    seal(folder, FILES, signed=signed)
    return folder


def seal(folder, files, *, signed=False):
    entries = {
        path: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for path, content in files.items()
    }
    (folder / "manifest.json").write_bytes(verify_bundle.make_manifest(entries, version="0.1.0", signed=signed))


@pytest.fixture
def copy(tmp_path):
    """A bundle that a test may change."""
    return write(tmp_path / "bundle")


def script(folder, *arguments):
    """Run a bundle's own verify_bundle.py as it stands, from another folder."""
    command = [sys.executable, "-I", str(folder / "verify_bundle.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def test_its_own_script_says_that_all_is_as_it_was(copy):
    child = script(copy)
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout == f"{len(FILES)} files, all as they were made\n"


def test_the_script_needs_no_newer_python_than_it_says():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 8))


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """A bundle that is whole before and after each example."""
    return write(tmp_path_factory.mktemp("flipped") / "bundle")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(flipped, data):
    path = flipped / data.draw(st.sampled_from([*FILES, "manifest.json"]))
    before = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(before) - 1))
    after = bytearray(before)
    after[bit // 8] ^= 1 << bit % 8
    path.write_bytes(after)
    try:
        assert problems(str(flipped))
    finally:
        path.write_bytes(before)


def extra_file(folder):
    (folder / "golden" / "5.png").write_bytes(b"")


def signature(folder):
    (folder / "model.sig").write_text("{}")


def empty_folder(folder):
    (folder / "more").mkdir()


def missing(folder):
    (folder / "labels.txt").unlink()


def link_to_its_own_bytes(folder):
    (folder / "labels.txt").rename(folder.parent / "labels.txt")
    (folder / "labels.txt").symlink_to(folder.parent / "labels.txt")


def linked_folder(folder):
    (folder / "golden").rename(folder.parent / "golden")
    (folder / "golden").symlink_to(folder.parent / "golden")


def pipe(folder):
    (folder / "labels.txt").unlink()
    os.mkfifo(folder / "labels.txt")


def linked_manifest(folder):
    (folder / "manifest.json").rename(folder.parent / "manifest.json")
    (folder / "manifest.json").symlink_to(folder.parent / "manifest.json")


def no_manifest(folder):
    (folder / "manifest.json").unlink()


def huge_manifest(folder):
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(5_000_000)


def deep_manifest(folder):
    (folder / "manifest.json").write_text("[" * 100_000)


def with_other_line_ends(folder):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def twice(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"signed"', '"edgecv": "0", "signed"'))


def longer(folder):
    with (folder / "labels.txt").open("a") as file:
        file.write("\n")


TRICKS = {
    extra_file: "golden/5.png: file, which was not made",
    signature: "model.sig: file, which was not made",
    empty_folder: "more: folder, which was not made",
    missing: "labels.txt: missing",
    link_to_its_own_bytes: "labels.txt: link, which was not made",
    linked_folder: "golden: link, which was not made",
    pipe: "labels.txt: pipe, socket or device, which was not made",
    linked_manifest: "manifest.json: ",
    no_manifest: "manifest.json: No such file or directory",
    huge_manifest: "manifest.json: more than 4000000 bytes",
    deep_manifest: "manifest.json: not a manifest",
    with_other_line_ends: "manifest.json: its line endings were changed, as git does",
    twice: "manifest.json: not a manifest: a key stands in it twice",
    longer: "labels.txt: 13 bytes, expected 12",
}


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_a_bundle_that_was_tampered_with_is_refused(copy, trick):
    trick(copy)
    child = script(copy)
    assert child.returncode == 1
    assert TRICKS[trick] in child.stdout
    assert child.stderr == ""


def test_where_the_list_is_cut_short_no_file_is_called_missing_that_was_not_looked_for(copy):
    for number in range(150):
        (copy / f"more-{number}").touch()
    lines = script(copy).stdout.splitlines()
    assert len(lines) == 101
    assert all(line.endswith(": file, which was not made") for line in lines[:100])
    assert lines[100] == "and more"


def test_as_many_lines_as_are_shown_are_not_said_to_be_fewer_than_there_are(copy):
    for number in range(100):
        (copy / f"more-{number}").touch()
    assert len(script(copy).stdout.splitlines()) == 100


def test_a_folder_that_can_not_be_read_is_a_line(copy):
    """Folders in folders until the path is longer than the system takes."""
    here = os.open(copy, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("f" * 250, dir_fd=here)
        inner = os.open("f" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    child = script(copy)
    assert (child.returncode, child.stderr) == (1, "")
    assert child.stdout.splitlines()[-1].endswith(": File name too long")
    assert "missing" not in child.stdout


def test_a_folder_that_vanishes_meanwhile_is_a_line(copy, monkeypatch):
    walk = verify_bundle._walk

    def vanishing(folder, below=""):
        if below:
            shutil.rmtree(copy / below)
        yield from walk(folder, below)

    monkeypatch.setattr(verify_bundle, "_walk", vanishing)
    assert sorted(problems(str(copy))) == [f"{path}: No such file or directory" for path in ("app", "golden")]


PATHS = [
    "../outside",
    "/etc/passwd",
    "a\\b",
    "C:",
    "a//b",
    "./a",
    "a/",
    "",
    "a\n",
    "end.",
    "Labels.txt",
    "MANIFEST.json",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leads_elsewhere_is_refused_before_it_is_opened(copy, path):
    values = json.loads((copy / "manifest.json").read_text())
    entries = {**values["files"], path: {"sha256": "0" * 64, "size_bytes": 0}}
    (copy / "manifest.json").write_bytes(verify_bundle.make_manifest(entries, version="0", signed=False))
    (problem,) = problems(str(copy))
    assert "a path that no bundle has" in problem or "two paths that differ in case alone" in problem


@pytest.mark.parametrize(
    "entry", [None, {}, {"sha256": "0" * 63, "size_bytes": 0}, {"sha256": "0" * 64, "size_bytes": -1}]
)
def test_an_entry_that_is_none_is_refused(copy, entry):
    (copy / "manifest.json").write_bytes(verify_bundle.make_manifest({"a": entry}, version="0", signed=False))
    assert problems(str(copy))[0].startswith("manifest.json: a: ")


# Signatures


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs of keys: `mine` and `theirs`, each `.pem` and `.pub`."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("keys")
    pem = serialization.Encoding.PEM
    for name in ("mine", "theirs"):
        key = ec.generate_private_key(ec.SECP256R1())
        private, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, private, plain))
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
    return folder


@pytest.fixture
def signed(tmp_path, keys):
    """A signed bundle that a test may change."""
    folder = write(tmp_path / "made", signed=True)
    sign(folder, keys / "mine.pem")
    return folder.rename(tmp_path / "signed")


def test_a_signed_bundle_is_accepted_by_its_key_wherever_it_lies(signed, keys):
    assert check_bundle(signed, key=keys / "mine.pub") == []
    assert script(signed).returncode == 0


def test_a_signed_bundle_is_accepted_however_its_folder_is_spelled(tmp_path, keys, monkeypatch):
    folder = write(tmp_path / "made", signed=True)
    monkeypatch.chdir(tmp_path)
    for signer in (Path("made"), folder):
        sign(signer, keys / "mine.pem")
        payload = json.loads((folder / "model.sig").read_text())["dsseEnvelope"]["payload"]
        assert str(tmp_path) not in base64.b64decode(payload).decode()
        assert [check_bundle(one, key=keys / "mine.pub") for one in (Path("made"), folder)] == [[], []]


def test_a_wrong_key_is_refused(signed, keys):
    (problem,) = check_bundle(signed, key=keys / "theirs.pub")
    assert "model.sig: not the signature of these files by this key: Key mismatch" in problem


def test_a_bundle_that_is_not_signed_is_refused_where_a_key_is_given(copy, keys):
    assert check_bundle(copy, key=keys / "mine.pub") == ["model.sig: missing: the bundle is not signed"]


@pytest.mark.parametrize("path", ["labels.txt", "more.txt"])
def test_a_change_is_refused_though_the_manifest_was_made_anew(signed, keys, path):
    (signed / path).write_bytes(b"bird")
    seal(signed, {**FILES, path: b"bird"}, signed=True)
    assert problems(str(signed)) == []
    (problem,) = check_bundle(signed, key=keys / "mine.pub")
    assert "model.sig: not the signature of these files by this key: Signature mismatch" in problem


@pytest.mark.parametrize("text", ["", "{}", "[" * 10_000, "null"])
def test_a_damaged_signature_is_refused(signed, keys, text):
    (signed / "model.sig").write_text(text)
    (problem,) = check_bundle(signed, key=keys / "mine.pub")
    assert problem.startswith("model.sig: not the signature")


def test_a_key_that_can_not_sign_is_refused(copy, keys):
    with pytest.raises(UsageError, match="can't sign with"):
        sign(copy, keys / "mine.pub")
    assert not (copy / "model.sig").exists()


@pytest.mark.parametrize(("name", "written"), [("mine.pub", "NEW.pem"), ("none.pem", "none.pem")])
def test_the_way_to_another_key_leaves_the_one_that_is_there_alone(name, written, copy, keys):
    with pytest.raises(UsageError) as caught:
        sign(copy, keys / name)
    assert Path(caught.value.fix.split()[-1]).name == written
    assert str(keys / "mine.pub") not in caught.value.fix


def test_the_command_checks_a_bundle(signed, keys):
    def call(*options):
        arguments = [sys.executable, "-m", "edgecv", "verify-bundle", *map(str, options)]
        child = subprocess.run(arguments, capture_output=True, text=True)
        assert "Traceback" not in child.stderr
        return child.returncode, child.stdout

    assert call(signed, "--key", keys / "mine.pub") == (
        0,
        f"{signed}: every file is as it was made, and signed by this key\n",
    )
    (signed / "labels.txt").write_text("cat\n")
    assert call(signed) == (1, "labels.txt: 4 bytes, expected 12\n")
