"""Python that users bring in files of their own: rewards and probes."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from probes.errors import UsageError


def module_name(path: Path, what: str) -> str:
    """What the module of a file is called: files of one name in different folders are kept apart."""
    return f"advisor_{what.lower()}_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def import_file(file: str, what: str) -> ModuleType:
    """The module in `file`, run anew. Raises `UsageError` where it is missing or cannot be run; `what` names it."""
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"{what} file '{file}' does not exist. Give an existing file.")
    spec = importlib.util.spec_from_file_location(module_name(path, what), path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(path.parent) not in sys.path:  # so that the file may import its neighbours, now or when it is called
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{what} file '{file}' cannot be imported: {type(error).__name__}: {error}") from error
    return module
