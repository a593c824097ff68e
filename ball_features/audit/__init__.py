"""What makes a random split of a collection misleading: copies, shared fields, overlays, likely series."""

import sys
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    """A package that is also its function: `ball_features.audit` names both, whichever is imported first."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call `findings.audit`."""
        from ball_features.audit.findings import audit

        return audit(*arguments, **options)


sys.modules[__name__].__class__ = _CallableRoom
