"""What Python's collector of cycles may look at in a node.

A node's libraries are hundreds of thousands of objects that live as long as it does. Looking through all of
them stops every actor for milliseconds, in the middle of whatever request made the one object too many.
"""

from __future__ import annotations

import gc
import logging

logger = logging.getLogger(__name__)

#: Objects more than were freed that have the youngest looked through, and of the younger generations how many
#: looks have the next one looked through: a batch of requests makes thousands that need no collector.
_THRESHOLDS = (20_000, 10, 10)


def settle() -> None:
    """Have the collector leave alone what there is now. Once a process; later calls do nothing.

    Call it when the first release was loaded and nothing is served yet: it takes tenths of a second.
    """
    if gc.get_freeze_count():
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    logger.info("%d objects are left alone by the collector from here on", gc.get_freeze_count())
