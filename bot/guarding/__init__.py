"""Keeping characters in their part: what shows that one has left it, and what is done then."""
