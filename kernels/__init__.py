"""The inner loops, a folder per operation.

Each folder holds ``naive.py`` (the formula, line by line), the fast forms beside it
(``compiled.py``: ``torch.compile``; ``triton.py``: a GPU kernel) and one dispatching function in
its ``__init__.py``. Kernels know torch and nothing of the other packages. `checks` are
those of single parameters, for every package.
"""
