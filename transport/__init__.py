"""How messages travel: wire format, mailbox, listener, pool and the client library."""
