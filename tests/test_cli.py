"""The command line, as a user types it: in a process of its own."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import psutil
import pytest

from edgecv.cli import machine, recipes
from edgecv.terminal import Terminal
from tests.common import until
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"


def edgecv(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "edgecv", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "140", **env},
        timeout=300,
    )


def test_help_lists_every_command():
    listed = re.findall(r"^  ([a-z-]+) ", edgecv("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    about_recipes = ["run", "train", "export", "verify", "bundle", "report"]
    about_files = ["bench", "explain", "verify-bundle", "serve"]
    assert listed == [*about_recipes, *about_files, "models", "targets", "setup-device", "doctor", "store"]


def test_a_wrong_key_is_refused_with_the_nearest_name(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text((DATA / "digits.toml").read_text().replace("learning_rate =", "learnin_rate ="))
    child = edgecv("run", path)
    assert child.returncode == 2
    assert child.stdout == ""
    assert "unknown key train.learnin_rate" in child.stderr
    assert "did you mean learning_rate?" in child.stderr
    assert "Traceback" not in child.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "efficientnet_lite"], 2, "did you mean efficientnet_lite0?"),
        (["run", "separable_cnn", "--target", "linux-litre"], 2, "did you mean linux-litert?"),
        (["run", "missing.toml"], 2, "can't read missing.toml"),
        (["bench", "missing.tflite"], 2, "there is no file missing.tflite"),
        (["bench", "model.h5"], 2, "it can carry code"),
        (["report", "no-such-run"], 2, "run `edgecv run` first"),
        (["explain", DATA / "tiny.tflite"], 2, "Missing option '--against'"),
        (["explain", DATA / "tiny.tflite", "--against", "m.safetensors"], 2, "give --data FOLDER"),
        (["explain", DATA / "tiny.tflite", "--against", "m.safetensors", "--recipe", "no"], 2, "there is no no in"),
        (["explain", "missing.tflite", "--against", "m.safetensors", "--data", "."], 2, "there is no file missing"),
        (["explain", "model.h5", "--against", "m.safetensors", "--data", "."], 2, "it can carry code"),
        (["explain", DATA / "tiny.tflite", "--against", "m.safetensors", "--data", "."], 2, "can't read m.safetensors"),
        (["run"], 2, "Missing argument"),
        (["frobnicate"], 2, "No such command"),
        (["bench", DATA / "tiny.tflite", "--threads", "0"], 2, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(arguments, code, words):
    child = edgecv(*arguments)
    assert (child.returncode, words in child.stderr) == (code, True), child.stderr
    assert "Traceback" not in child.stderr


def test_debug_shows_the_traceback_too():
    child = edgecv("--debug", "run", "missing.toml")
    assert ("Traceback" in child.stderr, "error: " in child.stderr, child.returncode) == (True, True, 2)


def test_bench_prints_a_table_on_stdout_and_the_rest_on_stderr():
    child = edgecv("bench", DATA / "tiny.tflite", DATA / "tiny-int8.tflite", "--quick")
    assert child.returncode == 0, child.stderr
    assert "tiny-int8.tflite" in child.stdout
    assert "\x1b[" not in child.stdout


def test_bench_as_json_is_a_results_file_and_loads_no_tensorflow():
    code = (
        "import sys; sys.argv = ['edgecv', 'bench', 'tests/data/tiny.tflite', '--quick', '--json']\n"
        "from edgecv.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('tensorflow', 'tf_keras') if m in sys.modules], file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert json.loads(child.stdout)["rows"][0]["latency_ms"]["processes"] == 5
    assert child.stderr.splitlines()[-1] == "[]"


def test_explain_prints_layers_and_verdict_on_stdout_and_the_note_on_stderr(tmp_path):
    from PIL import Image

    from edgecv import keras_file
    from tests.make_tiny import tiny

    for number in range(6):
        path = tmp_path / "photographs" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    keras_file.save_model(tiny(), tmp_path / "model.safetensors")
    arguments = ("--against", tmp_path / "model.safetensors", "--data", tmp_path / "photographs")
    child = edgecv("explain", DATA / "tiny-int8.tflite", *arguments)
    assert child.returncode == 0, child.stderr
    assert re.search(r"^layer +own dB", child.stdout)
    assert "no layer stands apart" in child.stdout
    assert "note: values inside are those of LiteRT's built-in kernels" in child.stderr
    found = json.loads(edgecv("explain", DATA / "tiny-int8.tflite", *arguments, "--images", 4, "--json").stdout)
    assert found["images"] == 4
    assert {one["layer"] for one in found["layers"]} == {"relu", "depthwise", "pool", "logits"}
    wrong = edgecv("explain", DATA / "tiny-int8.tflite", *arguments[:3], tmp_path / "nothing")
    assert (wrong.returncode, "no photographs at" in wrong.stderr) == (2, True)


def test_a_file_that_fails_ends_with_exit_code_1(tmp_path):
    path = tmp_path / "damaged.tflite"
    path.write_bytes(b"nothing")
    child = edgecv("bench", path, "--quick")
    assert child.returncode == 1
    assert "fail" in child.stdout


@pytest.mark.parametrize("command", ["models", "targets"])
def test_the_lists_name_what_is_in_the_folders(command):
    names = sorted(path.stem for path in (ROOT / command).glob("*.toml"))
    assert [entry["name"] for entry in json.loads(edgecv(command, "--json").stdout)] == names
    text = edgecv(command).stdout
    assert all(name in text for name in names)


def test_doctor_names_the_machine_the_flags_and_the_runtimes():
    found = json.loads(edgecv("doctor", "--json").stdout)
    assert found["machine"]["cpu"]
    assert isinstance(found["machine"]["flags"], list)
    assert "ai-edge-litert" in found["packages"]
    text = edgecv("doctor").stdout
    assert found["machine"]["cpu"] in text


def test_store_check_and_gc_answer_in_words_and_json():
    assert edgecv("store", "check").stdout == "0 checked, 0 damaged\n"
    assert json.loads(edgecv("store", "gc", "--json").stdout) == {"files": 0, "bytes": 0}


def test_a_damaged_store_is_exit_code_3_until_it_is_repaired(tmp_path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / ("0" * 64)).write_bytes(b"not that")
    assert edgecv("store", "check", EDGECV_STORE=str(tmp_path)).returncode == 3
    assert edgecv("store", "check", "--repair", EDGECV_STORE=str(tmp_path)).returncode == 0
    assert edgecv("store", "check", EDGECV_STORE=str(tmp_path)).returncode == 0


def test_an_interrupted_command_says_that_it_can_go_on():
    import signal

    child = subprocess.Popen(
        [sys.executable, "-m", "edgecv", "bench", DATA / "tiny.tflite"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell starts its background jobs with the signal ignored, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(psutil.Process(child.pid).children)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err


def test_words_in_brackets_are_printed_as_they_are(capsys):
    with Terminal() as terminal:
        terminal.progress(0, 1, "decoding [b]")
        terminal.ended("step [/a]", 1.0, reused=False)
        terminal.note("skipped photos/[/a] [bold].jpg")
    told = capsys.readouterr().err
    assert "done step [/a] 1.0 s" in told
    assert "note skipped photos/[/a] [bold].jpg" in told


def test_all_targets_are_those_that_files_are_built_for(tmp_path, monkeypatch, capsys):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "mine.toml").write_text('name = "mine"\nruntime = "onnxruntime"\n')
    monkeypatch.chdir(tmp_path)
    assert {"linux-litert", "mine"} & {*recipes._within_reach()} == {"linux-litert"}
    assert "mine: no files are built for onnxruntime" in capsys.readouterr().err


BAD = {
    "host": 'name = "host"\nruntime = "litert"\ntransport = "ssh"\nhost = "-x"\n',
    "processor": 'name = "processor"\nruntime = "litert"\ntransport = "emulated"\nhost = "riscv"\n',
    "other": 'name = "another"\nruntime = "litert"\n',
    "numbers": f"threads = {'1' * 5000}\n",
    "text": "no toml\n",
}


def test_a_target_that_is_wrong_is_a_row_that_says_so_and_takes_no_other_down(tmp_path, monkeypatch, capsys):
    (tmp_path / "targets").mkdir()
    for name, text in BAD.items():
        (tmp_path / "targets" / f"{name}.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANDROID_SERIAL", "-e")
    found = {name: status for name, _, status in machine.reached()}
    assert found["linux-litert"].startswith("ready")
    assert found["host"] == "fail: '-x' is not a host: expected user@host, or an entry of ~/.ssh/config"
    assert found["android-phone"] == "fail: '-e' is not a serial: expected one that `adb devices` lists"
    assert found["other"] == "fail: targets/other.toml: the name is not the file's: another"
    assert "riscv" in found["processor"]
    assert all("is not TOML: " in found[name] for name in ("numbers", "text"))
    monkeypatch.setattr(recipes, "reached", lambda: [("text", None, found["text"]), *machine.reached()[-1:]])
    assert "text" not in recipes._within_reach()
    assert f"text: {found['text']}" in capsys.readouterr().err
