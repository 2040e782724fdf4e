"""Bundles of a real run: what is in them, that they are the same twice, and that what is changed in one is refused."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecv import data, pipeline
from edgecv.bundle import problems, verify_bundle
from edgecv.bundle.golden import as_png, tolerance
from edgecv.errors import ModelError, UsageError
from edgecv.results import dump_results, read_results
from edgecv.target import Measure, Target
from tests.conftest import ROOT
from tests.digits import write_digits

MEASURE = Measure(processes=1, seconds=0.02, warmup_seconds=0.0)
TARGETS = tuple(Target(name=f"here-{runtime}", runtime=runtime, measure=MEASURE) for runtime in ("litert", "openvino"))

VARIANTS = """
[variants]
float32 = []
int8 = ["int8"]
[limits]
max_drop_pp = 20.0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the digits, a store, a short run and its bundles."""
    place = tmp_path_factory.mktemp("bundle")
    write_digits(place / "digits")
    text = (ROOT / "tests" / "data" / "digits.toml").read_text().partition("[variants]")[0]
    text = text.replace("images = 300", "images = 100")
    (place / "digits.toml").write_text(
        text + '[variants]\nfloat32 = []\nint8 = ["int8"]\n[limits]\nmax_drop_pp = 20.0\n'
    )
    for target in TARGETS:
        written = f'name = "{target.name}"\nruntime = "{target.runtime}"\n[measure]\nprocesses = 1\nseconds = 0.02\n'
        (place / f"{target.name}.toml").write_text(written)
    pipeline.execute(prepared(place), TARGETS, bundles=True)
    return place


def prepared(place, out="run"):
    return pipeline.prepare(place / "digits.toml", data=place / "digits", out=place / out, store=place / "store")[0]


@pytest.fixture(scope="module", params=["litert", "openvino"])
def bundle(request, place):
    return place / "run" / "bundles" / f"here-{request.param}"


@pytest.fixture
def copy(place, tmp_path):
    """A bundle that a test may change."""
    return shutil.copytree(place / "run" / "bundles" / "here-litert", tmp_path / "bundle")


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def script(folder, *arguments):
    """Run a bundle's own verify_bundle.py as it stands, from another folder."""
    command = [sys.executable, "-I", str(folder / "verify_bundle.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def test_a_run_writes_a_bundle_for_each_target(bundle):
    model = {"model.tflite"} if bundle.name == "here-litert" else {"model.xml", "model.bin"}
    golden = {f"golden/{i}.{kind}" for i in range(5) for kind in ("png", "input.bin")}
    texts = {"labels.txt", "preprocess.json", "golden/golden.json", "manifest.json", "verify_bundle.py"}
    assert model | golden | texts <= set(files(bundle))
    assert problems(str(bundle)) == []


def test_a_bundle_is_the_same_bytes_each_time(place, bundle):
    before = files(bundle)
    stages = prepared(place)
    again = pipeline.bundle(stages, [target for target in TARGETS if target.name == bundle.name])
    assert again == [bundle]
    assert files(bundle) == before
    assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []


def test_golden_photographs_decode_to_the_golden_inputs(place, bundle):
    golden = json.loads((bundle / "golden" / "golden.json").read_text())
    for entry in golden["images"]:
        pixels = data.decode(bundle / "golden" / entry["image"], prepared(place).recipe.preprocess)
        assert pixels.tobytes() == (bundle / "golden" / entry["input"]).read_bytes()
    assert len({entry["label"] for entry in golden["images"]}) > 2


def test_a_golden_photograph_tells_nothing_but_its_pixels(place, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    source = tmp_path / "photo.jpg"
    Image.new("RGB", (40, 20), "red").save(source, exif=exif, dpi=(72, 72), comment=b"me")
    (tmp_path / "photo.png").write_bytes(as_png(source))
    with Image.open(tmp_path / "photo.png") as image:
        assert image.size == (20, 40)
        assert (dict(image.info), dict(image.getexif())) == ({}, {})


def test_the_version_is_the_one_that_the_verdict_names(place, bundle):
    from edgecv.report import verdict

    results = read_results(place / "run" / "results.json")
    model = next(path for path in bundle.iterdir() if path.suffix in (".tflite", ".xml"))
    named = [
        row.variant
        for row in results.rows
        if row.target == bundle.name and (place / "run" / row.artifact.path).read_bytes() == model.read_bytes()
    ]
    assert f"On {bundle.name}, {named[0]} is the best verified version" in verdict(results)


def with_status(place, tmp_path, status):
    """Stages of a run whose every row has a status."""
    shutil.copytree(place / "run" / "models", tmp_path / "run" / "models")
    results = read_results(place / "run" / "results.json")
    rows = tuple(row.model_copy(update={"status": status}) for row in results.rows)
    changed = results.model_copy(update={"rows": rows})
    (tmp_path / "run" / "results.json").write_text(dump_results(changed))
    shutil.copyfile(place / "run" / "measurements.json", tmp_path / "run" / "measurements.json")
    return prepared(place, tmp_path / "run")


def test_a_version_that_does_not_pass_is_refused_unless_it_is_named(place, tmp_path):
    stages = with_status(place, tmp_path, "fail: drop 9.0 pp (limit 2.0)")
    with pytest.raises(UsageError, match="no version passes on here-litert"):
        pipeline.bundle(stages, TARGETS[:1])
    assert not list((tmp_path / "run").glob("bundles/*"))
    (folder,) = pipeline.bundle(stages, TARGETS[:1], variant="int8")
    assert folder.name == "here-litert-int8"


def test_a_model_that_is_not_the_verified_one_is_refused(place, tmp_path):
    stages = with_status(place, tmp_path, "pass")
    for path in (tmp_path / "run" / "models").glob("*.tflite"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(ModelError, match="is not the file that was verified"):
        pipeline.bundle(stages, TARGETS[:1])
    assert list((tmp_path / "run" / "bundles").iterdir()) == []


def test_results_of_other_photographs_are_refused(place):
    stages, _ = pipeline.prepare(place / "digits.toml", out=place / "run", store=place / "store")
    with pytest.raises(UsageError, match="of another recipe, or of other photographs"):
        pipeline.bundle(stages, TARGETS[:1])


def command(place, *options, env=None):
    arguments = ["bundle", place / "digits.toml", "--data", place / "digits", "--out", place / "run"]
    arguments += ["--target", place / "here-litert.toml", *options]
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "edgecv", *map(str, arguments)],
        env={**os.environ, "EDGECV_STORE": str(place / "store"), **(env or {})},
        capture_output=True,
        text=True,
    )


def test_the_command_writes_it_without_tensorflow(place):
    child = command(place, "--variant", "float32", "--golden", "2")
    assert child.returncode == 0, child.stderr
    folder = place / "run" / "bundles" / "here-litert-float32"
    assert child.stdout.strip() == str(folder)
    assert len(json.loads((folder / "golden" / "golden.json").read_text())["images"]) == 2
    assert "tensorflow" not in child.stderr


def test_a_kill_leaves_the_old_bundle_and_the_next_one_clears_up(place):
    folder = place / "run" / "bundles" / "here-litert"
    before = files(folder)
    assert command(place, env={"EDGECV_KILL_AT": "bundle:made"}).returncode == -9
    assert files(folder) == before
    assert list(folder.parent.glob(".here-litert.*"))
    assert command(place).returncode == 0
    assert files(folder) == before
    assert not list(folder.parent.glob(".here-litert.*"))


# What is changed is refused


def test_its_own_script_says_that_all_is_as_it_was(bundle):
    child = script(bundle)
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout == f"{len(files(bundle)) - 1} files, all as they were made\n"


def test_the_script_needs_no_newer_python_than_it_says():
    import ast

    ast.parse((ROOT / "edgecv" / "bundle" / "verify_bundle.py").read_text(), feature_version=(3, 8))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(place, tmp_path_factory, data):
    folder = place / "flipped"
    if not folder.exists():
        shutil.copytree(place / "run" / "bundles" / "here-openvino", folder)
    path = folder / data.draw(st.sampled_from(sorted(files(folder))))
    before = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(before) - 1))
    after = bytearray(before)
    after[bit // 8] ^= 1 << bit % 8
    path.write_bytes(after)
    try:
        assert problems(str(folder))
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
    twice: "manifest.json: not a manifest: a key stands in it twice",
    longer: "labels.txt: 21 bytes, expected 20",
}


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_a_bundle_that_was_tampered_with_is_refused(copy, trick):
    trick(copy)
    child = script(copy)
    assert child.returncode == 1
    assert TRICKS[trick] in child.stdout
    assert child.stderr == ""


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


# The app in Python


def self_test(folder):
    command = [sys.executable, "-I", str(folder / "app" / "python" / "app.py"), "--self-test"]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def test_the_python_app_proves_a_bundle_right(bundle):
    child = self_test(bundle)
    assert child.returncode == 0, child.stdout + child.stderr
    assert child.stdout.count("outputs differ by 0 ") == 5
    assert child.stdout.endswith("passed\n")


def test_the_python_app_names_what_a_photograph_shows(bundle):
    golden = json.loads((bundle / "golden" / "golden.json").read_text())["images"][0]
    command = [
        sys.executable,
        "-I",
        str(bundle / "app" / "python" / "app.py"),
        str(bundle / "golden" / golden["image"]),
    ]
    out = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True).stdout
    assert out.split()[:2] == [f"{max(golden['outputs']):.1%}", golden["label"]]
    assert len(out.splitlines()) == 5


def two_labels_swapped(folder, place):
    lines = (folder / "labels.txt").read_text().splitlines()
    lines[-1], lines[-2] = lines[-2], lines[-1]
    (folder / "labels.txt").write_text("".join(f"{line}\n" for line in lines))


def preprocess(**changes):
    def change(folder, place):
        values = json.loads((folder / "preprocess.json").read_text())
        (folder / "preprocess.json").write_text(json.dumps({**values, **changes}))

    change.__name__ = f"preprocess_{'_'.join(changes)}"
    return change


CHANGES = [
    two_labels_swapped,
    *(
        preprocess(**one)
        for one in (
            {"size": 24},
            {"mean": 0.0},
            {"scale": 255.0},
            {"resize": "stretch"},
            {"crop_fraction": 0.8},
            {"filter": "bicubic"},
            {"color": "BGR"},
        )
    ),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_self_test_fails_when_something_is_changed(place, copy, change):
    change(copy, place)
    child = self_test(copy)
    assert (child.returncode, child.stderr.count("Traceback")) == (1, 0), child.stdout + child.stderr
    assert "FAILED: " in child.stdout


def test_the_self_test_fails_when_the_model_is_another(place, copy):
    from edgecv import export

    stages = prepared(place)
    model = stages.plain(())
    *body, kernel, bias = model.get_weights()
    model.set_weights([*body, 0.5 * kernel, bias])
    made = export.to_tflite(model, "float32", preprocess=stages.recipe.preprocess, labels=stages.classes)
    (copy / "model.tflite").write_bytes(made.files["model.tflite"])
    child = self_test(copy)
    assert (child.returncode, child.stdout.splitlines()[-1]) == (1, "FAILED: model"), child.stdout


def test_what_may_differ_depends_on_the_arithmetic():
    assert tolerance("float32", step=None) == 1e-4
    assert tolerance("int8", step=0.05) == 0.05
    assert tolerance("int8", step=0.001) == tolerance("int8 7/8, float32 1/8", step=None) == 0.02
    assert tolerance("bfloat16", step=None) == 0.05
