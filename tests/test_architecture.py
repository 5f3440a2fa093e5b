"""The house stands: rooms import downwards only, names are explained, files stay small."""

import ast
import functools
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "leray"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE = 400

ROOMS = (
    ("leray.errors", "leray.files"),
    ("leray.data", "leray.hardware"),
    ("leray.envs",),
    ("leray.algorithms",),
    ("leray.platform",),
    ("leray.tune",),
    ("leray.cli", "leray.__main__"),
)
"""From the ground up; a module may import its own room and those before it."""


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def level(module: str) -> int:
    for number, rooms in enumerate(ROOMS):
        if any(module == room or module.startswith(f"{room}.") for room in rooms):
            return number
    raise AssertionError(f"{module} is in no room: place it, or list its room")


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imports(file: Path, *, lazy: bool) -> set[str]:
    """Return the modules of this package that a file imports.

    Args:
        file: the source.
        lazy: also those imported inside functions; those for type checking never count.
    """
    found = set()
    for node in walk(tree(file), lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in MODULES}
            if names - set(MODULES):
                found.add(str(node.module))
    return {name for name in found if name in MODULES}


def walk(node: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from walk(child, lazy=lazy)


def named_modules(file: Path) -> set[str]:
    """Return the modules that a file names in strings (`module:class`), to import them later."""
    words = {
        node.value.partition(":")[0]
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {word for word in words if word in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_no_room_above_it(module):
    if module == "leray":
        assert imports(MODULES[module], lazy=True) == set()
        return
    above = [
        name
        for name in imports(MODULES[module], lazy=True) | named_modules(MODULES[module])
        if name != "leray" and level(name) > level(module)
    ]
    assert above == []


def test_data_and_hardware_do_not_know_each_other():
    for module, other in itertools.permutations(("leray.data", "leray.hardware")):
        for name, file in MODULES.items():
            if name.startswith(module):
                assert not any(found.startswith(other) for found in imports(file, lazy=True)), name


def test_no_file_imports_itself_by_a_detour():
    graph = {name: imports(file, lazy=False) for name, file in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    return set(output.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import leray",
        "import leray.cli",
        "import leray.algorithms, leray.data, leray.envs, leray.platform",
        "from leray.cli import main; main(['--help'])",
    ],
)
def test_the_front_door_opens_without_heavy_libraries(statement):
    heavy = {"torch", "ray", "mujoco", "mlflow", "pyarrow", "gymnasium", "av", "numpy"}
    assert loaded_by(statement) & heavy == set()


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield public classes, functions and methods with their dotted names."""
    for child in getattr(node, "body", []):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_") or is_overload(child):
                continue
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


def is_overload(node: ast.AST) -> bool:
    names = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])]
    return any(name.endswith(("overload", ".setter")) for name in names)


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_explained(module):
    source = tree(MODULES[module])
    assert ast.get_docstring(source), "the module has no docstring"
    silent = [name for name, node in public(source) if not ast.get_docstring(node)]
    assert silent == []


def test_files_stay_small():
    lengths = {module: len(file.read_text().splitlines()) for module, file in MODULES.items()}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_path_of_one_machine_is_in_the_tree():
    pattern = re.compile(r"(?<![\w.$}~])/(?:home|Users|work|root|mnt|workspace)/\w+")
    suffixes = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".xml", ".cfg", ".json", ""}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if file.suffix not in suffixes or not file.is_file():
            continue
        text = file.read_text(errors="ignore")
        found += [f"{name}: {match.group()}" for match in pattern.finditer(text)]
    assert found == []
