"""Each module has a test file with its name; `__main__` is tested as the command that it is."""

import pytest

from tests.conftest import PROJECT


@pytest.mark.parametrize(
    ("folder", "tests"),
    [("service", "tests"), ("service/bulk", "tests/bulk"), ("stages", "tests")],
)
def test_every_module_has_its_tests(folder, tests):
    modules = {file.stem for file in (PROJECT / folder).glob("*.py")} - {"__init__"}
    names = {"command" if module == "__main__" else module for module in modules}
    assert names <= {file.stem.removeprefix("test_") for file in (PROJECT / tests).glob("*.py")}
