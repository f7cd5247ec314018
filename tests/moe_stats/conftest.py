import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for gate_contract, which tests of new gates import too
pytest.register_assert_rewrite("gate_contract")

FALSE_ALARM = 1e-5  # of each random check; the suite's budget is 1e-3


@pytest.fixture(scope="session")
def false_alarm():
    """Probability with which a random check of this folder may fail on correct code."""
    return FALSE_ALARM
