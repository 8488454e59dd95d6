"""`python -m streamgauge.testing.crash`: lives that end by kill -9, one forked process each.

Reads lines of JSON, {"data": …, "diary": …, "failpoints": …, "helper": …}, and answers each with the exit status of the
process that lived it. Forking saves the second that imports take. Not for Windows.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from multiprocessing import resource_tracker
from pathlib import Path

from streamgauge.store import failpoints
from streamgauge.store.helper import HelperProcess, InThread
from streamgauge.testing.lives import Diary, Life


def main() -> None:
    resource_tracker.ensure_running()  # one for all, so that what a child leaves behind stays until the next start
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_live(order["data"], order["diary"], order["failpoints"], order["helper"]))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _live(data: str, diary: str, spec: str, helper: bool) -> int:
    os.environ[failpoints.VARIABLE] = spec
    runner = HelperProcess() if helper else InThread()
    try:
        failpoints.arm_from_environment(server=True)
        Life(Path(data), Diary(Path(diary)), runner, stops_at=spec.partition("=")[0]).run()
        if isinstance(runner, HelperProcess):
            asyncio.run(runner.stop())
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
