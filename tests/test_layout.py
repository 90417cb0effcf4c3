"""Check the layout: the imports between modules, their names, and their test files."""

import ast
import builtins
from collections.abc import Iterator

import pytest

from tests.conftest import PROJECT

MODULES = {
    ".".join(file.relative_to(PROJECT).with_suffix("").parts): file
    for folder in ("service", "stages", "tests")
    for file in (PROJECT / folder).rglob("*.py")
}
STAGES = {name for name in MODULES if name.count(".") == 1 and name.startswith("stages.")}


def imports(module: str) -> Iterator[str]:
    """The name of each module that a module imports anywhere."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES or f"{name}.__init__" in MODULES else node.module


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize(
    ("importers", "forbidden", "allowed"),
    [
        # Recognition is for anybody; it needs neither the web framework nor the rest.
        (["service.recognition"], ["service", "stages"], ["service.recognition"]),
        (["service.recognition"], ["flask", "werkzeug", "dvc", "keras"], []),
        # A program that loads the model needs recognition alone.
        (["service.loading"], ["service.", "stages", "flask"], ["service.recognition"]),
        # `service` itself has nothing in it but its version and two functions.
        (["stages", "service.bulk"], ["service."], ["service.recognition", "service.bulk"]),
        (["service"], ["stages"], []),
        # Of the service, only the process on top may use Flask's part.
        (["service.recognition", "service.bulk", "stages"], ["service.api", "flask"], []),
        (["service.api"], ["service.__main__", "service.scheduler", "service.connections"], []),
        # The helpers of the stages do not know the stages, nor the commands beside them.
        (["stages.common"], [*sorted(STAGES), "stages.commands"], []),
    ],
)
def test_no_import_crosses_a_boundary_the_wrong_way(importers, forbidden, allowed):
    wrong = [
        f"{module} imports {imported}"
        for module in MODULES
        if is_in(module, *importers)
        for imported in imports(module)
        if imported.startswith(tuple(forbidden)) and not is_in(imported, *allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_no_name_shadows_a_builtin_or_an_imported_module(module):
    taken, names = {name for name in dir(builtins) if not name.startswith("_")}, []
    nodes = list(ast.walk(ast.parse(MODULES[module].read_text())))
    fields = [
        statement.target
        for node in nodes
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    ]
    for node in nodes:
        match node:
            case ast.Import():
                taken |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            case ast.ImportFrom():
                full = {
                    alias.asname or alias.name: f"{node.module}.{alias.name}"
                    for alias in node.names
                }
                taken |= {name for name, imported in full.items() if imported in MODULES}
            case ast.arg(arg=name) | ast.FunctionDef(name=name):
                names.append(name)
            case ast.Name(id=name, ctx=ast.Store()) if node not in fields:
                names.append(name)
    assert [name for name in names if name in taken] == []


@pytest.mark.parametrize(
    ("folder", "tests"),
    [
        ("service", "tests"),
        ("service/api", "tests/api"),
        ("service/bulk", "tests/bulk"),
        ("service/recognition", "tests/recognition"),
        ("stages", "tests/stages"),
        ("stages/common", "tests/stages"),
        ("stages/commands", "tests/stages"),
        ("stages/commands/review", "tests/stages/review"),
    ],
)
def test_every_module_has_a_test_file_with_its_name(folder, tests):
    """`__main__` is tested as the command that it is."""
    modules = {file.stem for file in (PROJECT / folder).glob("*.py")} - {"__init__"}
    names = {"command" if module == "__main__" else module for module in modules}
    assert names <= {file.stem.removeprefix("test_") for file in (PROJECT / tests).glob("*.py")}
