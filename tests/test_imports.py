"""The direction of imports, what is imported when, and the public names."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgecv

PACKAGE = Path(edgecv.__file__).parent

# From the lowest to the highest; a module imports from tiers below its own alone. A folder is one module.
TIERS = (
    {"errors", "extras", "worker", "listener"},
    {"config", "metadata", "quiet"},
    {"settings"},
    {"recipe", "target", "artifact", "results", "stats", "host"},
    {"store", "isolate"},
    {"data", "nets", "train", "epochs", "keras_file", "compress", "export", "runtimes", "report"},
    {"devices"},
    {"photographs", "verify", "measure", "explain"},
    {"changes"},
    {"float_model"},
    {"networks"},
    {"stages"},
    {"rows", "answers"},
    {"repair"},
    {"evidence", "files", "causes", "queues", "bundle"},
    {"pipeline"},
    {"terminal"},
    {"cli"},
)
HEAVY = ("tensorflow", "tf_keras", "openvino", "nncf", "onnxruntime", "ai_edge_litert", "scipy", "sklearn")


def modules():
    return sorted(path.stem if path.suffix else path.name for path in PACKAGE.iterdir() if is_module(path))


def is_module(path):
    return (path.suffix == ".py" and not path.stem.startswith("__")) or (path / "__init__.py").is_file()


def imports_of(module):
    """Names of the package's modules that a module imports anywhere, inside functions too."""
    folder = PACKAGE / module
    for path in sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "edgecv":
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgecv."):
                yield node.module.split(".")[1]
            elif isinstance(node, ast.Import):
                yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("edgecv."))


def imported(code, names):
    """Those of `names` that a fresh process has imported after `code`, as printed."""
    code = f"import sys\n{code}\nprint([name for name in {names} if name in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return child.stdout.splitlines()[-1]


def test_every_module_has_a_tier():
    assert modules() == sorted(name for tier in TIERS for name in tier)


@pytest.mark.parametrize("module", modules())
def test_imports_point_to_lower_tiers_alone(module):
    level = next(i for i, tier in enumerate(TIERS) if module in tier)
    below = {name for tier in TIERS[:level] for name in tier}
    assert set(imports_of(module)) - {module} <= below


def test_the_worker_imports_nothing_of_the_package():
    assert list(imports_of("worker")) == []


def test_no_module_imports_a_runtime_when_it_is_imported():
    names = [name for _, name, _ in pkgutil.walk_packages(edgecv.__path__, "edgecv.")]
    assert imported(f"import importlib\nfor name in {names}: importlib.import_module(name)", HEAVY) == "[]"


def test_help_does_not_import_numpy_or_pydantic():
    code = "sys.argv = ['edgecv', '--help']\nfrom edgecv.cli import main\ntry: main()\nexcept SystemExit: pass"
    assert imported(code, ("numpy", "pydantic", "rich")) == "[]"


def sources(module):
    return sorted((PACKAGE / module).glob("[!_]*.py")) if (PACKAGE / module).is_dir() else [PACKAGE / f"{module}.py"]


def exported(tree):
    """The names in a module's `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


# A board's file and the command line are run, not imported.
LIBRARY = [path for module in modules() if module not in ("cli", "worker") for path in sources(module)]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_all_lists_every_public_function_and_class_sorted_and_documented(path):
    tree = ast.parse(path.read_text())
    names = exported(tree)
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    assert {node.name for node in public} <= set(names)
    assert [node.name for node in public if not ast.get_docstring(node)] == []


# The example of `run` needs a recipe and photographs: tests/test_pipeline.py runs it.
EXAMPLES = ["edgecv", *(f"edgecv.{module}" for module in modules() if module != "pipeline")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_examples_run(name, monkeypatch):
    monkeypatch.chdir(PACKAGE.parent)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_version_is_one_figure():
    from importlib.metadata import version

    from edgecv.config import VERSION

    assert version("edgecv") == VERSION
