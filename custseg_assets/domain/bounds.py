"""Types of values that are configured, with their bounds. Settings enforce them; the code of ``domain`` does not."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Interval

Share = Annotated[float, Interval(ge=0, le=1)]
EffectSize = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(0)]
CountFromOne = Annotated[int, Ge(1)]
