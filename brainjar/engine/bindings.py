"""llama-cpp-python's ctypes layer, and nothing else of that package.

`import llama_cpp` runs the package's `__init__`, which brings numpy, a disk cache, grammars and chat formats: 8 MB that
every fork inherits page by page, 0.1 s at start, and threads of OpenBLAS. The layer that is used here needs none of it, so
it is imported under an empty package.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_cpp import llama_cpp as lib
else:
    if "llama_cpp" not in sys.modules:
        _found = importlib.util.find_spec("llama_cpp")
        if _found is None:
            raise ImportError("llama-cpp-python is not installed: make setup, or pip install llama-cpp-python")
        _package = types.ModuleType("llama_cpp")
        _package.__path__ = list(_found.submodule_search_locations or ())
        _package.__spec__ = _found
        sys.modules["llama_cpp"] = _package
    import llama_cpp.llama_cpp as lib

__all__ = ["lib"]
