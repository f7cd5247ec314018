import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for hostile, which tests of several folders import
pytest.register_assert_rewrite("hostile")
