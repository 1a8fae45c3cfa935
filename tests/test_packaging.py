"""Wheels carry the Lua scripts inside the package; an editable install finds them beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lockbeat.store import scripts

ROOT = Path(__file__).parent.parent
LOAD_ALL = "from lockbeat.store import scripts; print(scripts.__file__); print(*[scripts.load(n).sha for n in scripts.names()])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = target.glob("*.whl")
    return built


def test_a_wheel_holds_every_script_once_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    held = {name.removeprefix("lockbeat/scripts_lua/").removesuffix(".lua") for name in names if name.endswith(".lua")}
    assert held == set(scripts.names()) | set(scripts.libraries())
    assert {"lockbeat/py.typed", "_lockbeat_pytest.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "examples"))]


def test_the_scripts_of_a_wheel_are_those_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    # -P and an explicit path: the checkout must not be found by accident.
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {LOAD_ALL}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    where, digests = done.stdout.splitlines()
    assert where.startswith(str(tmp_path))
    assert digests.split() == [scripts.load(name).sha for name in scripts.names()]


def test_an_editable_install_finds_them_beside_the_package() -> None:
    assert not (ROOT / "lockbeat" / "scripts_lua").exists()
    assert len(scripts.names()) > 15


def test_pytest_finds_the_plugin_beside_the_package() -> None:
    """Importing the package would cost every run of pytest that does not use it."""
    (found,) = (entry for entry in entry_points(group="pytest11") if entry.name == "lockbeat")
    assert found.value == "_lockbeat_pytest"
