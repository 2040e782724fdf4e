"""Bundles of a real run: what is in them, that they are the same twice, and that what is changed in one is refused."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from edgecv import data, pipeline
from edgecv.bundle import Options, decoders, drift, problems
from edgecv.bundle.golden import as_png, tolerance
from edgecv.errors import ModelError, UsageError
from edgecv.report import best, verdict
from edgecv.results import dump_results, read_results
from edgecv.target import Measure, Target
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
    assert folder.name == "here-litert-int8"


def test_a_model_that_is_not_the_verified_one_is_refused(place, tmp_path):
    stages = with_status(place, tmp_path, "pass")
    for path in (tmp_path / "run" / "models").glob("*.tflite"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(ModelError, match="is not the file that was verified"):
        pipeline.bundle(stages, TARGETS[:1])
    assert list((tmp_path / "run" / "bundles").iterdir()) == []


def test_results_of_other_photographs_are_refused(place):
    stages, _ = pipeline.prepare(place / "litert.toml", out=place / "litert", store=place / "store")
    with pytest.raises(UsageError, match="of another recipe, or of other photographs"):
        pipeline.bundle(stages, TARGETS[:1])


def command(place, *options, env=None):
    arguments = ["bundle", place / "litert.toml", "--data", place / "digits", "--out", place / "litert"]
    arguments += ["--target", place / "here-litert.toml", "--no-drift", *options]
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "edgecv", *map(str, arguments)],
        env={**os.environ, "EDGECV_STORE": str(place / "store"), **(env or {})},
        capture_output=True,
        text=True,
    )


def test_the_command_writes_it_without_tensorflow(place):
    child = command(place, "--variant", "float32", "--golden", "2")
    assert child.returncode == 0, child.stderr
    folder = place / "litert" / "bundles" / "here-litert-float32"
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


def named_row(bundle):
    results = read_results(bundle.parent.parent / "results.json")
    rows = [row for row in results.rows if row.target == bundle.name]
    return best(rows)


def test_the_bill_of_materials_is_cyclonedx(bundle):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (bundle / "bom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    names = {one["name"] for one in json.loads(text)["components"]}
    runtime = {"here-litert": "ai-edge-litert", "here-openvino": "openvino"}[bundle.name]
    assert {"digits", "tensorflow", "pillow", runtime} <= names


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
