"""Our modules reproduce the original ones in every case of $ST2V_GOLDEN, or in the small cases of tests/golden."""

import golden_cases
import pytest

pytestmark = pytest.mark.usefixtures('unoptimised')
CASES = golden_cases.cases(golden_cases.folder())


def test_there_are_golden_cases():
    assert CASES, f'no golden case (a folder with config.json) in {golden_cases.folder()}'


@pytest.mark.parametrize('case', CASES, ids=[case.name for case in CASES])
def test_golden(case):
    errors = golden_cases.check(case)
    if errors is None:
        pytest.xfail(f'no code handles {case.name} yet')
    assert errors, f'{case.name} compares nothing'
    for what, (error, tolerance) in errors.items():
        assert error <= tolerance, f'{case.name}: {what} is off by {error:.1e}, more than {tolerance:.0e}'
