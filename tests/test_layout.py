"""Each module has a test file with its name; `__main__` is tested as the command that it is."""

import pytest

from tests.conftest import PROJECT


@pytest.mark.parametrize("folder", ["service", "stages"])
def test_every_module_has_its_tests(folder):
    modules = {file.stem for file in (PROJECT / folder).glob("*.py")} - {"__init__"}
    names = {"command" if module == "__main__" else module for module in modules}
    assert {name for name in names if not (PROJECT / f"tests/test_{name}.py").exists()} == set()
