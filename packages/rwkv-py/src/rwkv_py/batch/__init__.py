"""Work through a file of requests, in the form of OpenAI's Batch API, whatever happens meanwhile.

`line` is what a line says, `lines` the file, `journal` what is known of it so far, `output` the
files that come of it, and `work` does it. What answers is given: `rwkv_py.server.batch_answers`.
"""

from __future__ import annotations

from .journal import Journal
from .line import BadLine, Line, parse_line
from .lines import Lines
from .output import Outputs, name_of_work
from .work import Answered, NotNow, Progress, work_through

__all__ = [
    "Answered",
    "BadLine",
    "Journal",
    "Line",
    "Lines",
    "NotNow",
    "Outputs",
    "Progress",
    "name_of_work",
    "parse_line",
    "work_through",
]
