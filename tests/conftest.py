import os
import sys
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # read when Triton is imported, which tests of any folder may do
    os.environ.setdefault("TRITON_INTERPRET", "1")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for hostile, which tests of several folders import
pytest.register_assert_rewrite("hostile")
