"""Which weights the engine uses, from where they come, verified by digest and cached."""
