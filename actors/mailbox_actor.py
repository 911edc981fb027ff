"""An actor whose inbox is fed by sockets and timers as well as by other actors."""

from __future__ import annotations

from typing import Any

from actors.child import Child
from transport.client.loop import Loop
from transport.mailbox import Mailbox, Pump


class MailboxActor(Child):
    """Takes what its sources bring between two messages. It works in one thread, as every actor does."""

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    @property
    def loop(self) -> Loop:
        """The loop that this actor waits on; use it from the actor's own thread."""
        inbox = self.actor_inbox
        assert isinstance(inbox, Mailbox)  # noqa: S101 - for the type checker: made by _create_actor_inbox
        return inbox.loop

    def _actor_loop(self) -> None:
        try:
            super()._actor_loop()
        finally:
            self.actor_inbox.close()  # type: ignore[attr-defined]  # made by _create_actor_inbox

    def on_receive(self, message: Any) -> Any:
        """Pump a source; leave all else to the subclass."""
        if isinstance(message, Pump):
            message.source.pump()
            return None
        return super().on_receive(message)
