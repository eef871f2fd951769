"""Other engines, for `benchmarks.many_chats`. Nothing here imports Commedia: each runs in an environment of its own."""
