"""An imitation world: a mail sink, handsets, chats, and people who open, click or do neither.

Run it with `python -m app.sandbox`. It listens on loopback unless told otherwise, sends nothing
out, and follows only links and hooks of the Converge that it is told of.
"""
